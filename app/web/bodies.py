"""Request bodies, read with a ceiling that holds before and while reading."""

from django.http import HttpRequest

from app.validations.engines.limits import MAX_BODY_BYTES
from app.web.problems import FieldError, Problem

_CHUNK = 256 * 1024


def read(request: HttpRequest, limit: int = MAX_BODY_BYTES) -> bytes:
    """The body, with or without a Content-Length. Raises: Problem 413, before reading when the length is announced."""
    announced = request.META.get("CONTENT_LENGTH") or ""
    if announced:
        # Django makes 0 of what is no number; so did the server that parsed the message.
        length = int(announced) if announced.isdecimal() else 0
        if length > limit:
            raise _too_large(f"the request announces {length} bytes", limit)
        return request.read(length)
    if "chunked" not in request.headers.get("Transfer-Encoding", "").lower():
        return b""
    # Django limits its own stream to the announced length, which is none.
    stream = request.META["wsgi.input"]
    chunks, total = [], 0
    while chunk := stream.read(min(_CHUNK, limit + 1 - total)):
        total += len(chunk)
        if total > limit:
            raise _too_large(f"the request has more than {limit} bytes", limit)
        chunks.append(chunk)
    return b"".join(chunks)


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
