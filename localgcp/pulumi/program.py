"""Run a Pulumi program in a process of its own; started by `language_host`, as a file.

This file runs in the program's interpreter, which need not be localgcp's and need not have localgcp installed: it may
import nothing but the standard library and the SDK.
"""

import argparse
import asyncio
import gc
import logging
import os
import runpy
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Tells the language host that the user has been told already.
EXIT_AFTER_MESSAGE = 32


def main() -> int:
    arguments = _parse(sys.argv[1:])
    # A provider's package defines thousands of classes that stay. At its default threshold the collector walks all of
    # them again and again: a third of the CPU time of importing pulumi_gcp.compute (measured, Python 3.11).
    gc.set_threshold(50_000, 20, 100)
    # Python put this file's folder first: `import provider` in a program must not find ours.
    del sys.path[0]
    try:
        import pulumi
        import pulumi.runtime
    except ImportError:
        print(
            f"{traceback.format_exc()}\nthe Pulumi SDK cannot be imported by {sys.executable}: install the project's "
            "requirements into that environment, or name the right one as `virtualenv` in Pulumi.yaml",
            file=sys.stderr,
        )
        return EXIT_AFTER_MESSAGE

    runtime = pulumi.runtime
    runtime.set_all_config(runtime.config.get_config_env(), runtime.config.get_config_secret_keys_env())
    runtime.configure(
        runtime.Settings(
            monitor=arguments.monitor,
            engine=arguments.engine,
            project=arguments.project,
            stack=arguments.stack,
            parallel=arguments.parallel,
            dry_run=arguments.dry_run == "true",
            organization=arguments.organization or None,
            root_directory=arguments.root_directory,
        )
    )
    program = (Path(arguments.pwd) / arguments.program).resolve()
    sys.argv = [arguments.program, *arguments.arguments]
    os.chdir(arguments.pwd)

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    # A registration waits in a thread for the engine's answer. With fewer threads than the engine runs operations,
    # the program itself would be what makes resources wait for one another.
    executor = ThreadPoolExecutor(max_workers=max(arguments.parallel, 1) * 4)
    loop.set_default_executor(executor)
    # After a failure most of the program's futures are never observed, and asyncio would complain about each of them.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        loop.run_until_complete(runtime.run_in_stack(lambda: _run(program)))
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
        return EXIT_AFTER_MESSAGE
    except Exception as error:
        pulumi.log.error(f"Program failed with an unhandled exception:\n{_user_traceback(error, program)}")
        return EXIT_AFTER_MESSAGE
    finally:
        executor.shutdown(wait=True)
        loop.close()
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("project", "stack", "organization", "monitor", "engine", "root_directory", "pwd", "dry_run"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("program")
    parser.add_argument("arguments", nargs="*")
    return parser.parse_args(argv)


def _run(program: Path) -> None:
    if program.is_dir() and not (program / "__main__.py").is_file():
        import pulumi

        raise pulumi.RunError(
            f"there is no __main__.py in {program}: set `main` in Pulumi.yaml to the program's folder"
        )
    runpy.run_path(str(program), run_name="__main__")


def _user_traceback(error: Exception, program: Path) -> str:
    """The traceback from the program's own file on: what is above it is the SDK's and ours."""
    entry = program / "__main__.py" if program.is_dir() else program
    frames = traceback.extract_tb(error.__traceback__)
    for index, frame in enumerate(frames):
        if Path(frame.filename).resolve() == entry:
            return "".join(traceback.format_exception(error, limit=-(len(frames) - index)))
    if isinstance(error, SyntaxError):
        # It names the place itself; the frames are those of the import.
        return "".join(traceback.format_exception_only(error))
    return "".join(traceback.format_exception(error))


if __name__ == "__main__":
    sys.exit(main())
