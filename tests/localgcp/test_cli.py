"""The command line, run as a user runs it: real processes, a real port, a data directory of its own."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import pytest
from typer.testing import CliRunner

from localgcp import process
from localgcp.cli import app
from tests.localgcp.fixtures import temporary_data_dir
from tests.ports import quiet_port

COMMANDS = ["up", "down", "status", "env", "logs", "reset", "serve"]


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with temporary_data_dir() as path:
        yield path
        run(path, "down")


@pytest.fixture(scope="module")
def running() -> Iterator[Path]:
    """The data directory of a region that runs, for tests that only look."""
    with temporary_data_dir() as path:
        up(path)
        yield path
        run(path, "down")


def run(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GOOGLE_", "PULUMI_"))}
    environment |= {"LOCALGCP_DATA_DIR": str(data_dir), "NO_COLOR": "1", "COLUMNS": "20"}
    return subprocess.run(
        [sys.executable, "-m", "localgcp", *arguments], env=environment, capture_output=True, text=True, timeout=120
    )


def up(data_dir: Path) -> str:
    is_new = not (data_dir / "port").exists()
    done = run(data_dir, "up", *(["--port", str(quiet_port())] if is_new else []))
    assert done.returncode == 0, done.stderr
    found = re.search(r"http://127\.0\.0\.1:\d+", done.stdout)
    assert found, done.stdout
    return found[0]


def variables(data_dir: Path) -> dict[str, str]:
    done = run(data_dir, "env", "--format", "json")
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def process_of(data_dir: Path) -> psutil.Process:
    return psutil.Process(json.loads((data_dir / "process.json").read_text())["pid"])


def create_secret(environment: dict[str, str]) -> int:
    return httpx.post(
        environment["GOOGLE_SECRET_MANAGER_CUSTOM_ENDPOINT"] + "projects/cli/secrets",
        params={"secretId": "kept"},
        json={"replication": {"automatic": {}}},
        headers={"Authorization": f"Bearer {environment['GOOGLE_OAUTH_ACCESS_TOKEN']}"},
    ).status_code


def test_a_region_starts_once_answers_and_stops(data_dir: Path) -> None:
    url = up(data_dir)
    serving = process_of(data_dir)
    again = run(data_dir, "up")

    assert httpx.get(f"{url}/.well-known/openid-configuration").json()["token_endpoint"] == f"{url}/token"
    assert (again.returncode, "is already running" in again.stdout) == (0, True)
    assert process_of(data_dir).pid == serving.pid

    assert run(data_dir, "down").returncode == 0
    assert not serving.is_running()
    assert run(data_dir, "down").stdout.strip() == "localgcp is not running."


def test_a_killed_region_comes_back_at_its_port_with_what_it_had(data_dir: Path) -> None:
    url = up(data_dir)
    environment = variables(data_dir)
    assert create_secret(environment) == 200
    serving = process_of(data_dir)
    serving.send_signal(signal.SIGKILL)
    serving.wait(10)
    assert run(data_dir, "status").returncode == 3

    assert up(data_dir) == url

    assert variables(data_dir)["GOOGLE_OAUTH_ACCESS_TOKEN"] == environment["GOOGLE_OAUTH_ACCESS_TOKEN"]
    assert create_secret(environment) == 409


def test_a_path_is_shown_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a region [old] [/]"

    assert run(path, "reset").stdout == f"{path} does not exist: there is nothing to delete.\n"


def test_the_environment_is_fit_for_a_shell(running: Path) -> None:
    url = f"http://127.0.0.1:{(running / 'port').read_text().strip()}"
    lines = run(running, "env").stdout
    script = f'{lines}\nprintf \'%s|\' "$GOOGLE_SQL_CUSTOM_ENDPOINT" "$STORAGE_EMULATOR_HOST" "$PULUMI_HOME"'

    shell = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True, timeout=10)

    assert shell.stdout.split("|")[:2] == [f"{url}/sqladmin/sql/v1beta4/", url]
    assert Path(shell.stdout.split("|")[2]).is_relative_to(running)
    assert all(shlex.split(line)[0] == "export" for line in lines.splitlines())


def test_the_environment_makes_its_holder_the_operator(running: Path) -> None:
    url = f"http://127.0.0.1:{(running / 'port').read_text().strip()}"
    environment = variables(running)

    headers = {"Authorization": f"Bearer {environment['GOOGLE_OAUTH_ACCESS_TOKEN']}"}
    answer = httpx.get(f"{url}/v1/userinfo", headers=headers).json()

    assert answer["email"] == "operator@localgcp.iam.gserviceaccount.com"
    credentials = Path(environment["GOOGLE_APPLICATION_CREDENTIALS"])
    assert json.loads(credentials.read_text())["client_email"] == answer["email"]
    assert credentials.stat().st_mode & 0o777 == 0o600


def test_a_proxy_is_for_other_hosts(running: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request that went to it would fail: nobody listens at port 1."""
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "intranet.example, 127.0.0.1")
    monkeypatch.delenv("no_proxy", raising=False)

    environment = variables(running)

    assert environment["NO_PROXY"] == environment["no_proxy"] == "intranet.example,127.0.0.1,localhost"
    assert run(running, "status").returncode == 0
    monkeypatch.setenv("NO_PROXY", environment["NO_PROXY"])
    monkeypatch.setenv("no_proxy", environment["no_proxy"])
    assert create_secret(environment) in (200, 409)


def test_a_process_that_is_older_than_its_code_is_told_from_one_that_is_not() -> None:
    past, future = (process.Running(pid=1, port=1, created=moment) for moment in (0.0, time.time() + 60))

    assert process.is_outdated(past)
    assert not process.is_outdated(future)


