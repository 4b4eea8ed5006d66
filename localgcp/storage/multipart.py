"""multipart/related, read as it arrives: a JSON part, then a part that is passed on without being kept."""

import json
import re
from collections.abc import AsyncIterator
from email.parser import BytesHeaderParser
from typing import Any

from localgcp.errors import InvalidArgument

MAX_HEAD_BYTES = 1024 * 1024


class RelatedReader:
    """`await head()` first; it fills `metadata` and `content_type`. Then iterate over `media()` to its end."""

    def __init__(self, stream: AsyncIterator[bytes], content_type: str) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._delimiter = b"\r\n--" + boundary_of(content_type)
        self.metadata: dict[str, Any] = {}
        self.content_type: str | None = None

    async def head(self) -> None:
        # A delimiter follows a line break; the first may stand at the very beginning.
        self._buffer += b"\r\n"
        await self._until(self._delimiter)
        headers = await self._headers()
        body = await self._until(self._delimiter)
        if headers.get("content-type", "").partition(";")[0].strip().lower() not in ("application/json", ""):
            raise _malformed("the first part must be application/json")
        try:
            metadata = json.loads(body or b"{}")
        except ValueError as error:
            raise InvalidArgument(f"Invalid JSON payload received. {error}", reason="parseError") from None
        if not isinstance(metadata, dict):
            raise InvalidArgument("Invalid JSON payload received. Root element must be a message.", reason="parseError")
        self.metadata = metadata
        self.content_type = (await self._headers()).get("content-type")

    async def media(self) -> AsyncIterator[bytes]:
        """The second part. Raises InvalidArgument when the body ends before the part does."""
        delimiter = self._delimiter
        keep = len(delimiter) - 1
        while True:
            at = self._buffer.find(delimiter)
            if at >= 0:
                if at:
                    yield bytes(memoryview(self._buffer)[:at])
                async for _ in self._stream:  # what follows the last delimiter means nothing
                    pass
                return
            if len(self._buffer) > keep:
                ready = len(self._buffer) - keep
                yield bytes(memoryview(self._buffer)[:ready])
                del self._buffer[:ready]
            if not await self._more():
                raise _malformed("it ends before its last part does")

    async def _headers(self) -> dict[str, str]:
        line_end = await self._until(b"\r\n")
        if line_end.strip():
            raise _malformed("a delimiter must end its line")
        raw = bytearray()
        while True:
            line = await self._until(b"\r\n")
            if not line:
                break
            raw += line + b"\r\n"
        return {name.lower(): value for name, value in BytesHeaderParser().parsebytes(bytes(raw)).items()}

    async def _until(self, mark: bytes) -> bytes:
        while (at := self._buffer.find(mark)) < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise _malformed(f"its metadata is larger than {MAX_HEAD_BYTES} bytes")
            if not await self._more():
                raise _malformed("it ends too early")
        found = bytes(memoryview(self._buffer)[:at])
        del self._buffer[: at + len(mark)]
        return found

    async def _more(self) -> bool:
        async for chunk in self._stream:
            if chunk:
                self._buffer += chunk
                return True
        return False


def boundary_of(content_type: str) -> bytes:
    """Raises InvalidArgument when the header names no boundary."""
    match = re.search(r"boundary=(?:\"([^\"]+)\"|'([^']+)'|([^;\s]+))", content_type, re.IGNORECASE)
    if match is None:
        raise InvalidArgument("Content-Type of a multipart request must have a boundary", reason="badContent")
    return next(group for group in match.groups() if group is not None).encode()


def _malformed(reason: str) -> InvalidArgument:
    return InvalidArgument(f"Malformed multipart body: {reason}.", reason="badContent")
