"""What an asset or an archive of a program holds, as bytes."""

import io
import tarfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from localgcp.pulumi.provider import (
    AssetArchive,
    FileArchive,
    FileAsset,
    ProviderError,
    RemoteArchive,
    RemoteAsset,
    StringAsset,
)

_DOWNLOAD_SECONDS = 60
#: Zip files know no earlier time. One time for all entries makes the same content the same file.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def content_of_source(source: Any) -> bytes:
    """The bytes of an asset; those of an archive as a zip file, which is what the real provider makes of it."""
    try:
        match source:
            case FileAsset():
                return Path(source.path).read_bytes()
            case StringAsset():
                return source.text.encode()
            case RemoteAsset():
                return _download(source.uri)
            case FileArchive() | RemoteArchive() | AssetArchive():
                return _zipped(source)
            case str() if source:
                return Path(source).read_bytes()
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise ProviderError(f"the source cannot be read: {error}") from error
    raise ProviderError("an object needs `content`, or a `source` that is an asset or an archive")


def _download(uri: str) -> bytes:
    address = urllib.parse.urlsplit(uri)
    if address.scheme == "file":
        return Path(urllib.request.url2pathname(address.path)).read_bytes()
    if address.scheme not in ("http", "https"):
        raise ProviderError(f"{uri} cannot be read: expected file:, http: or https:")
    try:
        with urllib.request.urlopen(uri, timeout=_DOWNLOAD_SECONDS) as answer:  # noqa: S310  the scheme is checked above
            content: bytes = answer.read()
    except urllib.error.URLError as error:
        raise ProviderError(f"{uri} cannot be downloaded: {error}") from error
    return content


def _zipped(archive: FileArchive | RemoteArchive | AssetArchive) -> bytes:
    if isinstance(archive, FileArchive) and not Path(archive.path).is_dir():
        packed = Path(archive.path).read_bytes()
        if zipfile.is_zipfile(io.BytesIO(packed)):
            return packed
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in sorted(_entries(archive, "")):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            target.writestr(entry, content)
    return buffer.getvalue()


def _entries(source: Any, name: str) -> Iterator[tuple[str, bytes]]:
    """The files of a source that stands at `name` in an archive."""
    match source:
        case AssetArchive():
            for key, inner in source.assets.items():
                # A dot adds an archive's files to the folder that it is in.
                yield from _entries(inner, _joined(name, "" if key == "." else key))
        case FileArchive() if (root := Path(source.path)).is_dir():
            for path in root.rglob("*"):
                if path.is_file():
                    yield _joined(name, path.relative_to(root).as_posix()), path.read_bytes()
        case FileArchive() | RemoteArchive():
            packed = Path(source.path).read_bytes() if isinstance(source, FileArchive) else _download(source.uri)
            for inner_name, content in _unpacked(packed):
                yield _joined(name, inner_name), content
        case _:
            yield name, content_of_source(source)


def _joined(folder: str, name: str) -> str:
    return "/".join(part for part in (folder, name) if part)


def _unpacked(packed: bytes) -> Iterator[tuple[str, bytes]]:
    if zipfile.is_zipfile(io.BytesIO(packed)):
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            for entry in archive.infolist():
                if not entry.is_dir():
                    yield entry.filename, archive.read(entry)
        return
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        for member in tar:
            if member.isfile() and (file := tar.extractfile(member)) is not None:
                yield member.name.removeprefix("./"), file.read()
