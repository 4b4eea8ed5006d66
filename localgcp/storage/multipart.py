"""Multipart bodies, read as they arrive: small parts first, then one that is passed on without being kept."""

import re
from collections.abc import AsyncIterator
from typing import Any

from localgcp.errors import InvalidArgument
from localgcp.validation import parsed

MAX_HEAD_BYTES = 1024 * 1024


class PartsReader:
    """What the two kinds have in common: where a part begins, its headers, and its body as it arrives.

    Lines end as the first delimiter's does. The standard has CR and LF; google-api-python-client sends LF alone.
    """

    def __init__(self, stream: AsyncIterator[bytes], content_type: str) -> None:
        self._stream = stream
        # A delimiter follows a line break; the first may stand at the very beginning.
        self._buffer = bytearray(b"\n")
        self._line_end = b"\n"
        self._delimiter = b"\n--" + boundary_of(content_type)

    async def _begin(self) -> None:
        """Everything up to and with the first delimiter, whose line is left."""
        await self._until(self._delimiter)
        while b"\n" not in self._buffer and await self._more():
            pass
        if self._buffer.partition(b"\n")[0].endswith(b"\r"):
            self._line_end = b"\r\n"
            self._delimiter = b"\r" + self._delimiter

    async def media(self) -> AsyncIterator[bytes]:
        """The last part. Raises InvalidArgument when the body ends before the part does."""
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
        rest = (await self._until(self._line_end)).strip()
        if rest == b"--":
            raise _malformed("it ends before its last part")
        if rest:
            raise _malformed("a delimiter must end its line")
        headers: dict[str, str] = {}
        while line := await self._until(self._line_end):
            name, _, value = line.decode(errors="replace").partition(":")
            headers[name.strip().lower()] = value.strip()
        return headers

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


class RelatedReader(PartsReader):
    """multipart/related. `await head()` first; it fills `metadata` and `content_type`. Then `media()` to its end."""

    def __init__(self, stream: AsyncIterator[bytes], content_type: str) -> None:
        super().__init__(stream, content_type)
        self.metadata: dict[str, Any] = {}
        self.content_type: str | None = None

    async def head(self) -> None:
        await self._begin()
        headers = await self._headers()
        body = await self._until(self._delimiter)
        if headers.get("content-type", "").partition(";")[0].strip().lower() not in ("application/json", ""):
            raise _malformed("the first part must be application/json")
        metadata = parsed(body or b"{}")
        if not isinstance(metadata, dict):
            raise InvalidArgument("Invalid JSON payload received. Root element must be a message.", reason="parseError")
        self.metadata = metadata
        self.content_type = (await self._headers()).get("content-type")


class FormReader(PartsReader):
    """multipart/form-data. `await fields()` first: everything before the part named `file`. Then `media()` to its end.

    Fields behind the file are not looked at.
    """

    def __init__(self, stream: AsyncIterator[bytes], content_type: str) -> None:
        super().__init__(stream, content_type)
        self.filename = ""

    async def fields(self) -> dict[str, str]:
        """By lower-case name. Raises InvalidArgument for a form without a file."""
        found: dict[str, str] = {}
        await self._begin()
        while sum(map(len, found.values())) <= MAX_HEAD_BYTES:
            disposition = (await self._headers()).get("content-disposition", "")
            name = _parameter(disposition, "name").lower()
            if name == "file":
                # Browsers that send a whole path mean its last part.
                self.filename = re.split(r"[/\\]", _parameter(disposition, "filename"))[-1]
                return found
            body = await self._until(self._delimiter)
            try:
                found[name] = body.decode()
            except UnicodeDecodeError:
                raise _malformed(f"the field {name} is not UTF-8") from None
        raise _malformed(f"its fields are larger than {MAX_HEAD_BYTES} bytes")


def _parameter(disposition: str, name: str) -> str:
    """As browsers write it: UTF-8 between quotation marks, and %22 for one of these."""
    match = re.search(rf';\s*{name}="([^"]*)"', disposition, re.IGNORECASE)
    return match[1].replace("%22", '"') if match else ""


def boundary_of(content_type: str) -> bytes:
    """Raises InvalidArgument when the header names no boundary."""
    match = re.search(r"boundary=(?:\"([^\"]+)\"|'([^']+)'|([^;\s]+))", content_type, re.IGNORECASE)
    if match is None:
        raise InvalidArgument("Content-Type of a multipart request must have a boundary", reason="badContent")
    return next(group for group in match.groups() if group is not None).encode()


def _malformed(reason: str) -> InvalidArgument:
    return InvalidArgument(f"Malformed multipart body: {reason}.", reason="badContent")
