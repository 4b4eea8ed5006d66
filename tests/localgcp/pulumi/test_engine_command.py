"""The `pulumi` of a region: what it understands of a command line, and the stack file it writes."""

from pathlib import Path

import pytest

from localgcp.pulumi.engine import Project, find_engine, local_stack_file, parse, without_other_stacks
from localgcp.pulumi.install import environment, install


@pytest.mark.parametrize(
    ("line", "words", "stack"),
    [
        ("preview --stack au --expect-no-changes", ("preview",), "au"),
        ("up --yes --stack=au", ("up",), "au"),
        ("-s au up", ("up",), "au"),
        ("-sau up", ("up",), "au"),
        ("--color never -v 3 --cwd somewhere destroy", ("destroy",), None),
        ("stack init au --no-select", ("stack", "init", "au"), "au"),
        ("stack init organization/probe/au", ("stack", "init", "organization/probe/au"), "organization/probe/au"),
        ("stack output url", ("stack", "output", "url"), None),
    ],
)
def test_the_command_and_the_stack_are_found(line: str, words: tuple[str, ...], stack: str | None) -> None:
    command = parse(line.split())

    assert (command.words, command.stack) == (words, stack)


@pytest.mark.parametrize(
    ("line", "creates"),
    [
        ("stack init au", True),
        ("stack new --stack au", True),
        ("stack select --create au", True),
        ("stack select -c au", True),
        ("stack select au", False),
        ("up -c a=b", False),
    ],
)
def test_a_command_that_creates_a_stack_is_recognised(line: str, creates: bool) -> None:
    assert parse(line.split()).creates is creates


def test_a_configuration_given_on_the_command_line_is_the_users_to_save() -> None:
    assert parse(["up", "-c", "a=b"]).saves_config
    assert not parse(["up", "--yes"]).saves_config


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "repository" / "infra").mkdir(parents=True)
    (tmp_path / "repository" / "Pulumi.yaml").write_text('name: "probe" # ours\nruntime: python\nmain: infra\n')
    (tmp_path / "repository" / "Pulumi.au.yaml").write_text(
        "secretsprovider: gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k\n"
        "encryptedkey: CiQA\n"
        "# Kept.\n"
        "config:\n"
        "  probe:size: small\n"
    )
    found = Project.find(tmp_path / "repository" / "infra")
    assert found is not None
    return found


def test_a_project_is_found_from_below(project: Project, tmp_path: Path) -> None:
    assert project == Project(name="probe", stack_files=tmp_path / "repository")


def test_the_local_stack_file_has_the_configuration_and_none_of_the_secrets_settings(
    project: Project, tmp_path: Path
) -> None:
    written = local_stack_file(tmp_path / "home", project, "organization/probe/au")

    assert written == tmp_path / "home" / "stacks" / "probe" / "Pulumi.au.yaml"
    assert written.read_text() == "# Kept.\nconfig:\n  probe:size: small\n"


def test_the_local_stack_file_keeps_its_salt_and_follows_the_configuration(project: Project, tmp_path: Path) -> None:
    written = local_stack_file(tmp_path / "home", project, "au")
    written.write_text("config:\n  probe:size: small\nencryptionsalt: v1:ours\n")
    (project.stack_files / "Pulumi.au.yaml").write_text("encryptionsalt: v1:theirs\nconfig:\n  probe:size: large\n")

    local_stack_file(tmp_path / "home", project, "au")

    assert written.read_text() == "encryptionsalt: v1:ours\nconfig:\n  probe:size: large\n"


def test_a_stack_file_without_any_setting_left_can_be_read(project: Project, tmp_path: Path) -> None:
    (project.stack_files / "Pulumi.au.yaml").write_text("{}\n")
    home = tmp_path / "home"
    written = local_stack_file(home, project, "au")
    written.write_text("encryptionsalt: v1:ours\n")

    assert local_stack_file(home, project, "au").read_text() == "encryptionsalt: v1:ours\n"


def test_the_engine_is_the_first_on_path_that_is_not_this_command(tmp_path: Path) -> None:
    ours = install(tmp_path / "data", real_homes=()) / "bin"
    real = tmp_path / "real" / "pulumi"
    real.parent.mkdir()
    real.write_text("#!/bin/sh\n")
    real.chmod(0o755)

    assert find_engine({"PATH": f"{ours}:{real.parent}"}) == real


def test_credentials_and_a_passphrase_of_other_stacks_do_not_reach_the_engine(tmp_path: Path) -> None:
    """An exported passphrase, though empty, is preferred to the region's file: its stacks would not open."""
    region = environment(tmp_path, environ={"PATH": "/bin"})
    others = {"PULUMI_CONFIG_PASSPHRASE": "", "GOOGLE_CREDENTIALS": "{}", "GOOGLE_IMPERSONATE_SERVICE_ACCOUNT": "a@b"}
    own_backend = others | region | {"PULUMI_BACKEND_URL": "gs://somewhere"}

    assert without_other_stacks(region | others | {"HOME": "/h"}) == region | {"HOME": "/h"}
    assert without_other_stacks(own_backend) == own_backend
    assert without_other_stacks(others) == others
