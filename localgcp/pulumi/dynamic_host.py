"""`pulumi-resource-pulumi-python`: runs the dynamic resources that a program defines in Python.

The SDK holds the whole provider (`pulumi.dynamic.__main__`, complete as of 3.272). What it lacks here is the program's
import path: a serialised provider names the modules of its classes, `infra.components.images` for one, and these are
found from the folder of Pulumi.yaml. The engine starts plug-ins in the program's folder, so that one is above it or it.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
from pathlib import Path

from localgcp.pulumi.provider_server import exit_with_the_engine


def project_directory(start: Path) -> Path | None:
    """The nearest folder from `start` upwards that holds a Pulumi.yaml."""
    return next((folder for folder in (start, *start.parents) if (folder / "Pulumi.yaml").is_file()), None)


def main() -> None:
    """Become the SDK's provider."""
    program = Path.cwd()
    project = project_directory(program)
    # The same order as in the program's own process: its folder, then that of Pulumi.yaml.
    sys.path[:1] = [str(program), *([str(project)] if project else [])]
    stopped = threading.Event()

    def exit_at_once() -> None:
        stopped.wait()
        os._exit(0)

    exit_with_the_engine(stopped)
    threading.Thread(target=exit_at_once, daemon=True).start()
    runpy.run_module("pulumi.dynamic", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
