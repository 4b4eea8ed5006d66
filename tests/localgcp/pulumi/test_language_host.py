"""The language host's answers that need no engine."""

import sys
from pathlib import Path

import pytest

from localgcp.pulumi.language_host import (
    InterpreterNotFound,
    child_environment,
    find_interpreter,
    required_packages,
    site_packages,
)


def make_virtualenv(folder: Path) -> Path:
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch(mode=0o755)
    (folder / "pyvenv.cfg").touch()
    return python


def test_the_virtual_environment_of_the_project_runs_the_program(tmp_path: Path) -> None:
    python = make_virtualenv(tmp_path / "venv")

    assert find_interpreter(tmp_path, {"virtualenv": "venv"}, {"PULUMI_PYTHON_CMD": sys.executable}) == python


def test_uv_keeps_its_environment_beside_the_project(tmp_path: Path) -> None:
    python = make_virtualenv(tmp_path / ".venv")

    assert find_interpreter(tmp_path, {"toolchain": "uv"}, {}) == python


def test_without_options_the_command_of_the_environment_runs_the_program(tmp_path: Path) -> None:
    assert find_interpreter(tmp_path, {}, {"PULUMI_PYTHON_CMD": sys.executable}) == Path(sys.executable)


def test_without_anything_this_interpreter_runs_the_program(tmp_path: Path) -> None:
    assert find_interpreter(tmp_path, {}, {}) == Path(sys.executable)


@pytest.mark.parametrize(
    ("options", "environ", "message"),
    [
        ({"virtualenv": "gone"}, {}, "names the virtual environment 'gone', but there is no "),
        ({"toolchain": "poetry"}, {}, "asks for the toolchain 'poetry'"),
        ({}, {"PULUMI_PYTHON_CMD": "python-of-nobody"}, "PULUMI_PYTHON_CMD is 'python-of-nobody'"),
    ],
)
def test_an_interpreter_that_is_not_there_is_named(
    tmp_path: Path, options: dict[str, str], environ: dict[str, str], message: str
) -> None:
    with pytest.raises(InterpreterNotFound, match=message):
        find_interpreter(tmp_path, options, environ)


def test_the_program_runs_in_its_activated_environment_with_the_project_on_its_path(tmp_path: Path) -> None:
    python = make_virtualenv(tmp_path / "venv")

    child = child_environment(
        python, tmp_path, {"PATH": "/bin", "PYTHONPATH": "/mine", "PYTHONHOME": "/gone", "HOME": "/home/me"}
    )

    assert child == {
        "PATH": f"{tmp_path}/venv/bin:/bin",
        "VIRTUAL_ENV": f"{tmp_path}/venv",
        "PYTHONPATH": f"{tmp_path}:/mine",
        "PYTHONUNBUFFERED": "1",
        "HOME": "/home/me",
    }


def test_packages_of_resources_declare_their_plugins(tmp_path: Path) -> None:
    python = make_virtualenv(tmp_path)
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    for package, declaration in {
        "pulumi_mine": '{"resource": true, "version": "1.2.3", "server": "https://example.com"}',
        "pulumi_two_words": '{"resource": true, "name": "words", "version": "v2.0.0"}',
        "pulumi_policy": '{"resource": false}',
    }.items():
        (packages / package).mkdir(parents=True)
        (packages / package / "pulumi-plugin.json").write_text(declaration)

    assert list(required_packages(site_packages(python))) == [
        {"name": "mine", "kind": "resource", "version": "v1.2.3", "server": "https://example.com"},
        {"name": "words", "kind": "resource", "version": "v2.0.0", "server": ""},
    ]
