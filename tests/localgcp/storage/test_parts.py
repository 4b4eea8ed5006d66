"""The parts: checksums of joined texts, globs, ranges, the body of a multipart request, files."""

import asyncio
import errno
import os
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import google_crc32c
import pytest

from localgcp.storage.checksums import combine_crc32c
from localgcp.storage.files import ContentFiles
from localgcp.storage.globs import matcher
from localgcp.storage.multipart import RelatedReader
from localgcp.storage.ranges import RangeNotSatisfiable, Slice, requested


@pytest.mark.parametrize("sizes", [(0, 0), (1, 0), (0, 1), (5, 7), (1000, 65_537), (65_537, 1)])
def test_the_crc32c_of_two_texts_follows_from_theirs(sizes: tuple[int, int]) -> None:
    first, second = (random.Random(size).randbytes(size) for size in sizes)

    combined = combine_crc32c(google_crc32c.value(first), google_crc32c.value(second), len(second))

    assert combined == google_crc32c.value(first + second)


@pytest.mark.parametrize(
    ("glob", "matching", "other"),
    [
        ("*", "a", "a/b"),
        ("**", "a/b/c", ""),
        ("a/**/z", "a/b/c/z", "b/z"),
        ("**/z", "z", "zz"),
        ("[!a]x", "bx", "ax"),
        ("{a,b/c}.txt", "b/c.txt", "c.txt"),
        (r"\*", "*", "a"),
        ("a.b", "a.b", "axb"),
    ],
)
def test_a_glob_matches(glob: str, matching: str, other: str) -> None:
    assert matcher(glob)(matching)
    assert not matcher(glob)(other) or other == ""


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (None, None),
        ("bytes=0-0", Slice(0, 1)),
        ("bytes=3-", Slice(3, 10)),
        ("bytes=3-99", Slice(3, 10)),
        ("bytes=-4", Slice(6, 10)),
        ("bytes=-99", Slice(0, 10)),
        ("bytes=5-3", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
    ],
)
def test_a_range_of_ten_bytes(header: str | None, part: Slice | None) -> None:
    assert requested(header, 10) == part


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        requested(header, 10)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 10_000])
def test_a_multipart_body_is_read_however_it_is_cut(step: int) -> None:
    media = b"\r\n--x\r\n--xx" * 20 + b"\r"
    body = b'--xy\r\nContent-Type: application/json\r\n\r\n{"name": "a"}\r\n--xy\r\nContent-Type: a/b\r\n\r\n'
    body += media + b"\r\n--xy--\r\n"

    async def stream() -> AsyncIterator[bytes]:
        for start in range(0, len(body), step):
            yield body[start : start + step]

    async def read() -> tuple[RelatedReader, bytes]:
        reader = RelatedReader(stream(), "multipart/related; boundary=xy")
        await reader.head()
        return reader, b"".join([chunk async for chunk in reader.media()])

    reader, received = asyncio.run(read())

    assert (reader.metadata, reader.content_type, received) == ({"name": "a"}, "a/b", media)


def test_what_a_full_disk_refused_can_be_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ContentFiles(tmp_path)
    writer = files.create()
    writer.write([b"first"])

    def take_a_part(descriptor: int, chunks: Sequence[bytes]) -> int:
        os.write(descriptor, b"".join(chunks)[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr("localgcp.storage.files.os.writev", take_a_part)
        with pytest.raises(OSError, match="No space left"):
            writer.write([b"second"])
    writer.write([b"second"])
    content = writer.finish()

    assert b"".join(files.read(content.id)) == b"firstsecond"
    assert (content.size, content.crc32c) == (11, google_crc32c.value(b"firstsecond"))
