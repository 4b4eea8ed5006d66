"""`make up`, the parts that need no region: what it reads, what it keeps secret, whose lock it removes."""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from scripts.up import ROOT, Pulumi, UpFailed, demo_key, exports


def test_printed_variables_are_read_as_a_shell_would() -> None:
    printed = "# for a shell\nexport A='with space'\nexport PATH=/region/bin:$PATH\nunrelated\n"

    assert exports(printed, "/usr/bin") == {"A": "with space", "PATH": "/region/bin:/usr/bin"}


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "key"
    key = demo_key(file, "AU")

    assert demo_key(file, "AU") == key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    brand, region, prefix, secret = key.split("_", 3)
    assert (brand, region, len(prefix), len(secret)) == ("vb", "au", 8, 43)


@pytest.fixture
def pulumi(tmp_path: Path) -> Pulumi:
    """An engine that writes down what it is asked, on a backend with a lock."""
    engine = tmp_path / "bin" / "pulumi"
    engine.parent.mkdir()
    engine.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    engine.chmod(0o755)
    environ = {"PATH": str(engine.parent), "PULUMI_BACKEND_URL": f"file://{tmp_path}"}
    return Pulumi(stack="au", environ=environ, patience_seconds=0)


def lock(tmp_path: Path, process: int, hostname: str = socket.gethostname()) -> Path:
    file = tmp_path / ".pulumi" / "locks" / "organization" / "validibot" / "au" / "0b4a.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"pid": process, "username": "u", "hostname": hostname}))
    return file


def test_the_lock_of_a_process_that_is_gone_is_removed(pulumi: Pulumi, tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    lock(tmp_path, process.pid)

    pulumi.release_stale_lock()

    assert (tmp_path / "asked").read_text() == "cancel --yes --stack au --non-interactive\n"


def test_the_lock_of_another_machine_says_nothing_of_the_processes_here(pulumi: Pulumi, tmp_path: Path) -> None:
    """The region's state is on this disk alone: whoever held the lock came before a change of the machine's name."""
    lock(tmp_path, os.getpid(), hostname="another-machine")

    pulumi.release_stale_lock()

    assert (tmp_path / "asked").read_text() == "cancel --yes --stack au --non-interactive\n"


def test_the_lock_of_a_running_update_is_respected(pulumi: Pulumi, tmp_path: Path) -> None:
    lock(tmp_path, os.getpid())

    with pytest.raises(UpFailed, match=f"process {os.getpid()} is still updating stack au"):
        pulumi.release_stale_lock()

    assert not (tmp_path / "asked").exists()


def test_an_update_that_ends_by_itself_is_waited_for(tmp_path: Path, pulumi: Pulumi) -> None:
    file = lock(tmp_path, os.getpid())
    patient = dataclasses.replace(pulumi, patience_seconds=30)
    threading.Timer(0.2, file.unlink).start()

    patient.release_stale_lock()

    assert not file.exists()
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(
    ("exists", "asked"),
    [
        (True, "stack export --stack au --non-interactive\n"),
        (False, "stack export --stack au --non-interactive\nstack select au --non-interactive\n"),
    ],
)
def test_a_stack_is_made_only_where_there_is_none(tmp_path: Path, pulumi: Pulumi, exists: bool, asked: str) -> None:
    with (tmp_path / "bin" / "pulumi").open("a") as engine:
        engine.write(f'echo "{{}}"\n[ "$2" != export ] || exit {0 if exists else 1}\n')

    pulumi.finish_interrupted()

    assert (tmp_path / "asked").read_text() == asked


@pytest.mark.parametrize(
    ("deployment", "looks"),
    [
        ({"resources": [{"urn": "a"}]}, False),
        ({"resources": [{"urn": "a"}, {"urn": "b", "initErrors": ["connection refused"]}]}, True),
        ({"pending_operations": [{"type": "creating"}]}, True),
        (None, False),
    ],
)
def test_an_update_that_ended_in_the_middle_is_read_back_first(
    tmp_path: Path, pulumi: Pulumi, deployment: dict[str, Any] | None, looks: bool
) -> None:
    with (tmp_path / "bin" / "pulumi").open("a") as engine:
        engine.write(f"echo '{json.dumps({'deployment': deployment})}'\n")

    pulumi.finish_interrupted()

    refreshes = [line for line in (tmp_path / "asked").read_text().splitlines() if line.startswith("refresh --yes")]
    assert len(refreshes) == looks


ENGINE_THAT_ENDS_IN_ORDER = """#!/bin/sh
trap 'sleep 1; echo in order > "$FOLDER/ended"; exit 1' INT
echo > "$FOLDER/started"
while :; do sleep 0.05; done
"""


def test_an_interrupted_engine_may_finish_what_is_under_way(tmp_path: Path) -> None:
    engine = tmp_path / "pulumi"
    engine.write_text(ENGINE_THAT_ENDS_IN_ORDER)
    engine.chmod(0o755)
    os.mkfifo(tmp_path / "started")
    # Whoever runs the tests in the background of a shell has them ignore SIGINT, and their children with them.
    listens = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{listens}; import os; from scripts.up import Pulumi; Pulumi(stack='au', environ=dict(os.environ))('up')"
    environ = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "FOLDER": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environ, start_new_session=True)
    (tmp_path / "started").read_text()  # which waits for the engine to write

    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    assert (tmp_path / "ended").read_text() == "in order\n"
