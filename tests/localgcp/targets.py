"""A target that records what is delivered to it and answers as a test scripts it."""

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, kw_only=True)
class Delivery:
    at: float  # monotonic seconds
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Target:
    """Answers 200 unless `answers` scripted otherwise: statuses are used up one by one, the last one stays."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/hook"
        self.answer_headers: dict[str, str] = {}
        self.hold_seconds = 0.0
        self._statuses = [200]
        self._arrived = threading.Condition()
        self._deliveries: list[Delivery] = []

    def answers(self, *statuses: int) -> None:
        self._statuses = list(statuses)

    @property
    def deliveries(self) -> list[Delivery]:
        with self._arrived:
            return list(self._deliveries)

    def wait_for(self, count: int, timeout_seconds: float = 10) -> list[Delivery]:
        """The first `count` deliveries. Fails when they have not come in time."""
        with self._arrived:
            came = self._arrived.wait_for(lambda: len(self._deliveries) >= count, timeout_seconds)
            assert came, f"{len(self._deliveries)} of {count} deliveries within {timeout_seconds} s"
            return self._deliveries[:count]

    def record(self, delivery: Delivery) -> int:
        with self._arrived:
            self._deliveries.append(delivery)
            self._arrived.notify_all()
            return self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]


@contextmanager
def serving() -> Iterator[Target]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status = target.record(
                Delivery(
                    at=time.monotonic(), method=self.command, path=self.path, headers=dict(self.headers), body=body
                )
            )
            if target.hold_seconds:
                released.wait(target.hold_seconds)
            self.send_response(status)
            for name, value in target.answer_headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_PUT = do_POST

        def log_message(self, *_: object) -> None:
            pass

    released = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    target = Target(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield target
    finally:
        released.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


@contextmanager
def trickling(beginning: bytes) -> Iterator[str]:
    """The address of a target that answers with `beginning`, and then with one byte after the other for ever."""

    def answer() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.sendall(beginning)
            while not ended.wait(0.02):
                connection.sendall(b"x")

    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/hook"
        finally:
            ended.set()
            thread.join(5)
