"""A pool of warm sandboxed children. One submission runs in one child; a child that misbehaves is killed, not asked."""

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.validations.engines import wire
from app.validations.engines.limits import WALL_CLOCK
from app.validations.engines.results import Refused, over_budget

log = logging.getLogger(__name__)
_ROOT = Path(__file__).resolve().parents[3]
_MAX_ANSWER_BYTES = 8 * 1024 * 1024


class Busy(Exception):
    """Every child is at work and stayed so for as long as the caller would wait."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What a submission asks for: known before it is done."""

    validator: str
    filename: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a child answered: plain values, ready to be stored."""

    validator: str
    filename: str
    findings: list[dict[str, Any]]
    is_truncated: bool


class _Child:
    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "app.validations.engines.child"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                # libxml2 and Rust panics write here. It may quote the document, which has no place in our logs.
                stderr=subprocess.DEVNULL,
                cwd="/",
                # Nothing of ours: the environment holds the application's secrets.
                env={"PYTHONPATH": str(_ROOT), "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8", "PATH": os.defpath},
                close_fds=True,
            )
        self.link = ours

    def run(
        self, body: bytes, content_type: str | None, wall_clock: timedelta, *, is_outline: bool = False
    ) -> tuple[dict[str, Any], bool]:
        """The answer, and whether the child can be used again. Raises: TimeoutError, EOFError with where it was."""
        deadline = time.monotonic() + wall_clock.total_seconds()
        where = "body"
        try:
            self.link.settimeout(wall_clock.total_seconds())
            seconds = wall_clock.total_seconds()
            wire.send(self.link, {"content_type": content_type, "seconds": seconds, "is_outline": is_outline}, body)
            while True:
                self.link.settimeout(max(0.001, deadline - time.monotonic()))
                answer, _ = wire.receive(self.link, limit=_MAX_ANSWER_BYTES)
                if answer is None:
                    raise EOFError(where)
                if "at" not in answer:
                    return answer, not answer["last"]
                where = str(answer["at"])
                if time.monotonic() > deadline:
                    raise TimeoutError
        except TimeoutError:
            raise TimeoutError(where) from None
        except OSError:
            raise EOFError(where) from None

    def kill(self) -> None:
        self.link.close()
        self.process.kill()
        self.process.wait()


@dataclass
class Pool:
    """At most `size` children. They start when first needed, and again after one was killed."""

    size: int
    wall_clock: timedelta = WALL_CLOCK
    patience: timedelta = timedelta(seconds=20)
    _idle: list[_Child] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._places = threading.BoundedSemaphore(self.size)

    def warm(self) -> None:
        """Start the first child now, so that the first submission need not wait for it."""
        with self._lock:
            if not self._idle:
                self._idle.append(_Child())

    def run(self, body: bytes, content_type: str) -> Outcome:
        """Validate one submission.

        Raises: Refused; Busy.
        """
        answer = self._ask(body, content_type)
        return Outcome(
            validator=answer["validator"],
            filename=answer["filename"],
            findings=answer["findings"],
            is_truncated=answer["is_truncated"],
        )

    def why_not(self, condition: str, variables: dict[str, Any] | None) -> str:
        """Why a condition does not hold, or nothing; see `cel.holds`.

        Raises: Refused; Busy.
        """
        body = json.dumps({"expression": condition, "variables": variables}).encode()
        return str(self._ask(body, None)["why_not"])

    def outline(self, body: bytes, content_type: str) -> Outline:
        """What a submission asks for, without doing it.

        Raises: Refused; Busy.
        """
        answer = self._ask(body, content_type, is_outline=True)
        return Outline(validator=answer["validator"], filename=answer["filename"])

    def _ask(self, body: bytes, content_type: str | None, *, is_outline: bool = False) -> dict[str, Any]:
        with self._place():
            child = self._take()
            reusable = False
            try:
                answer, reusable = child.run(body, content_type, self.wall_clock, is_outline=is_outline)
            except TimeoutError as error:
                seconds = self.wall_clock.total_seconds()
                raise over_budget(
                    str(error),
                    f"validating took longer than {seconds:g} seconds (while working on: {error})",
                    "send a smaller file, or a simpler schema or rule",
                ) from None
            except EOFError as error:
                # What it worked on may have been too much for it, or have met a mistake of ours: the status tells.
                child.kill()
                log.warning("a validator ended while at work on %s: exit status %s", error, child.process.returncode)
                raise over_budget(
                    str(error),
                    f"validating needed more memory or recursion than it may (while working on: {error})",
                    "send a smaller file, or a schema that does not refer to itself endlessly",
                ) from None
            finally:
                if reusable:
                    with self._lock:
                        self._idle.append(child)
                else:
                    child.kill()
        if "refused" in answer:
            raise Refused.from_dict(answer["refused"])
        return answer

    def close(self) -> None:
        with self._lock:
            children, self._idle = self._idle, []
        for child in children:
            child.kill()

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(timeout=self.patience.total_seconds()):
            raise Busy(f"no validator became free within {self.patience.total_seconds():g} seconds")
        try:
            yield
        finally:
            self._places.release()

    def _take(self) -> _Child:
        while True:
            with self._lock:
                if not self._idle:
                    break
                child = self._idle.pop()
            if child.process.poll() is None:
                return child
            child.kill()
        return _Child()
