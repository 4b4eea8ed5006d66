"""kill -9: what was acknowledged is there, what was not leaves nothing behind."""

import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from localgcp.iam.principal import OPERATOR_EMAIL
from localgcp.iam.tokens import Tokens
from localgcp.store import Store
from tests.localgcp.fixtures import temporary_data_dir

ROOT = Path(__file__).parents[3]
PART = 256 * 1024


class Killable:
    """A server process on a fixed port and data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
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


@pytest.fixture
def server() -> Iterator[Killable]:
    with killable() as server:
        body = {"name": "durable", "softDeletePolicy": {"retentionDurationSeconds": "0"}}
        assert server.http.post("/storage/v1/b?project=demo-project", json=body).status_code == 200
        yield server


def test_no_acknowledged_object_is_lost_when_the_process_is_killed(server: Killable) -> None:
    chance = random.Random(20261123)
    acknowledged: dict[str, bytes] = {}

    def upload(round_: int) -> None:
        with httpx.Client(base_url=server.url, headers=server.http.headers, timeout=30) as http:
            for number in range(1000):
                name = f"{round_}-{number}"
                content = f"{name} ".encode() * (1 + number * 997 % 30_000)
                params = {"uploadType": "media", "name": name}
                try:
                    answer = http.post("/upload/storage/v1/b/durable/o", params=params, content=content)
                except httpx.TransportError:
                    return
                assert answer.status_code == 200
                acknowledged[name] = content

    for round_ in range(4):
        uploading = threading.Thread(target=upload, args=(round_,))
        before = len(acknowledged)
        uploading.start()
        target = before + chance.randrange(3, 25)
        while len(acknowledged) < target and uploading.is_alive():
            uploading.join(0.001)
        server.kill()
        uploading.join(30)
        server.start()

    listed = server.http.get("/storage/v1/b/durable/o").json()["items"]
    assert {item["name"] for item in listed} >= acknowledged.keys()
    for item in listed:
        content = server.http.get(f"/download/storage/v1/b/durable/o/{item['name']}?alt=media").content
        assert len(content) == int(item["size"])
        assert content == acknowledged.get(item["name"], content)
    assert server.content_files() == len(listed)


def test_a_resumable_session_goes_on_in_the_next_process(server: Killable) -> None:
    params = {"uploadType": "resumable", "name": "a"}
    session = server.http.post("/upload/storage/v1/b/durable/o", params=params).headers["location"]
    httpx.put(session, content=b"1" * PART, headers={"Content-Range": f"bytes 0-{PART - 1}/{2 * PART}"})

    server.restart()
    asked = httpx.put(session, headers={"Content-Range": f"bytes */{2 * PART}"})
    rest = {"Content-Range": f"bytes {PART}-{2 * PART - 1}/{2 * PART}"}
    done = httpx.put(session, content=b"2" * PART, headers=rest)

    assert (asked.status_code, asked.headers["range"]) == (308, f"bytes=0-{PART - 1}")
    assert done.status_code == 200
    # Checksums of the first half are not in memory any more, and must be right all the same.
    assert done.json()["md5Hash"] == "2r1AT1Xl7SHom5kqmhwROA=="
    content = server.http.get("/download/storage/v1/b/durable/o/a?alt=media").content
    assert content == b"1" * PART + b"2" * PART


def test_what_a_dead_process_did_not_finish_is_removed(server: Killable) -> None:
    def endless() -> Iterator[bytes]:
        yield b"x" * PART
        server.kill()
        yield b"x" * PART * 64

    with pytest.raises(httpx.TransportError):
        server.http.post("/upload/storage/v1/b/durable/o?uploadType=media&name=a", content=endless())
    server.start()

    assert server.http.get("/storage/v1/b/durable/o/a").status_code == 404
    assert server.content_files() == 0
