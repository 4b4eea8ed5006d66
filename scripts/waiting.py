"""Waiting for a program that takes minutes, so that nobody wonders whether it hangs. Standard library only."""

import subprocess
import time
from collections.abc import Callable


def wait_telling(
    process: "subprocess.Popen[bytes]",
    tell: Callable[[float], None],
    every_seconds: float = 30,
    limit_seconds: float = float("inf"),
) -> int:
    """The exit code. Meanwhile `tell` is called with the seconds gone by; left in any other way, the program is killed.

    Raises:
        subprocess.TimeoutExpired: it took longer than `limit_seconds`, and was killed.
    """
    started = time.monotonic()
    try:
        while True:
            left = started + limit_seconds - time.monotonic()
            try:
                return process.wait(min(every_seconds, max(left, 0)))
            except subprocess.TimeoutExpired:
                if left <= every_seconds:
                    raise
                tell(time.monotonic() - started)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
