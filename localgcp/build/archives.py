"""Unpack tar archives that somebody else made.

`tarfile` has filters for this from Python 3.11.4 on. Debian 12 ships an older one, so the check is ours, for all alike.
"""

import copy
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

#: What no file keeps: set-user-id, set-group-id, the sticky bit, and writing for everybody else.
_REFUSED_MODE = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX | stat.S_IWGRP | stat.S_IWOTH


class LeadsOutside(tarfile.TarError):
    """A member of the archive would be written outside of the folder."""


def unpack(archive: Path, folder: Path) -> None:
    """A leading `/` is dropped, as tar does.

    Raises:
        LeadsOutside: what precedes the member in the archive is unpacked.
        tarfile.TarError, OSError: as `tarfile` does.
    """
    with tarfile.open(archive) as tar:
        # Checked below already. Newer versions of Python would otherwise warn, or apply a filter of their own.
        tar.extraction_filter = lambda member, _: member
        tar.extractall(folder, members=_checked(tar, folder.resolve()))  # noqa: S202 (every member is checked)


def _checked(tar: tarfile.TarFile, folder: Path) -> Iterator[tarfile.TarInfo]:
    """One at a time: a link that is unpacked decides where the path of the next member leads."""
    for member in tar:
        inside = copy.copy(member)
        inside.name = member.name.lstrip("/")
        inside.mode = member.mode & ~_REFUSED_MODE
        names = [inside.name]
        if member.islnk():
            # A second name of a file in this archive. A symbolic link may lead anywhere: nobody follows it here.
            inside.linkname = member.linkname.lstrip("/")
            names.append(inside.linkname)
        for name in names:
            target = (folder / name).resolve()
            if not target.is_relative_to(folder):
                raise LeadsOutside(f"{member.name} leads to {target}, outside of the archive's folder")
        yield inside
