"""Contents over HTTP: receiving them without keeping them in memory, and sending them, whole, in part or unzipped."""

import asyncio
import os
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote

from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from localgcp.errors import InvalidArgument
from localgcp.storage import encryption, times
from localgcp.storage.checksums import crc32c_text, digest_text, parse_digest, parse_goog_hash
from localgcp.storage.files import CHUNK_BYTES, Content, ContentFiles, ContentWriter
from localgcp.storage.objects import StoredObject, missing
from localgcp.storage.ranges import SizeRange, Slice, requested

GZIP_WINDOW = 16 + zlib.MAX_WBITS


class DigestMismatch(InvalidArgument):
    """A checksum that the client gave is not that of what arrived."""


async def receive(stream: AsyncIterator[bytes], writer: ContentWriter) -> None:
    """Write what arrives. The next chunks are received while the last ones are written."""
    writing: asyncio.Future[None] | None = None
    pending: list[bytes] = []
    size = 0
    try:
        async for chunk in stream:
            if not chunk:
                continue
            pending.append(chunk)
            size += len(chunk)
            if size >= CHUNK_BYTES:
                if writing is not None:
                    await asyncio.shield(writing)
                writing = asyncio.ensure_future(asyncio.to_thread(writer.write, pending))
                pending, size = [], 0
    finally:
        # Also when the client went away: the file must not be closed while a thread writes to it.
        if writing is not None:
            await asyncio.wait({writing})
    if writing is not None:
        writing.result()
    if size > CHUNK_BYTES // 16:
        await asyncio.to_thread(writer.write, pending)
    elif pending:
        writer.write(pending)  # a thread would cost more than this write


async def store(stream: AsyncIterator[bytes], files: ContentFiles, sizes: SizeRange | None = None) -> Content:
    """A whole new content. Nothing is left behind when the client goes away, or sends too many bytes or too few."""
    writer = await asyncio.to_thread(files.create)
    try:
        if sizes is None:
            await receive(stream, writer)
        else:
            await receive(_bounded(stream, sizes), writer)
            sizes.check(writer.size)
        return await asyncio.to_thread(writer.finish)
    except BaseException:
        writer.close()
        files.delete([writer.content_id])
        raise


async def _bounded(stream: AsyncIterator[bytes], sizes: SizeRange) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in stream:
        size += len(chunk)
        sizes.check_so_far(size)
        yield chunk


def check_digests(content: Content, *, crc32c: int | None = None, md5: bytes | None = None) -> None:
    """Raises DigestMismatch when a checksum that the client gave is not the content's."""
    if crc32c is not None and crc32c != content.crc32c:
        raise DigestMismatch(
            f'Provided CRC32C "{crc32c_text(crc32c)}" doesn\'t match calculated CRC32C'
            f' "{crc32c_text(content.crc32c)}".',
            reason="invalid",
        )
    if md5 is not None and content.md5 is not None and md5 != content.md5:
        raise DigestMismatch(
            f'Provided MD5 hash "{digest_text(md5)}" doesn\'t match calculated MD5 hash "{digest_text(content.md5)}".',
            reason="invalid",
        )


def expected_digests(metadata: Mapping[str, Any], headers: Mapping[str, str]) -> Callable[[Content], None]:
    """A check of a content against what a client says of it: in the metadata, in x-goog-hash, in Content-MD5."""
    crc32c, md5 = parse_goog_hash([headers["x-goog-hash"]]) if headers.get("x-goog-hash") else (None, None)
    if metadata.get("crc32c"):
        crc32c = int.from_bytes(parse_digest(metadata["crc32c"], field="crc32c", length=4), "big")
    if metadata.get("md5Hash") or headers.get("content-md5"):
        text = metadata.get("md5Hash") or headers["content-md5"]
        md5 = parse_digest(text, field="md5Hash", length=16)
    return lambda content: check_digests(content, crc32c=crc32c, md5=md5)


def goog_hash(found: StoredObject) -> str:
    text = f"crc32c={crc32c_text(found.crc32c)}"
    return text if found.md5 is None else f"{text},md5={digest_text(found.md5)}"


def xml_etag(found: StoredObject) -> str:
    """The entity tag of the XML API, in the quotation marks that a header has around it."""
    return f'"{found.xml_etag}"'


def encryption_headers(found: StoredObject) -> list[tuple[str, str]]:
    key = encryption.key_of(found)
    if key is None:
        return []
    return [("X-Goog-Encryption-Algorithm", encryption.ALGORITHM), ("X-Goog-Encryption-Key-Sha256", key)]


