"""The PULUMI_HOME of a region, on disk."""

import os
import stat
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from localgcp.pulumi.install import environment, home, install, is_ours

GCP = f"resource-gcp-v{version('pulumi-gcp')}"
COMMANDS = {
    f"plugins/language-python-v{version('pulumi')}/pulumi-language-python",
    f"plugins/resource-pulumi-python-v{version('pulumi')}/pulumi-resource-pulumi-python",
    f"plugins/{GCP}/pulumi-resource-gcp",
    f"plugins/resource-random-v{version('pulumi-random')}/pulumi-resource-random",
    "bin/pulumi",
}


def put_real_plugin(pulumi_home: Path, *, mode: int = 0o755) -> Path:
    command = pulumi_home / "plugins" / GCP / "pulumi-resource-gcp"
    command.parent.mkdir(parents=True)
    command.write_text("#!/bin/sh\necho the real one\n")
    command.chmod(mode)
    return command


def test_a_home_holds_every_command_and_each_can_be_executed(tmp_path: Path) -> None:
    target = install(tmp_path, real_homes=())

    executable = {
        str(file.relative_to(target))
        for file in target.rglob("*")
        if file.is_file() and os.access(file, os.X_OK) and is_ours(file)
    }
    assert executable == COMMANDS


def test_a_command_does_not_import_the_modules_of_the_folder_it_is_started_in(tmp_path: Path) -> None:
    target = install(tmp_path / "data", real_homes=())
    program = tmp_path / "program"
    program.mkdir()
    (program / "secrets.py").write_text("raise SystemExit('the program was imported')\n")
    command = target / "plugins" / f"resource-random-v{version('pulumi-random')}" / "pulumi-resource-random"

    started = subprocess.run(
        [command, "127.0.0.1:1"], cwd=program, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )

    # Nobody holds its standard input, so it ends after it has said its port.
    assert (started.returncode, started.stdout.strip().isdigit(), started.stderr) == (0, True, "")


def test_the_passphrase_is_random_private_and_kept(tmp_path: Path) -> None:
    passphrase = install(tmp_path, real_homes=()) / "passphrase"
    first = passphrase.read_text()
    install(tmp_path, real_homes=())
    other = install(tmp_path / "other", real_homes=()) / "passphrase"

    assert stat.S_IMODE(passphrase.stat().st_mode) == 0o600
    assert len(first) >= 40
    assert (passphrase.read_text() == first, other.read_text() == first) == (True, False)


def test_a_real_provider_elsewhere_is_linked_in_place_of_ours(tmp_path: Path) -> None:
    real = put_real_plugin(tmp_path / "user")
    target = install(tmp_path / "data", real_homes=())

    install(tmp_path / "data", real_homes=(tmp_path / "user",))

    folder = target / "plugins" / GCP
    assert (folder / "pulumi-resource-gcp").resolve() == real
    # The engine passes over a folder that is a link, without a word.
    assert not folder.is_symlink()


def test_a_real_provider_in_a_home_that_is_named_from_here_is_found_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = put_real_plugin(tmp_path / "user")
    monkeypatch.chdir(tmp_path)
    target = install(tmp_path / "data", real_homes=(Path("user"),))
    monkeypatch.chdir("/")

    assert (target / "plugins" / GCP / "pulumi-resource-gcp").resolve(strict=True) == real


def test_a_folder_that_is_a_link_which_the_engine_would_not_see_gives_way(tmp_path: Path) -> None:
    real = put_real_plugin(tmp_path / "user")
    folder = home(tmp_path / "data") / "plugins" / GCP
    folder.parent.mkdir(parents=True)
    folder.symlink_to(real.parent, target_is_directory=True)

    install(tmp_path / "data", real_homes=(tmp_path / "user",))

    assert (folder.is_symlink(), (folder / "pulumi-resource-gcp").resolve()) == (False, real)
    assert real.is_file()


def test_a_real_provider_installed_into_the_home_is_left_alone(tmp_path: Path) -> None:
    real = put_real_plugin(home(tmp_path))

    install(tmp_path, real_homes=())

    assert real.read_text() == "#!/bin/sh\necho the real one\n"


def test_a_provider_that_cannot_be_executed_counts_as_absent(tmp_path: Path) -> None:
    put_real_plugin(tmp_path / "user", mode=0o644)

    target = install(tmp_path / "data", real_homes=(tmp_path / "user",))

    assert is_ours(target / "plugins" / GCP / "pulumi-resource-gcp")


def test_ours_comes_back_when_the_real_provider_is_gone(tmp_path: Path) -> None:
    real = put_real_plugin(tmp_path / "user")
    target = install(tmp_path / "data", real_homes=(tmp_path / "user",))
    real.unlink()

    install(tmp_path / "data", real_homes=(tmp_path / "user",))

    assert is_ours(target / "plugins" / GCP / "pulumi-resource-gcp")


def test_the_environment_names_the_home_and_puts_its_command_first_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PULUMI_HOME", raising=False)
    target = home(tmp_path)

    variables = environment(tmp_path, {"PATH": f"/usr/bin:{target}/bin:/bin"})

    variables.pop("PULUMI_PYTHON_CMD")
    assert variables == {
        "PULUMI_HOME": str(target),
        "PULUMI_BACKEND_URL": f"file://{target}/state",
        "PULUMI_CONFIG_PASSPHRASE_FILE": f"{target}/passphrase",
        "PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER": "true",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        "PATH": f"{target}/bin:/usr/bin:/bin",
    }
