"""The process that serves a region: found by its data directory, started detached, stopped in order.

A process id alone proves nothing: after a crash another process may have it. So the start time is recorded with it.
"""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

#: Tried in turn when nobody asks for a port.
USUAL_PORTS = range(9180, 9280)
START_TIMEOUT_SECONDS = 120.0
STOP_TIMEOUT_SECONDS = 60.0


class ProcessError(Exception):
    """What the operator can act on: its text says what was found and what to do."""


@dataclass(frozen=True, kw_only=True)
class Running:
    pid: int
    port: int
    #: Seconds since the epoch.
    created: float

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def log_path(data_dir: Path) -> Path:
    return data_dir / "localgcp.log"


def find(data_dir: Path) -> Running | None:
    """The process that serves this data directory now, ready or not."""
    try:
        recorded = json.loads(_record_path(data_dir).read_text())
        process = psutil.Process(int(recorded["pid"]))
        if abs(process.create_time() - float(recorded["created"])) > 1 or process.status() == psutil.STATUS_ZOMBIE:
            return None
        return Running(pid=process.pid, port=int(recorded["port"]), created=process.create_time())
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, psutil.Error):
        return None


def prepare(data_dir: Path) -> None:
    """Make the data directory. Raises ProcessError when it cannot be written."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        probe = data_dir / f".writable-{os.getpid()}"
        try:
            # More than nothing, so that a full disk is met here: a start would end in the middle.
            probe.write_bytes(b"." * 65536)
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise ProcessError(
            f"the data directory {data_dir} cannot be written ({error.strerror}): choose another with --data-dir or"
            " LOCALGCP_DATA_DIR, change its permissions, or make room"
        ) from None


def lock(data_dir: Path) -> IO[str]:
    """Hold the data directory until the file is closed. Raises ProcessError when another process holds it."""
    file = (data_dir / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        running = find(data_dir)
        who = f"process {running.pid} at {running.url}" if running else "another process"
        raise ProcessError(f"{who} already serves {data_dir}: stop it with `python -m localgcp down`") from None
    return file


def bind(data_dir: Path, port: int | None) -> socket.socket:
    """Listen on the port that was asked for, else on the one that this region has had before, else on a free one.

    Raises ProcessError when a port that must be this one is taken: addresses in states and settings depend on it.
    """
    remembered = _remembered_port(data_dir)
    if port is not None or remembered is not None:
        wanted = port if port is not None else remembered
        listening = _listen(wanted or 0)
        if listening is None:
            why = "" if port is not None else ", which this region has used so far,"
            raise ProcessError(
                f"port {wanted}{why} is taken by another process: stop that one, or choose another,"
                " `python -m localgcp up --port <port>`"
            )
    else:
        candidates = (_listen(candidate) for candidate in USUAL_PORTS)
        listening = next((found for found in candidates if found is not None), None)
        if listening is None:
            raise ProcessError(f"no port from {USUAL_PORTS[0]} to {USUAL_PORTS[-1]} is free: choose one with --port")
    (data_dir / "port").write_text(f"{listening.getsockname()[1]}\n")
    return listening


def record(data_dir: Path, port: int) -> None:
    """Tell other commands who serves this data directory. Written whole or not at all."""
    content = {"pid": os.getpid(), "created": psutil.Process().create_time(), "port": port}
    partial = _record_path(data_dir).with_suffix(".partial")
    partial.write_text(json.dumps(content))
    partial.replace(_record_path(data_dir))


def forget(data_dir: Path) -> None:
    _record_path(data_dir).unlink(missing_ok=True)


def start(data_dir: Path, port: int | None, progress: Callable[[str], None]) -> Running:
    """Start a detached process and wait until it answers. Raises ProcessError with the end of its log."""
    command = [sys.executable, "-m", "localgcp", "serve", "--data-dir", str(data_dir.absolute())]
    if port is not None:
        command += ["--port", str(port)]
    environment = dict(os.environ)
    # The child must find this package wherever it was started from.
    package_parent = str(Path(__file__).resolve().parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package_parent, os.environ.get("PYTHONPATH", "")]))
    log_file = log_path(data_dir)
    offset = log_file.stat().st_size if log_file.exists() else 0
    with log_file.open("ab") as log:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            said = _log_since(log_file, offset).removeprefix("localgcp: ")
            raise ProcessError(f"the region did not start: {said or f'exit code {child.returncode}'}")
        running = find(data_dir)
        if running is not None and running.pid == child.pid and is_ready(running):
            return running
        progress("waiting for the API" if running else "starting the process")
        time.sleep(0.05)
    raise ProcessError(f"localgcp did not answer within {START_TIMEOUT_SECONDS:.0f} seconds: see {log_file}")


def is_outdated(running: Running) -> bool:
    """Whether the code of this package was changed, by a `git pull` for instance, after the process had started."""
    changed = max(file.stat().st_mtime for file in Path(__file__).parent.rglob("*.py"))
    return changed > running.created


def is_ready(running: Running) -> bool:
    """Whether the region answers: it does once every service has recovered."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=2)
    try:
        connection.request("GET", "/.well-known/openid-configuration")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def wait_until_ready(running: Running, progress: Callable[[str], None]) -> None:
    """Raises ProcessError when the process ends, or does not answer in time."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not is_ready(running):
        if not psutil.pid_exists(running.pid) or time.monotonic() > deadline:
            raise ProcessError(f"process {running.pid} does not answer at {running.url}: see its log")
        progress("waiting for the API")
        time.sleep(0.05)


def stop(running: Running, progress: Callable[[str], None]) -> None:
    """Ask the process to end, and wait until it has. Raises ProcessError when it does not."""
    try:
        process = psutil.Process(running.pid)
        process.send_signal(signal.SIGTERM)
        progress("waiting for services and databases to stop")
        process.wait(STOP_TIMEOUT_SECONDS)
    except psutil.NoSuchProcess:
        return
    except psutil.TimeoutExpired:
        raise ProcessError(
            f"process {running.pid} did not stop within {STOP_TIMEOUT_SECONDS:.0f} seconds: `kill -9 {running.pid}` is"
            " safe, nothing that was acknowledged is lost"
        ) from None


def _listen(port: int) -> socket.socket | None:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # Without it a restart would find its own port busy for a minute.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
        listening.listen(2048)
    except OSError:
        listening.close()
        return None
    listening.set_inheritable(False)
    return listening


def _remembered_port(data_dir: Path) -> int | None:
    try:
        return int((data_dir / "port").read_text())
    except (FileNotFoundError, ValueError):
        return None


def _record_path(data_dir: Path) -> Path:
    return data_dir / "process.json"


def _log_since(path: Path, offset: int) -> str:
    with path.open("rb") as log:
        log.seek(offset)
        return log.read()[-4000:].decode("utf-8", "replace").strip()
