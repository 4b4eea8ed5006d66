"""What becomes of a program's assets and archives."""

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from localgcp.pulumi.gcp.contents import content_of_source
from localgcp.pulumi.provider import (
    AssetArchive,
    FileArchive,
    FileAsset,
    ProviderError,
    RemoteArchive,
    RemoteAsset,
    StringAsset,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    (folder / "css").mkdir(parents=True)
    (folder / "index.html").write_text("<html>")
    (folder / "css" / "a.css").write_text("a{}")
    return folder


def unzipped(content: bytes) -> dict[str, str]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_an_asset_is_its_bytes(folder: Path) -> None:
    assert content_of_source(FileAsset(str(folder / "index.html"))) == b"<html>"
    assert content_of_source(StringAsset("grüß")) == "grüß".encode()
    assert content_of_source(RemoteAsset((folder / "index.html").as_uri())) == b"<html>"


def test_a_folder_is_a_zip_file_and_the_same_one_again(folder: Path) -> None:
    packed = content_of_source(FileArchive(str(folder)))
    assert unzipped(packed) == {"css/a.css": "a{}", "index.html": "<html>"}
    assert content_of_source(FileArchive(str(folder))) == packed


def test_archives_nest(folder: Path, tmp_path: Path) -> None:
    tar = tmp_path / "site.tar.gz"
    with tarfile.open(tar, "w:gz") as target:
        target.add(folder, arcname=".")
    packed = content_of_source(
        AssetArchive(
            {
                ".": FileArchive(str(folder / "css")),
                "note.txt": StringAsset("n"),
                "packed": RemoteArchive(tar.as_uri()),
                "inner": AssetArchive({"main.py": FileAsset(str(folder / "index.html"))}),
            }
        )
    )
    assert unzipped(packed) == {
        "a.css": "a{}",
        "note.txt": "n",
        "packed/css/a.css": "a{}",
        "packed/index.html": "<html>",
        "inner/main.py": "<html>",
    }


def test_a_zip_file_stays_as_it_is(folder: Path, tmp_path: Path) -> None:
    packed = tmp_path / "made.zip"
    packed.write_bytes(content_of_source(FileArchive(str(folder))))
    assert content_of_source(FileArchive(str(packed))) == packed.read_bytes()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (FileAsset("/nowhere/at.all"), "/nowhere/at.all"),
        (FileArchive("/nowhere/at.all"), "/nowhere/at.all"),
        (RemoteAsset("gopher://example.com/a"), "expected file:, http: or https:"),
        (RemoteAsset("http://127.0.0.1:9/a"), "http://127.0.0.1:9/a cannot be downloaded"),
        (None, "an object needs `content`"),
    ],
)
def test_what_cannot_be_read_is_said(source: Any, reason: str) -> None:
    with pytest.raises(ProviderError, match=reason):
        content_of_source(source)
