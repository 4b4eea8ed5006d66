"""The application as it is deployed: gunicorn with its configuration file, in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.ports import quiet_port

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Server:
    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def client(self, **headers: str) -> httpx.Client:
        """A client as the load balancer would forward it."""
        return httpx.Client(
            base_url=self.url, headers={"host": "au.validibot.com", "x-forwarded-proto": "https"} | headers, timeout=60
        )

    def entries(self) -> list[dict[str, Any]]:
        """What it logged; each line must be JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | dict(environment)


def manage(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=ROOT, env=clean(environment), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@contextmanager
def running(environment: Mapping[str, str], log: Path, port: int | None = None) -> Iterator[Server]:
    port = port or quiet_port()
    gunicorn = Path(sys.executable).with_name("gunicorn")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [gunicorn, "--config", "app/gunicorn_conf.py", "app.wsgi:application"],
            cwd=ROOT, env=clean({**environment, "HOST": "127.0.0.1", "PORT": str(port)}),
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    server = Server(f"http://127.0.0.1:{port}", log, process)
    try:
        _wait_until_healthy(server)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_healthy(server: Server) -> None:
    deadline = time.monotonic() + 30
    while True:
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"gunicorn did not come up:\n{server.log.read_text()}")
        try:
            if httpx.get(f"{server.url}/healthz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)  # between two questions; the deadline is above
