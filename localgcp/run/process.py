"""A process of a workload: started clean, its lines kept as log entries, ended with everything it started.

Every start is noted in the store. A region that was killed leaves its instances behind; the next one ends them, and
only them.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import psutil

from localgcp.logs import entry_of_line
from localgcp.run.program import MARKER, Program, region_marker

if TYPE_CHECKING:
    from localgcp.region import Region

SCHEMA = """
CREATE TABLE IF NOT EXISTS run_processes (
    identifier TEXT PRIMARY KEY, pid INTEGER NOT NULL, created REAL NOT NULL
);
"""

#: Cloud Run, "Container runtime contract": SIGTERM, ten seconds, SIGKILL.
GRACE_SECONDS = 10.0
#: A line longer than this is cut: an entry may have 256 KB (Logging, "Quotas and limits").
MAX_LINE_BYTES = 250_000

#: The resolution of a process's creation time on Linux is 10 ms.
CLOCK_TICK_SECONDS = 0.02

log = logging.getLogger(__name__)


class Process:
    """`write(log_name, entry)` gets every line of output."""

    def __init__(
        self, region: "Region", identifier: str, program: Program, write: Callable[[str, Mapping[str, Any]], None]
    ) -> None:
        self._region = region
        self._identifier = identifier
        self._program = program
        self._write = write
        self._process: asyncio.subprocess.Process | None = None
        self._pumps: list[asyncio.Task[None]] = []

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        """Raises OSError."""
        # A session of its own, so that one signal reaches whatever the program starts.
        self._process = await asyncio.create_subprocess_exec(
            *self._program.arguments,
            env=self._program.environment,
            cwd=self._program.directory,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        await self._region.run_in_thread(self._register)
        for name, stream in (("stdout", self._process.stdout), ("stderr", self._process.stderr)):
            if stream is not None:
                self._pumps.append(asyncio.create_task(self._pump(f"run.googleapis.com/{name}", stream)))

    async def wait(self) -> int:
        """The exit status, once the process has ended and its last lines are read; negative for a signal."""
        if self._process is None:
            raise RuntimeError("the process was not started")
        status = await self._process.wait()
        # What it started may hold the pipes open for ever: its own lines are out, so they get a moment.
        if self._pumps:
            await asyncio.wait(self._pumps, timeout=1.0)
        self._signal(signal.SIGKILL)
        for pump in self._pumps:
            pump.cancel()
        await self._region.run_in_thread(self._unregister)
        return status

    async def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """SIGTERM, then SIGKILL after the grace. Returns when the process is gone."""
        if self._process is None or self._process.returncode is not None:
            return
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), grace_seconds)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._process.wait()

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _register(self) -> None:
        try:
            created = psutil.Process(self.pid).create_time()
        except psutil.NoSuchProcess:
            return
        with self._region.store.transaction() as tx:
            tx.execute(
                "INSERT OR REPLACE INTO run_processes (identifier, pid, created) VALUES (?, ?, ?)",
                (self._identifier, self.pid, created),
            )

    def _unregister(self) -> None:
        with self._region.store.transaction() as tx:
            tx.execute("DELETE FROM run_processes WHERE identifier = ?", (self._identifier,))

    async def _pump(self, log_name: str, stream: asyncio.StreamReader) -> None:
        rest = b""
        while chunk := await stream.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._line(log_name, line)
            if len(rest) > MAX_LINE_BYTES:
                self._line(log_name, rest)
                rest = b""
        if rest:
            self._line(log_name, rest)

    def _line(self, log_name: str, line: bytes) -> None:
        text = line[:MAX_LINE_BYTES].decode("utf-8", "replace").rstrip("\r")
        if text:
            self._write(log_name, entry_of_line(text))


def end_orphans(region: "Region") -> int:
    """End what a killed region left running; answers how many. Blocks: run it in a thread."""
    region.store.define(SCHEMA)
    known = {row["pid"]: row["created"] for row in region.store.rows("SELECT pid, created FROM run_processes")}
    ended = 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.pid != os.getpid() and _is_ours(region, process, known.get(process.pid)):
                _end(process)
                ended += 1
    with region.store.transaction() as tx:
        tx.execute("DELETE FROM run_processes")
    return ended


def _is_ours(region: "Region", process: psutil.Process, created: float | None) -> bool:
    """A process id is given out again; a process id with its creation time is not.

    The marker finds what is in no table: children, and what was started in the very moment of the kill. The table
    finds what has overwritten its environment, as programs that set their title do.
    """
    if created is not None and abs(process.create_time() - created) < CLOCK_TICK_SECONDS:
        return True
    return str(process.environ().get(MARKER, "")).startswith(f"{region_marker(region)}/")


def _end(process: psutil.Process) -> None:
    log.warning("ending process %d, which an earlier localgcp left behind", process.pid)
    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()
    deadline = time.monotonic() + 2.0
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
            break
        time.sleep(0.02)
