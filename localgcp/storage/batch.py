"""Batches: several requests in the parts of one `multipart/mixed`, answered in order by the same application."""

import re
import weakref
from collections.abc import MutableMapping
from email.message import Message
from email.parser import BytesParser
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from localgcp.errors import InvalidArgument
from localgcp.storage.cloud_storage import CloudStorage
from localgcp.storage.http import served
from localgcp.storage.multipart import boundary_of

if TYPE_CHECKING:
    from localgcp.region import Region

MAX_CALLS = 100  # "Batch requests" of Cloud Storage
MAX_BYTES = 10 * 1024 * 1024
BOUNDARY = "batch_localgcp"
_servers: "weakref.WeakKeyDictionary[Region, ASGIApp]" = weakref.WeakKeyDictionary()


async def _batch(request: Request, _: CloudStorage) -> Response:
    """Answers each part by asking the region's own server, which also checks who calls."""
    content_type = request.headers.get("content-type", "")
    boundary_of(content_type)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise InvalidArgument(f"The batch request is larger than {MAX_BYTES} bytes.", reason="batchSizeTooLarge")
    message = BytesParser().parsebytes(b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n" + bytes(body))
    parts = message.get_payload() if message.is_multipart() else []
    if not parts or not isinstance(parts, list):
        raise InvalidArgument("The batch request has no parts.", reason="badRequest")
    if len(parts) > MAX_CALLS:
        raise InvalidArgument(
            f"The batch request has {len(parts)} calls; at most {MAX_CALLS} are allowed.", reason="batchSizeTooLarge"
        )
    application = _server(request.scope["region"])
    answers = [await _answered(application, request, part) for part in parts if isinstance(part, Message)]
    return Response(
        b"".join(answers) + f"--{BOUNDARY}--\r\n".encode(),
        media_type=f"multipart/mixed; boundary={BOUNDARY}",
    )


async def _answered(application: ASGIApp, outer: Request, part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    raw = payload if isinstance(payload, bytes) else b""
    head, _, body = re.sub(rb"\r?\n", b"\n", raw).lstrip(b"\n").partition(b"\n\n")
    request_line, _, header_lines = head.partition(b"\n")
    match = re.fullmatch(rb"([A-Z]+) (\S+)(?: HTTP/1\.[01])?\s*", request_line)
    if match is None:
        status, headers, content = 400, [(b"content-type", b"text/plain")], b"Failed to parse batch request."
    else:
        status, headers, content = await _ask(application, outer, match[1], match[2], header_lines, body)
    content_id = part.get("Content-ID", "")
    lines = [f"--{BOUNDARY}", "Content-Type: application/http"]
    if content_id:
        lines.append(f"Content-ID: <response-{content_id.strip('<>')}>")
    lines += ["", f"HTTP/1.1 {status} {_reason(status)}"]
    lines += [f"{name.decode('latin-1')}: {value.decode('latin-1')}" for name, value in headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content + b"\r\n"


async def _ask(
    application: ASGIApp, outer: Request, method: bytes, target: bytes, header_lines: bytes, body: bytes
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    url = urlsplit(target.decode("ascii"))
    inner = [
        (name.strip().lower(), value.strip())
        for name, colon, value in (line.partition(b":") for line in header_lines.split(b"\n"))
        if colon
    ]
    given = {name for name, _ in inner}
    for name in ("authorization", "host"):
        if name.encode() not in given and name in outer.headers:
            inner.append((name.encode(), outer.headers[name].encode("latin-1")))
    scope = {
        **{
            key: outer.scope[key]
            for key in ("type", "asgi", "http_version", "scheme", "server", "client")
            if key in outer.scope
        },
        "method": method.decode(),
        "path": unquote(url.path),
        "raw_path": url.path.encode("ascii"),
        "query_string": url.query.encode("ascii"),
        "root_path": "",
        "headers": [(name, value) for name, value in inner if name != b"content-length"],
        "region": outer.scope["region"],
    }
    status = 500
    headers: list[tuple[bytes, bytes]] = []
    content = bytearray()
    waiting = [{"type": "http.request", "body": body.rstrip(b"\n"), "more_body": False}]

    async def receive() -> MutableMapping[str, Any]:
        return waiting.pop() if waiting else {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status, headers = message["status"], list(message["headers"])
        elif message["type"] == "http.response.body":
            content.extend(message.get("body", b""))

    await application(scope, receive, send)
    return status, headers, bytes(content)


def _server(region: "Region") -> ASGIApp:
    from localgcp.server import Server  # the server imports every service, and so this module

    if region not in _servers:
        _servers[region] = Server(region)
    return _servers[region]


def _reason(status: int) -> str:
    return {200: "OK", 204: "No Content", 304: "Not Modified", 404: "Not Found", 412: "Precondition Failed"}.get(
        status, "Status"
    )


batch_app = served(_batch)
