"""Somebody who waits is told so, and nothing outlives its limit."""

import subprocess
import sys

import pytest

from scripts.waiting import wait_telling


def sleeping(seconds: float) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds}); raise SystemExit(3)"])


def test_the_exit_code_comes_back_and_the_wait_is_told() -> None:
    told: list[float] = []

    assert wait_telling(sleeping(0.5), told.append, every_seconds=0.1) == 3
    assert len(told) >= 2
    assert told == sorted(told)


@pytest.mark.parametrize("every_seconds", [0.05, 30])
def test_what_takes_longer_than_its_limit_is_killed(every_seconds: float) -> None:
    process = sleeping(600)

    with pytest.raises(subprocess.TimeoutExpired):
        wait_telling(process, lambda _: None, every_seconds, limit_seconds=0.3)
    assert process.returncode == -9


def test_who_is_interrupted_leaves_nothing_running() -> None:
    process = sleeping(600)

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wait_telling(process, interrupt, every_seconds=0.05)
    assert process.returncode == -9