def test_status_tells_programs_what_is_there(running: Path) -> None:
    url = f"http://127.0.0.1:{(running / 'port').read_text().strip()}"
    create_secret(variables(running))

    done = run(running, "status", "--json")

    found = json.loads(done.stdout)
    assert (found["api"], found["pid"]) == (url, process_of(running).pid)
    assert "cli" in [project["id"] for project in found["projects"]]
    shown = run(running, "status").stdout
    assert "cli" in shown
    assert f"data    {running}\n" in shown, "an address is never cut in two, however narrow the terminal"


def test_logs_are_chosen_by_service_and_severity(running: Path) -> None:
    environment = variables(running)
    entries = [
        {"severity": severity, "textPayload": f"{severity} of {service}", "resource": resource}
        for service in ("web", "worker")
        for severity in ("INFO", "ERROR")
        for resource in [{"type": "cloud_run_revision", "labels": {"service_name": service}}]
    ]
    written = httpx.post(
        environment["GOOGLE_LOGGING_CUSTOM_ENDPOINT"] + "entries:write",
        json={"logName": "projects/logs-test/logs/run", "entries": entries},
        headers={"Authorization": f"Bearer {environment['GOOGLE_OAUTH_ACCESS_TOKEN']}"},
    )
    assert written.status_code == 200, written.text

    chosen = run(running, "logs", "--service", "worker", "--severity", "warning", "--project", "logs-test")
    every = run(running, "logs", "--project", "logs-test", "--json")

    assert [line.partition(" worker: ")[2] for line in chosen.stdout.splitlines()] == ["ERROR of worker"]
    assert [json.loads(line)["textPayload"] for line in every.stdout.splitlines()] == [
        "INFO of web",
        "ERROR of web",
        "INFO of worker",
        "ERROR of worker",
    ]


def test_reset_empties_the_region_and_keeps_its_port(data_dir: Path) -> None:
    url = up(data_dir)
    create_secret(variables(data_dir))

    assert run(data_dir, "reset").returncode == 1  # nobody said yes
    assert run(data_dir, "reset", "--yes").returncode == 0
    assert [path.name for path in data_dir.iterdir()] == ["port"]

    assert up(data_dir) == url
    assert create_secret(variables(data_dir)) == 200


def test_reset_leaves_alone_what_is_not_a_region(data_dir: Path) -> None:
    (data_dir / "thesis.txt").write_text("a year of work")

    done = run(data_dir, "reset", "--yes")

    assert (done.returncode, "does not look like a region" in done.stderr) == (1, True)
    assert (data_dir / "thesis.txt").exists()


def test_a_second_process_does_not_serve_the_same_data(running: Path) -> None:
    done = run(running, "serve")

    assert (done.returncode, "already serves" in done.stderr) == (1, True)


def test_a_port_that_is_taken_is_told(data_dir: Path) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        done = run(data_dir, "up", "--port", str(port))

    assert (done.returncode, f"port {port} is taken by another process" in done.stderr) == (1, True)


def test_without_a_wish_the_first_free_port_is_taken_and_remembered(tmp_path: Path) -> None:
    with closing(process.bind(tmp_path, None)) as first:
        port = first.getsockname()[1]
        with pytest.raises(process.ProcessError, match=f"port {port}, which this region has used so far"):
            process.bind(tmp_path, None)
    with closing(process.bind(tmp_path, None)) as again:
        assert 9180 <= port < 9280
        assert again.getsockname() == ("127.0.0.1", port)


def test_a_data_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    done = run(tmp_path / "file" / "below", "up")

    assert (done.returncode, "cannot be written" in done.stderr) == (1, True)


@pytest.mark.parametrize("command", [["status"], ["env"], ["logs"]])
def test_a_command_that_needs_a_region_says_how_to_start_one(tmp_path: Path, command: list[str]) -> None:
    done = run(tmp_path, *command)

    assert done.returncode == 3
    assert "start it with `python -m localgcp up --data-dir" in done.stderr
    assert done.stdout == ""


def test_a_database_that_cannot_be_opened_is_told(data_dir: Path) -> None:
    (data_dir / "region.sqlite3").write_text("not a database, but as long as the header of one would have to be")

    done = run(data_dir, "up", "--port", str(quiet_port()))

    assert done.returncode == 1
    assert re.search(r"cannot be opened \(file is not a database\): .* `python -m localgcp reset`", done.stderr)


@pytest.mark.parametrize("command", ["up", "down", "status", "env", "logs", "reset"])
def test_a_data_directory_that_is_a_file_ends_no_command_in_a_traceback(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").touch()

    done = run(tmp_path / "file", command)

    assert done.returncode == {"up": 1, "down": 0, "reset": 1}.get(command, 3)
    assert "Traceback" not in done.stderr


def test_a_process_that_took_over_the_id_of_a_dead_one_is_left_alone(data_dir: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        record = {"pid": stranger.pid, "created": psutil.Process(stranger.pid).create_time() - 60, "port": 1}
        (data_dir / "process.json").write_text(json.dumps(record))

        assert "not running" in run(data_dir, "down").stdout
        assert stranger.poll() is None
    finally:
        stranger.communicate(b"\n", timeout=10)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--help"], prog_name="python -m localgcp")

    assert done.exit_code == 0
    assert re.search(rf"Examples?:\s+.*python -m localgcp {command}", done.stdout)


def test_no_command_is_untested() -> None:
    assert sorted(command.callback.__name__ for command in app.registered_commands if command.callback) == sorted(
        COMMANDS
    )


def test_a_python_without_the_requirements_hands_over_to_the_checkouts_own() -> None:
    base = Path(sys.base_prefix) / "bin" / "python3"

    answer = subprocess.run(
        [base, "-m", "localgcp", "--help"],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )

    assert answer.returncode == 0, answer.stderr
    assert "reset" in answer.stdout
