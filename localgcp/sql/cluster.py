"""One Postgres server: a data directory, and a postmaster that outlives the process which started it."""

import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from localgcp.sql.binaries import Binaries
from localgcp.sql.layout import SOCKET_NAME, Layout

START_TIMEOUT = timedelta(seconds=120)
STOP_TIMEOUT = timedelta(seconds=60)


class ClusterError(Exception):
    """Postgres could not be started or stopped. The message ends with what its log says."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    layout: Layout
    binaries: Binaries
    data: Path
    log: Path
    sockets: Path

    @property
    def pid(self) -> int | None:
        """The postmaster that serves this data directory. A pid file alone proves nothing: pids are used again."""
        return postmaster(self.data)

    @property
    def unapplied(self) -> Path:
        """Is there while settings are written that a running server may not have taken."""
        return self.data.with_name("unapplied")

    def configure(self, settings: Mapping[str, str], hba: str) -> bool:
        """Write the whole configuration; whether there are settings that the server does not have yet.

        A running server takes access rules with `reload`, and some of the settings only with a restart.
        """
        text = "".join(f"{name} = {quoted(value)}\n" for name, value in settings.items())
        if (self.data / "postgresql.conf").read_text() != text:
            self.unapplied.touch()
        self.write("postgresql.conf", text)
        self.write("pg_hba.conf", hba)
        return self.unapplied.exists()

    def write(self, name: str, text: str) -> None:
        unfinished = self.data / f"{name}.new"
        unfinished.touch(mode=0o600)
        unfinished.write_text(text)
        self.layout.give(unfinished)
        unfinished.replace(self.data / name)

    def start(self) -> None:
        """Start unless it runs. Returns when connections are accepted, after any crash recovery."""
        if self.pid is not None:
            return
        # Left by a server that was killed: Postgres would hesitate when the number belongs to another process today,
        # or to a dead one that nobody has reaped yet.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        (self.sockets / f"{SOCKET_NAME}.lock").unlink(missing_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.layout.give(self.log.parent)
        deadline = time.monotonic() + START_TIMEOUT.total_seconds()
        seconds = str(int(START_TIMEOUT.total_seconds()))
        while self.pg_ctl("start", "-w", "-t", seconds, "-l", str(self.log)) != 0:
            # Backends of a killed postmaster hold on to the shared memory until they notice, which takes a moment.
            if "shared memory block" not in self.last_lines() or time.monotonic() > deadline:
                raise ClusterError(f"Postgres did not start: {self.last_lines()}")
            time.sleep(0.2)
        self.unapplied.unlink(missing_ok=True)

    def stop(self, mode: str = "fast") -> None:
        pid = self.pid
        if pid is None:
            return
        if self.pg_ctl("stop", "-w", "-t", str(int(STOP_TIMEOUT.total_seconds())), "-m", mode) != 0 and self.pid == pid:
            raise ClusterError(f"Postgres did not stop: {self.last_lines()}")

    def restart(self) -> None:
        self.stop()
        self.start()

    def reload(self) -> None:
        if self.pg_ctl("reload") != 0:
            raise ClusterError(f"Postgres did not take its configuration: {self.last_lines()}")
        self.unapplied.unlink(missing_ok=True)

    def pg_ctl(self, *arguments: str) -> int:
        return self.run("pg_ctl", *arguments, "-s", "-D", str(self.data))

    def run(self, program: str, *arguments: str) -> int:
        return run_unprivileged(self.layout, [str(self.binaries.path(program)), *arguments])

    def last_lines(self) -> str:
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 2000))
                return " / ".join(file.read().decode(errors="replace").splitlines()[-5:])
        except FileNotFoundError:
            return "it wrote no log"


def run_unprivileged(layout: Layout, command: list[str]) -> int:
    """Run to the end as the account that may run Postgres; the exit status. Its session is its own: it outlives us."""
    account = layout.account
    return subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        # Nothing of ours is inherited: libpq and Postgres read dozens of variables.
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        start_new_session=True,
        timeout=START_TIMEOUT.total_seconds() * 2,
    ).returncode


def postmaster(data: Path) -> int | None:
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        pid = int(lines[0])
    except (FileNotFoundError, IndexError, ValueError):
        return None
    return pid if str(data) in command_line(pid) else None


def command_line(pid: int) -> str:
    """What a process was started with; empty when there is none. `pg_ctl` starts `postgres -D <data directory>`."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return ""
    return subprocess.run(["ps", "-p", str(pid), "-o", "command="], capture_output=True, text=True, check=False).stdout


def quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
