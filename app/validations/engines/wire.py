"""Messages between the application and its sandboxed children: a JSON head and bytes, each with its length."""

import json
import socket
import struct
from typing import Any

_LENGTHS = struct.Struct("!II")


def send(link: socket.socket, head: dict[str, Any], body: bytes = b"") -> None:
    encoded = json.dumps(head).encode()
    link.sendall(_LENGTHS.pack(len(encoded), len(body)) + encoded)
    if body:
        link.sendall(body)


def receive(link: socket.socket, *, limit: int | None = None) -> tuple[dict[str, Any] | None, bytes]:
    """One message, or None when the other side has closed or says more than `limit` bytes."""
    lengths = _exactly(link, _LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None, b""
    head_length, body_length = _LENGTHS.unpack(lengths)
    if limit is not None and head_length + body_length > limit:
        return None, b""
    head, body = _exactly(link, head_length), _exactly(link, body_length)
    if len(head) < head_length or len(body) < body_length:
        return None, b""
    return json.loads(head), body


def _exactly(link: socket.socket, count: int) -> bytes:
    content = bytearray(count)
    view, got = memoryview(content), 0
    while got < count:
        received = link.recv_into(view[got:])
        if not received:
            break
        got += received
    return bytes(view[:got])
