"""A region in a process of its own, which a test kills."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from localgcp.iam.principal import OPERATOR_EMAIL
from localgcp.iam.tokens import Tokens
from localgcp.store import Store
from tests.localgcp.fixtures import temporary_data_dir
from tests.ports import quiet_port

ROOT = Path(__file__).parents[2]


class Killable:
    """A server process on a fixed port and data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.port = quiet_port()
        store = Store(data_dir / "region.sqlite3")
        token = Tokens(store, self.url).access_token(OPERATOR_EMAIL)
        store.close()
        self.http = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=30)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "localgcp",
            "serve",
            "--data-dir",
            str(self.data_dir),
            "--port",
            str(self.port),
        ]
        with (self.data_dir / "log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        # The port is bound before the region has recovered: only an answer means that it serves.
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.http.get("/storage/v1/b?project=demo-project", timeout=2)
                return
            except httpx.TransportError:
                time.sleep(0.02)
        raise TimeoutError((self.data_dir / "log").read_text())

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def restart(self) -> None:
        self.kill()
        self.start()

    def content_files(self) -> int:
        return sum(1 for path in (self.data_dir / "storage").rglob("*") if path.is_file())


@contextmanager
def killable() -> Iterator[Killable]:
    with temporary_data_dir() as data_dir:
        server = Killable(data_dir)
        server.start()
        try:
            yield server
        finally:
            server.kill()
            server.http.close()
