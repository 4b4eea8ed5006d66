"""Contents: files named by an id, written once and never changed.

A file nobody's row names is rubbish by definition, so a crash between file and row loses nothing that was acknowledged
and `sweep` removes what it leaves. A row is written only after `ContentWriter.finish` has returned.
"""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c

CHUNK_BYTES = 1024 * 1024
MAX_VECTORS = 512  # below IOV_MAX, which is 1024 on Linux and macOS


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a finished file holds. `md5` is None for contents that were put together from others."""

    id: str
    size: int
    crc32c: int
    md5: bytes | None


class ContentWriter:
    """Appends to one file and keeps its checksums. Not for two threads at once."""

    def __init__(self, content_id: str, descriptor: int) -> None:
        self.content_id = content_id
        self.size = 0
        self._descriptor: int | None = descriptor
        self._crc32c: Any = google_crc32c.Checksum()  # type: ignore[no-untyped-call]
        self._md5 = hashlib.md5(usedforsecurity=False)

    def write(self, chunks: Sequence[bytes]) -> None:
        if self._descriptor is None:
            raise ValueError("the writer is closed")
        try:
            for start in range(0, len(chunks), MAX_VECTORS):
                _write_all(self._descriptor, chunks[start : start + MAX_VECTORS])
        except BaseException:
            # A full disk takes a part and refuses the rest. The client will send all of it again.
            os.ftruncate(self._descriptor, self.size)
            os.lseek(self._descriptor, self.size, os.SEEK_SET)
            raise
        for chunk in chunks:
            self.absorb(chunk)

    def absorb(self, chunk: bytes) -> None:
        """Count bytes that the file already holds."""
        self._crc32c.update(chunk)
        self._md5.update(chunk)
        self.size += len(chunk)

    def finish(self) -> Content:
        """Everything is on disk when this returns."""
        if self._descriptor is None:
            raise ValueError("the writer is closed")
        _sync(self._descriptor)
        content = self.snapshot()
        self.close()
        return content

    def snapshot(self) -> Content:
        crc32c = int.from_bytes(self._crc32c.digest(), "big")
        return Content(id=self.content_id, size=self.size, crc32c=crc32c, md5=self._md5.digest())

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class ContentFiles:
    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def path(self, content_id: str) -> Path:
        return self.root / content_id[:2] / content_id

    def create(self) -> ContentWriter:
        content_id = secrets.token_hex(16)
        path = self.path(content_id)
        path.parent.mkdir(exist_ok=True)
        return ContentWriter(content_id, os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))

    def reopen(self, content_id: str) -> ContentWriter:
        """Go on where an earlier writer stopped, also one of an earlier process."""
        path = self.path(content_id)
        writer = ContentWriter(content_id, os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC))
        for chunk in self.read(content_id):
            writer.absorb(chunk)
        return writer

    def write(self, chunks: Iterable[bytes]) -> Content:
        """A whole new content."""
        writer = self.create()
        try:
            for chunk in chunks:
                writer.write([chunk])
            return writer.finish()
        except BaseException:
            writer.close()
            self.delete([writer.content_id])
            raise

    def concatenate(self, content_ids: Sequence[str]) -> str:
        """A new file that holds the given ones in order; returns its id. Raises FileNotFoundError."""
        target = secrets.token_hex(16)
        path = self.path(target)
        path.parent.mkdir(exist_ok=True)
        try:
            with path.open("xb") as out:
                for content_id in content_ids:
                    with self.path(content_id).open("rb") as source:
                        _copy(source.fileno(), out.fileno())
                _sync(out.fileno())
        except BaseException:
            self.delete([target])
            raise
        return target

    def open(self, content_id: str) -> int:
        """A file descriptor to read from; stays readable when the content is deleted. Raises FileNotFoundError."""
        return os.open(self.path(content_id), os.O_RDONLY | os.O_CLOEXEC)

    def read(self, content_id: str) -> Iterator[bytes]:
        with self.path(content_id).open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def delete(self, content_ids: Iterable[str]) -> None:
        for content_id in content_ids:
            with contextlib.suppress(FileNotFoundError):
                self.path(content_id).unlink()

    def sweep(self, referenced: set[str]) -> int:
        """Remove every file that no row names; returns how many. Only while nothing is being written."""
        removed = 0
        for folder in self.root.iterdir():
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.name not in referenced:
                    path.unlink()
                    removed += 1
        return removed


def _sync(descriptor: int) -> None:
    getattr(os, "fdatasync", os.fsync)(descriptor)  # macOS has no fdatasync


def _write_all(descriptor: int, chunks: Sequence[bytes]) -> None:
    written = os.writev(descriptor, chunks)
    if written < sum(map(len, chunks)):  # a signal, or a disk that is nearly full
        rest = memoryview(b"".join(chunks))[written:]
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def _copy(source: int, target: int) -> None:
    while True:
        try:
            # Shares blocks where the file system can.
            copied = os.copy_file_range(source, target, 1 << 30)
        except (AttributeError, OSError):
            while chunk := os.read(source, CHUNK_BYTES):
                rest = memoryview(chunk)
                while rest:
                    rest = rest[os.write(target, rest) :]
            return
        if copied == 0:
            return
