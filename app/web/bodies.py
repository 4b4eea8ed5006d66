"""Request bodies, read with a ceiling that holds before and while reading."""

from typing import Any

from django.http import HttpRequest
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]  # gunicorn has no types

from app.validations.engines.limits import MAX_BODY_BYTES
from app.web.problems import FieldError, Problem

_CHUNK = 256 * 1024
# Cloud Run refuses larger HTTP/1 requests by itself.
_MAX_DRAINED_BYTES = 32 * 1024 * 1024


def read(request: HttpRequest, limit: int = MAX_BODY_BYTES) -> bytes:
    """The body, with or without a Content-Length. Nothing beyond the limit is kept in memory.

    Raises: Problem 413; Problem 400 for a body that ends too early; Problem 415 for a compressed one, whose true size
    nobody announces.
    """
    try:
        return _read(request, limit)
    except (OSError, ParseException):
        raise _cut_off() from None


def _read(request: HttpRequest, limit: int) -> bytes:
    coding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise _encoded(coding)
    announced = request.META.get("CONTENT_LENGTH") or ""
    if announced:
        # Django makes 0 of what is no number; so did the server that parsed the message.
        length = int(announced) if announced.isdecimal() else 0
        if length > limit:
            _drain(request.META["wsgi.input"], min(length, _MAX_DRAINED_BYTES))
            raise _too_large(f"the request announces {length} bytes", limit)
        body = request.read(length)
        if len(body) < length:
            raise _cut_off()
        return body
    if "chunked" not in request.headers.get("Transfer-Encoding", "").lower():
        return b""
    # Django limits its own stream to the announced length, which is none.
    stream = request.META["wsgi.input"]
    chunks, total = [], 0
    while chunk := stream.read(min(_CHUNK, limit + 1 - total)):
        total += len(chunk)
        if total > limit:
            _drain(stream, _MAX_DRAINED_BYTES)
            raise _too_large(f"the request has more than {limit} bytes", limit)
        chunks.append(chunk)
    return b"".join(chunks)


def _drain(stream: Any, count: int) -> None:
    """Read on and forget: a connection closed on unread bytes is reset, and the client never sees the answer."""
    while count > 0 and (chunk := stream.read(min(_CHUNK, count))):
        count -= len(chunk)


def _cut_off() -> Problem:
    # Who sent half a body is gone, as a rule; the request log is what tells of it, and not as a failure of ours.
    detail = "the body ends before its end"
    return Problem(
        "malformed-request",
        "The request cannot be read",
        status=400,
        detail=detail,
        errors=[FieldError(field="body", message=detail, remedy="send the request again")],
        headers={"Connection": "close"},
    )


def _encoded(coding: str) -> Problem:
    detail = f"the Content-Encoding is {coding[:40]!r}"
    return Problem(
        "unsupported-media-type",
        "The request is in another format",
        status=415,
        detail=detail,
        errors=[FieldError(field="Content-Encoding", message=detail, remedy="send the body as it is")],
        headers={"Accept-Encoding": "identity", "Connection": "close"},
    )


def _too_large(detail: str, limit: int) -> Problem:
    return Problem(
        "too-large",
        "The request is too large",
        status=413,
        detail=detail,
        errors=[FieldError(field="body", message=detail, remedy=f"send at most {limit} bytes")],
        # What follows on this connection is the rest of the body, not a request.
        headers={"Connection": "close"},
    )