class MediaResponse(Response):
    """Sends a part of a file, read in threads ahead of the network. Closes the descriptor whatever happens."""

    def __init__(
        self,
        descriptor: int | None,
        part: Slice,
        *,
        status_code: int,
        headers: Iterable[tuple[str, str]],
        unzips: bool = False,
    ) -> None:
        self._descriptor = descriptor
        self.status_code = status_code
        self.background: BackgroundTask | None = None
        self.body = b""
        # Names and texts of objects may hold any character; a header takes bytes.
        self.raw_headers = [(name.lower().encode("latin-1"), value.encode()) for name, value in headers]
        self._part = part
        self._unzips = unzips

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if self._descriptor is None or scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b""})
                return
            gone = asyncio.ensure_future(_disconnected(receive))
            try:
                async for chunk in self.chunks():
                    if gone.done():
                        return
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            finally:
                gone.cancel()
            await send({"type": "http.response.body", "body": b""})
        finally:
            self.close()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes that are sent."""
        inflate = zlib.decompressobj(wbits=GZIP_WINDOW) if self._unzips else None
        async for chunk in self._raw_chunks():
            if inflate is None:
                yield chunk
                continue
            while chunk:
                plain = await asyncio.to_thread(inflate.decompress, chunk, CHUNK_BYTES)
                if plain:
                    yield plain
                if inflate.eof and inflate.unused_data:  # several members in one file
                    chunk = inflate.unused_data
                    inflate = zlib.decompressobj(wbits=GZIP_WINDOW)
                else:
                    chunk = inflate.unconsumed_tail

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        # An answer that nobody sends, because the client left first, must not keep its file open.
        self.close()

    async def _raw_chunks(self) -> AsyncIterator[bytes]:
        descriptor, position, end = self._descriptor, self._part.start, self._part.end
        if descriptor is None:
            return
        if end - position <= CHUNK_BYTES:
            chunk = os.pread(descriptor, end - position, position)
            if len(chunk) < end - position:
                raise OSError("a content is shorter than its row says")
            yield chunk
            return
        reading = asyncio.ensure_future(asyncio.to_thread(os.pread, descriptor, CHUNK_BYTES, position))
        try:
            while position < end:
                chunk = await reading
                if not chunk:
                    raise OSError("a content is shorter than its row says")
                chunk = chunk[: end - position]
                position += len(chunk)
                if position < end:
                    reading = asyncio.ensure_future(asyncio.to_thread(os.pread, descriptor, CHUNK_BYTES, position))
                yield chunk
        finally:
            # A thread may still read: the descriptor must not be closed, and its number given out again, under it.
            await asyncio.wait({reading})


def respond(
    files: ContentFiles,
    found: StoredObject,
    request_headers: Mapping[str, str],
    *,
    is_public: Callable[[], bool],
    etag: str,
    extra: Sequence[tuple[str, str]] = (),
    overrides: Mapping[str, str] | None = None,
    is_head: bool = False,
) -> MediaResponse:
    """The answer to a download: whole, a range, or unzipped on the way. Opens the file: call in a thread.

    Raises RangeNotSatisfiable, NotFound, and InvalidArgument without the encryption key that the object needs.
    """
    properties = found.properties
    key = encryption.supplied(request_headers)
    if is_head and key is None:
        hashes = [("X-Goog-Hash", goog_hash(found))] if encryption.key_of(found) is None else []
    else:
        encryption.check(found, key)
        hashes = [("X-Goog-Hash", goog_hash(found))]
    encoding = properties.get("contentEncoding", "")
    cache_control = properties.get("cacheControl") or ("public, max-age=3600" if is_public() else "private, max-age=0")
    accepts_gzip = "gzip" in request_headers.get("accept-encoding", "")
    unzips = encoding == "gzip" and not accepts_gzip and "no-transform" not in cache_control
    part = None if unzips else requested(request_headers.get("range"), found.size)
    headers = [
        ("Content-Type", found.content_type),
        ("Cache-Control", cache_control),
        ("ETag", etag),
        ("Last-Modified", format_datetime(times.parse(found.updated), usegmt=True)),
        ("X-Goog-Generation", str(found.generation)),
        ("X-Goog-Metageneration", str(found.metageneration)),
        ("X-Goog-Stored-Content-Encoding", encoding or "identity"),
        ("X-Goog-Stored-Content-Length", str(found.size)),
        *hashes,
        *encryption_headers(found),
        ("X-Goog-Storage-Class", found.storage_class),
        ("Accept-Ranges", "none" if unzips else "bytes"),
        *extra,
    ]
    if found.component_count is not None:
        headers.append(("X-Goog-Component-Count", str(found.component_count)))
    if properties.get("contentDisposition"):
        headers.append(("Content-Disposition", properties["contentDisposition"]))
    if properties.get("contentLanguage"):
        headers.append(("Content-Language", properties["contentLanguage"]))
    if encoding and not unzips:
        headers.append(("Content-Encoding", encoding))
    if encoding == "gzip":
        headers.append(("Vary", "Accept-Encoding"))
    if unzips:
        headers.append(("Warning", "214 UploadServer gunzipped"))
    else:
        whole = Slice(0, found.size)
        if part is not None:
            headers.append(("Content-Range", f"bytes {part.start}-{part.end - 1}/{found.size}"))
        headers.append(("Content-Length", str(len(part or whole))))
    for name, value in (overrides or {}).items():
        headers = [(key, text) for key, text in headers if key.lower() != name.lower()]
        headers.append((name, value))
    try:
        descriptor = None if is_head else files.open(found.content)
    except FileNotFoundError:
        # Deleted between the row and the file: for the client it was deleted before.
        raise missing(found.bucket, found.name, None) from None
    return MediaResponse(
        descriptor,
        part or Slice(0, found.size),
        status_code=206 if part is not None else 200,
        headers=headers,
        unzips=unzips,
    )


def metadata_headers(found: StoredObject) -> list[tuple[str, str]]:
    """`x-goog-meta-…`, as the XML API answers an object's metadata. What no header can hold is percent-encoded."""
    metadata = found.properties.get("metadata") or {}
    return [
        (f"x-goog-meta-{quote(name, safe='!#$&*+^`|~')}", quote(str(value), safe=" !\"#$%&'()*+,/:;<=>?@[]^`{|}~"))
        for name, value in metadata.items()
    ]


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
