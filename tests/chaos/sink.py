"""Where the webhooks go: a receiver that writes down what it gets, and one address of it that fails until mended."""

import hashlib
import json
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from app.webhooks.signing import signature

GOOD, FAILING, OTHER = "/good", "/failing", "/other"


@dataclass(frozen=True, kw_only=True)
class Message:
    """One request, as it came. `at` is monotonic."""

    path: str
    body: bytes
    timestamp: int
    signatures: str
    at: float
    status: int

    @property
    def content(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


class Sink:
    def __init__(self) -> None:
        self.mended = threading.Event()
        self._messages: dict[tuple[str, str], list[Message]] = defaultdict(list)
        self._lock = threading.Lock()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                status = sink._receive(self.path, self.headers, body)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a worker that was killed while it sent; it sends again

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> "Sink":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}{path}"

    def received(self, path: str) -> dict[str, list[Message]]:
        """By message id, in the order of arrival."""
        with self._lock:
            return {message_id: list(found) for (at, message_id), found in self._messages.items() if at == path}

    def _receive(self, path: str, headers: Any, body: bytes) -> int:
        status = 500 if path == FAILING and not self.mended.is_set() else 204
        message = Message(
            path=path,
            body=body,
            timestamp=int(headers.get("webhook-timestamp", "0")),
            signatures=headers.get("webhook-signature", ""),
            at=time.monotonic(),
            status=status,
        )
        with self._lock:
            self._messages[path, headers.get("webhook-id", "")].append(message)
        return status


def is_signed(message_id: str, message: Message, secret: str) -> bool:
    return signature(message_id, message.timestamp, message.body, secret) in message.signatures.split(" ")
