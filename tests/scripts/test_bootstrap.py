"""Bootstrap: makes an environment from pinned requirements, and leaves it alone when it is made."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from scripts import bootstrap
from scripts.bootstrap import link_engine, make_environment, run_telling, stamp_of


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    file = tmp_path / "dev.txt"
    file.write_text("# nothing is needed\n")
    return file


def test_an_environment_is_made_and_the_second_run_touches_nothing(tmp_path: Path, requirements: Path) -> None:
    venv = tmp_path / "venv"
    make_environment(venv, requirements)
    made = (venv / "made-from").stat().st_mtime_ns

    make_environment(venv, requirements)

    assert subprocess.run([venv / "bin" / "python", "-c", ""], check=False).returncode == 0
    assert (venv / "made-from").read_text() == stamp_of(requirements)
    assert (venv / "made-from").stat().st_mtime_ns == made


def test_a_requirement_without_its_hash_is_not_installed(tmp_path: Path, requirements: Path) -> None:
    requirements.write_text("iniconfig==2.1.0\n")
    venv = tmp_path / "venv"

    with pytest.raises(subprocess.CalledProcessError):
        make_environment(venv, requirements)

    assert not (venv / "made-from").exists()


def test_other_requirements_have_another_stamp(requirements: Path) -> None:
    before = stamp_of(requirements)
    requirements.write_text("# something else\n")

    assert stamp_of(requirements) != before


def test_what_takes_long_is_told_from_what_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command ends after it has been told of: it waits for a line in a pipe."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    opener = threading.Thread(target=lambda: gate.write_text("go"))
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        if len(told) == 1:
            opener.start()

    monkeypatch.setattr(bootstrap, "say", tell)

    run_telling(["sh", "-c", f"read line < {gate}; exit 0"], "installing", every_seconds=0.5)
    opener.join()

    assert re.fullmatch(r"still installing, \d+ s", told[0])


def test_a_command_that_fails_is_not_taken_for_done() -> None:
    with pytest.raises(subprocess.CalledProcessError, match="exit status 3"):
        run_telling(["sh", "-c", "exit 3"], "installing")


def test_the_link_to_the_engine_follows_the_search(tmp_path: Path) -> None:
    link = tmp_path / "pulumi"
    first, second = tmp_path / "first", tmp_path / "second"
    link_engine(first, link)
    link_engine(second, link)

    assert link.readlink() == second
    assert [path.name for path in tmp_path.iterdir()] == ["pulumi"]


def test_bootstrap_needs_nothing_that_it_installs() -> None:
    """It runs before anything is installed: -S leaves out site-packages."""
    script = Path(__file__).resolve().parents[2] / "scripts" / "bootstrap.py"
    run = subprocess.run([sys.executable, "-S", script, "--help"], capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stderr
