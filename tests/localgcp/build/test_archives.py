"""What is in an archive stays in its folder, with the oldest Python that the project promises to run on, too."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from localgcp.build.archives import LeadsOutside, unpack


def member(name: str, text: str = "", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(text), 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info, text.encode()


def archive_of(tmp_path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    archive = tmp_path / "source.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return archive


def test_files_folders_and_links_are_unpacked_below_the_folder(tmp_path: Path) -> None:
    archive = archive_of(
        tmp_path,
        member("app/", type=tarfile.DIRTYPE, mode=0o755),
        member("/app/main.py", "print()", mode=0o6777),
        member("app/again.py", type=tarfile.LNKTYPE, linkname="app/main.py", mode=0o755),
        member("app/hosts", type=tarfile.SYMTYPE, linkname="/etc/hosts"),
    )
    folder = tmp_path / "folder"
    folder.mkdir()

    unpack(archive, folder)

    assert (folder / "app" / "main.py").read_text() == "print()"
    assert (folder / "app" / "main.py").stat().st_mode & 0o7777 == 0o755
    assert (folder / "app" / "again.py").samefile(folder / "app" / "main.py")
    assert (folder / "app" / "hosts").readlink() == Path("/etc/hosts")


@pytest.mark.parametrize(
    "members",
    [
        pytest.param([member("../outside", "x")], id="dots"),
        pytest.param([member("app/../../outside", "x")], id="dots in the middle"),
        pytest.param([member("way", type=tarfile.SYMTYPE, linkname=".."), member("way/outside", "x")], id="link"),
        pytest.param(
            [member("outside", type=tarfile.SYMTYPE, linkname="../outside"), member("outside", "x")], id="same name"
        ),
        pytest.param([member("in", type=tarfile.LNKTYPE, linkname="../precious")], id="hard link"),
    ],
)
def test_nothing_leaves_the_folder(tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "folder").mkdir()
    archive = archive_of(tmp_path, *members)

    with pytest.raises(LeadsOutside, match="outside of the archive's folder"):
        unpack(archive, tmp_path / "folder")

    assert sorted(os.listdir(tmp_path)) == ["folder", "precious", "source.tgz"]  # noqa: PTH208
    assert (tmp_path / "precious").read_text() == "precious"
