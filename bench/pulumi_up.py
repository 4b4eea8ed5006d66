"""`pulumi up` of the AU stack, against the same program with providers that do nothing.

Fresh: into a region that has just been started, and is thrown away after the round. Unchanged: once more into what the
last fresh round made. The engine takes no preview, like `make up`.
"""

import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.measure import Comparison, say, show
from bench.region import STACK, data_directory, started
from localgcp.pulumi import install
from scripts.up import ROOT, Pulumi

QUIET = ("--yes", "--skip-preview", "--suppress-outputs", "--suppress-progress", "--stack", STACK)
REPLACED = ("gcp", "pulumi-python")


def do_nothing_home(directory: Path) -> dict[str, str]:
    """Lay out a PULUMI_HOME whose providers do nothing; its environment."""
    environ = install.environment(directory)
    for plugin in install.PLUGINS:
        if plugin.kind == "resource" and plugin.name in REPLACED:
            version = plugin.folder.rpartition("-v")[2]
            code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from bench.do_nothing import main; "
            code += f"main({plugin.name!r}, {version!r})"
            command = install.home(directory) / "plugins" / plugin.folder / plugin.command
            command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -u -P -c {shlex.quote(code)} "$@"\n')
            command.chmod(0o755)
    return environ


def seconds_of_up(pulumi: Pulumi) -> float:
    began = time.monotonic()
    done = pulumi("up", *QUIET, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    took = time.monotonic() - began
    if done.returncode != 0:
        raise RuntimeError(f"pulumi up failed:\n{done.stdout[-3000:]}")
    return took


def run(rounds: int, unchanged_rounds: int) -> None:
    """Measure and print."""
    fresh = Comparison(name="pulumi up, fresh", unit="s", above_one="the region costs time")
    unchanged = Comparison(name="pulumi up, no change", unit="s", above_one="the region costs time")
    with tempfile.TemporaryDirectory(prefix="do-nothing-") as nothing:
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            with data_directory(None) as directory, started(directory) as region:
                ours = Pulumi(stack=STACK, environ=region.environ)
                theirs = nothing_at_all(Path(nothing), region.environ)
                ours.select()
                theirs.select()
                fresh.measure(1, up(ours), up(theirs))
                if number == rounds - 1:
                    unchanged.measure(unchanged_rounds, up(ours), up(theirs))
    show(fresh, unchanged)


def up(pulumi: Pulumi) -> Callable[[], float]:
    return lambda: seconds_of_up(pulumi)


def nothing_at_all(directory: Path, environ: dict[str, str]) -> Pulumi:
    """An engine with an empty state whose resources are made by nobody."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    return Pulumi(stack=STACK, environ={**environ, **do_nothing_home(directory)})
