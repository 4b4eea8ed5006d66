"""Where instances live: directories of their data, of their sockets, and of what is shared between regions.

Postgres refuses to run as root. Started by root, it runs as an unprivileged account, and that account has to reach its
binaries, its data and its socket; where the data directory is closed to it, the instances live under /var/tmp.
"""

import hashlib
import os
import pwd
import shutil
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

#: Accounts that may run Postgres when localgcp runs as root, best first.
ACCOUNTS = ("postgres", "nobody")
#: unix(4), `sun_path` without the zero byte at its end: longer on Linux than on the BSDs and macOS.
MAX_SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103
SOCKET_NAME = ".s.PGSQL.5432"


@dataclass(frozen=True, kw_only=True)
class Account:
    name: str
    uid: int
    gid: int


@dataclass(frozen=True, kw_only=True)
class Layout:
    homes: Path
    sockets: Path
    cache: Path
    #: None when localgcp's own account may run Postgres.
    account: Account | None

    def home(self, connection_name: str) -> Path:
        return self.homes / connection_name.replace(":", "~")

    def socket_directory(self, connection_name: str) -> Path:
        return self.sockets / connection_name

    def give(self, path: Path) -> None:
        """Hand `path`, and all below it, to the account that runs Postgres."""
        if self.account is None:
            return
        os.chown(path, self.account.uid, self.account.gid)
        if path.is_dir():
            for directory, names, files in os.walk(path):
                for name in [*names, *files]:
                    os.chown(Path(directory, name), self.account.uid, self.account.gid, follow_symlinks=False)

    def remove_sockets(self) -> None:
        """Delete the directories of the sockets, also those of Cloud SQL volumes. No server may be running any more."""
        shutil.rmtree(self.sockets, ignore_errors=True)

    def remove(self) -> None:
        """Delete every instance of this data directory. Their Postgres processes must have been stopped."""
        shutil.rmtree(self.homes, ignore_errors=True)
        self.remove_sockets()


def layout_of(data_dir: Path) -> Layout:
    """Paths that depend on nothing but the data directory: the next process finds what the last one left."""
    data_dir = data_dir.resolve()
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:8]
    account = unprivileged_account()
    homes = data_dir / "sql"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "localgcp"
    if not can_be_written(cache):
        # An account without a home, or with one that is read-only: nothing is shared between its regions then.
        cache = data_dir / "cache"
    if account is not None:
        cache = Path("/var/tmp/localgcp-cache")  # noqa: S108  (owner is verified by `own_directory`)
        if not is_reachable(data_dir):
            homes = Path(f"/var/tmp/localgcp-{digest}")  # noqa: S108
    # Not `tempfile.gettempdir()`: on macOS that alone takes half of the length a socket's path may have.
    return Layout(homes=homes, sockets=Path(f"/tmp/lgcp-{digest}"), cache=cache, account=account)  # noqa: S108


def own_directory(path: Path) -> Path:
    """Create `path` or make sure that it is ours: in /tmp somebody else could have been first."""
    path.mkdir(parents=True, exist_ok=True, mode=0o755)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to somebody else (uid {found.st_uid}): remove it")
    path.chmod(0o755)
    return path


def unprivileged_account() -> Account | None:
    if os.geteuid() != 0:
        return None
    for name in ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise LookupError(f"Postgres refuses to run as root, and there is no account {' or '.join(ACCOUNTS)}: create one")


def can_be_written(path: Path) -> bool:
    """What does not exist yet counts as its parent."""
    # Not `exists`, which raises below a directory that is closed to us.
    while not os.access(path, os.F_OK):
        path = path.parent
    return path.is_dir() and os.access(path, os.W_OK | os.X_OK)


def is_reachable(path: Path) -> bool:
    """Whether any account can enter `path`; what does not exist yet counts as its parent."""
    while not path.exists():
        path = path.parent
    return all(directory.stat().st_mode & stat.S_IXOTH for directory in [path, *path.parents])
