"""An instance of a revision: a process that listens on a loopback port, watched by its probes."""

import asyncio
import contextlib
import secrets
import shutil
import socket
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localgcp.build.images import ImageStore
from localgcp.run.http1 import ConnectionFailed, Pool, Request, TimedOut, Timer, Whole
from localgcp.run.process import Process
from localgcp.run.program import Program, StartFailed, Workload, discard, prepare

if TYPE_CHECKING:
    from localgcp.region import Region

#: How often a starting instance is tried. A probe's own period is for a fleet; here somebody waits for the answer, and
#: the probe's budget (initial delay, period times failures) stays the limit.
START_POLL_SECONDS = 0.02
START_PROBE_SECONDS = 0.25

_given_ports: list[int] = []


def free_port() -> int:
    """A loopback port that nobody listens on, and that was not given away a moment ago."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _given_ports:
            _given_ports.append(port)
            del _given_ports[:-256]
            return port


class Instance:
    def __init__(
        self,
        region: "Region",
        images: ImageStore,
        workload: Workload,
        *,
        write: Callable[[str, Mapping[str, Any]], None],
        on_exit: Callable[["Instance"], None],
    ) -> None:
        self.id = secrets.token_hex(24)
        self.in_flight = 0
        self.ready = False
        self.draining = False
        self.last_used: datetime = region.clock.now()
        self.port = free_port()
        self.pool = Pool("127.0.0.1", self.port)
        self._region = region
        self._images = images
        self._workload = workload
        self._write = write
        self._on_exit = on_exit
        self._home: Path = region.settings.data_dir / "run" / "instances" / self.id[:16]
        self._program: Program | None = None
        self._process: Process | None = None
        self._exit: asyncio.Task[int] | None = None
        self._liveness: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    def take(self) -> None:
        self.in_flight += 1
        self._idle.clear()

    def give_back(self) -> None:
        self.in_flight -= 1
        if self.in_flight == 0:
            self._idle.set()

    async def start(self) -> None:
        """Returns when the startup probe has succeeded. Raises StartFailed, and then nothing is left of it."""
        try:
            await self._start()
        except BaseException:
            await self.stop(drain=False)
            raise
        self.ready = True
        if "livenessProbe" in self._workload.container:
            self._liveness = asyncio.create_task(self._watch(self._workload.container["livenessProbe"]))

    async def stop(self, *, drain: bool = True, timeout_seconds: float = 3600) -> None:
        """Let the requests under way end, then SIGTERM, ten seconds, SIGKILL."""
        self.ready = False
        self.draining = True
        if drain:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), timeout_seconds)
        self.pool.close()
        if self._liveness is not None and self._liveness is not asyncio.current_task():
            self._liveness.cancel()
        if self._process is not None:
            await self._process.stop()
        if self._exit is not None:
            await self._exit
        if self._program is not None:
            await self._region.run_in_thread(discard, self._region, self._program)
        else:
            await self._region.run_in_thread(shutil.rmtree, self._home, True)

    async def _start(self) -> None:
        container = self._workload.container
        workload = Workload(
            project=self._workload.project,
            location=self._workload.location,
            service_account=self._workload.service_account,
            kind=self._workload.kind,
            container=container,
            volumes=self._workload.volumes,
            system_environment={**self._workload.system_environment, "PORT": str(self.port)},
        )
        self._program = await self._region.run_in_thread(
            prepare, self._region, self._images, workload, self.id, self._home
        )
        for note in self._program.notes:
            self._system(note, "ERROR")
        self._process = Process(self._region, self.id, self._program, self._write)
        try:
            await self._process.start()
        except OSError as error:
            raise StartFailed(f"Application failed to start: {error.strerror}: {error.filename}") from error
        self._exit = asyncio.create_task(self._watch_exit())
        await self._await_startup(container.get("startupProbe") or {})

    async def _watch_exit(self) -> int:
        if self._process is None:
            raise RuntimeError("the process was not started")
        status = await self._process.wait()
        was_ready, self.ready = self.ready, False
        if was_ready and not self.draining:
            self._system(f"Container called {_exit_text(status)}.", "WARNING")
            self._on_exit(self)
        return status

    async def _await_startup(self, probe: Mapping[str, Any]) -> None:
        port = self._workload.container["ports"][0]["containerPort"]
        delay = float(probe.get("initialDelaySeconds", 0))
        budget = float(probe.get("periodSeconds", 240)) * int(probe.get("failureThreshold", 1))
        kind = "HTTP" if "httpGet" in probe else "TCP"
        loop = asyncio.get_running_loop()
        await self._sleep_while_alive(delay)
        deadline = loop.time() + budget
        attempts = 0
        while loop.time() < deadline:
            if await self._accepts():
                attempts += 1
                if kind == "TCP" or await self._answers(probe):
                    self._system(
                        f"{'Default ' if not probe else ''}STARTUP {kind} probe succeeded after {attempts}"
                        f" attempt{'s' if attempts > 1 else ''} for container on port {port}.",
                        "INFO",
                    )
                    return
                await self._sleep_while_alive(START_PROBE_SECONDS)
            else:
                await self._sleep_while_alive(START_POLL_SECONDS)
        if attempts:
            raise StartFailed(
                "The user-provided container failed the configured startup probe checks. Logs for this revision might"
                " contain more information."
            )
        raise StartFailed(NO_LISTENER.format(port=port))

    async def _sleep_while_alive(self, seconds: float) -> None:
        if self._exit is None:
            return
        done, _ = await asyncio.wait({self._exit}, timeout=max(seconds, 0))
        if done:
            self._system(f"Container called {_exit_text(self._exit.result())}.", "WARNING")
            raise StartFailed(NO_LISTENER.format(port=self._workload.container["ports"][0]["containerPort"]))

    async def _accepts(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    async def _answers(self, probe: Mapping[str, Any]) -> bool:
        """Whether the container answers the probe with 200 to 399 in time."""
        get = probe["httpGet"]
        given = [(h["name"].lower().encode(), h.get("value", "").encode()) for h in get.get("httpHeaders", ())]
        headers = [(b"host", b"127.0.0.1:%d" % self.port)] if b"host" not in {name for name, _ in given} else []
        request = Request(b"GET", (get.get("path") or "/").encode(), [], Whole())
        timer = Timer(float(probe.get("timeoutSeconds", 1)))
        try:
            response = await self.pool.request(
                request, [*headers, (b"user-agent", b"GoogleHC/1.0"), *given, (b"accept", b"*/*")], timer
            )
            while await response.body.read():
                pass
        except (ConnectionFailed, TimedOut):
            return False
        finally:
            timer.cancel()
        return 200 <= response.status < 400

    async def _watch(self, probe: Mapping[str, Any]) -> None:
        """The liveness probe: an instance that fails it often enough is ended, and its fleet starts another."""
        await asyncio.sleep(float(probe.get("initialDelaySeconds", 0)))
        failures = 0
        while failures < int(probe.get("failureThreshold", 3)):
            await asyncio.sleep(float(probe.get("periodSeconds", 10)))
            is_alive = await (self._answers(probe) if "httpGet" in probe else self._accepts())
            failures = 0 if is_alive else failures + 1
        if self.ready:
            self._system("LIVENESS probe failed too often for the container: the instance is shut down.", "ERROR")
            self.ready = False
            self._on_exit(self)

    def _system(self, text: str, severity: str) -> None:
        self._write("run.googleapis.com/varlog/system", {"textPayload": text, "severity": severity})


NO_LISTENER = (
    "The user-provided container failed to start and listen on the port defined provided by the PORT={port} environment"
    " variable within the allocated timeout. This can happen when the container port is misconfigured or if the timeout"
    " is too short. The health check timeout can be extended. Logs for this revision might contain more information."
)


def _exit_text(status: int) -> str:
    return f"exit({status})" if status >= 0 else f"exit after signal {-status}"
