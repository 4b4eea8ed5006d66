"""The real engine, offline: our language host, dynamic host and random provider under its commands."""

import json
import os
import signal
import subprocess
import textwrap
from pathlib import Path

import pytest

from localgcp.pulumi.install import install
from tests.localgcp.pulumi.conftest import Workspace

pytestmark = pytest.mark.slow

PROGRAM = """
import pulumi
import pulumi_random as random
from infra.greetings import Greeting

config = pulumi.Config()
password = random.RandomPassword("password", length=config.require_int("length"), keepers={"epoch": "EPOCH"})
greeting = Greeting("greeting", config.get("who") or "you")
print("the program speaks")
pulumi.export("password", password.result)
pulumi.export("text", greeting.text)
"""

GREETINGS = """
import pulumi
from pulumi.dynamic import CheckFailure, CheckResult, CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult

from infra.words import hello


class GreetingProvider(ResourceProvider):
    def check(self, olds, news):
        return CheckResult(news, [CheckFailure("who", "name somebody")] if news["who"] == "nobody" else [])

    def create(self, props):
        return CreateResult("greeting-1", {**props, "text": hello(props["who"])})

    def diff(self, id, olds, news):
        return DiffResult(changes=olds["who"] != news["who"])

    def update(self, id, olds, news):
        return UpdateResult({**news, "text": hello(news["who"]) + " again"})


class Greeting(Resource, module="probe", name="Greeting"):
    text: pulumi.Output[str]

    def __init__(self, name, who):
        super().__init__(GreetingProvider(), name, {"who": who, "text": None})
"""


def write_greetings(workspace: Workspace) -> None:
    (workspace.folder / "infra" / "greetings.py").write_text(GREETINGS, encoding="utf-8")
    words = "def hello(who):\n    return f'Hello {who}'\n"
    (workspace.folder / "infra" / "words.py").write_text(words, encoding="utf-8")


def git_status(workspace: Workspace) -> str:
    return subprocess.run(
        ["git", "status", "--short"], cwd=workspace.folder, capture_output=True, text=True, check=True
    ).stdout


def test_a_stack_lives_its_life(workspace: Workspace) -> None:
    """One story, because each command of the engine takes seconds: up, nothing to do, refresh, update, replace, end."""
    write_greetings(workspace)
    workspace.program(PROGRAM)

    created = workspace.up()
    assert created.code == 0, created.output
    assert "the program speaks" in created.output
    assert "3 created" in created.output
    first = workspace.outputs("--show-secrets")
    assert (len(first["password"]), first["text"]) == (12, "Hello you")

    unchanged = workspace.pulumi("preview", "--stack", "au", "--expect-no-changes", "--non-interactive")
    assert unchanged.code == 0, unchanged.output

    refreshed = workspace.pulumi("refresh", "--stack", "au", "--yes", "--skip-preview", "--expect-no-changes")
    assert refreshed.code == 0, refreshed.output

    # The selected stack is the one that was created, without a flag that names it.
    workspace.must("config", "set", "who", "world")
    subprocess.run(["git", "add", "."], cwd=workspace.folder, check=True)
    before = git_status(workspace)
    updated = workspace.pulumi("up", "--yes", "--skip-preview", "--non-interactive")
    assert updated.code == 0, updated.output
    assert "1 updated" in updated.output
    assert workspace.outputs("--show-secrets") == {**first, "text": "Hello world again"}

    workspace.program(PROGRAM.replace("EPOCH", "2"))
    replaced = workspace.up()
    assert replaced.code == 0, replaced.output
    assert "1 replaced" in replaced.output
    assert workspace.outputs("--show-secrets")["password"] != first["password"]

    destroyed = workspace.pulumi("destroy", "--stack", "au", "--yes", "--skip-preview", "--non-interactive")
    assert destroyed.code == 0, destroyed.output
    assert workspace.resources() == {}
    # Neither a salt nor anything else was written into the repository by all of this.
    workspace.program(PROGRAM)
    assert git_status(workspace) == before


def test_a_real_provider_that_is_installed_elsewhere_is_the_one_that_the_engine_starts(
    workspace: Workspace, tmp_path: Path
) -> None:
    home = Path(workspace.environment["PULUMI_HOME"])
    ours = next(home.glob("plugins/resource-random-v*/pulumi-resource-random"))
    started = tmp_path / "started"
    real = tmp_path / "user" / ours.relative_to(home)
    real.parent.mkdir(parents=True)
    real.write_text(f"#!/bin/sh\ntouch '{started}'\n{ours.read_text().splitlines()[-1]}\n", encoding="utf-8")
    real.chmod(0o755)
    install(home.parent, real_homes=(tmp_path / "user",))
    workspace.program("import pulumi_random\npulumi_random.RandomId('id', byte_length=4)\n")

    up = workspace.up()

    assert up.code == 0, up.output
    assert started.exists()


def test_a_secret_is_in_no_file_of_the_state_in_clear(workspace: Workspace) -> None:
    workspace.program(
        "import pulumi, pulumi_random\n"
        "made = pulumi_random.RandomPassword('password', length=30, special=False)\n"
        "pulumi.export('given', pulumi.Output.secret('correct horse'))\n"
        "pulumi.export('made', made.result)\n"
    )
    assert workspace.up().code == 0

    secrets = workspace.outputs("--show-secrets")
    home = Path(workspace.environment["PULUMI_HOME"])
    everything = [file.read_bytes() for file in home.rglob("*") if file.is_file() and not file.is_symlink()]
    assert secrets["given"] == "correct horse"
    found = [name for name, value in secrets.items() if any(value.encode() in content for content in everything)]
    assert found == []
    assert workspace.outputs() == {"given": "[secret]", "made": "[secret]"}


def test_a_refused_property_is_named_before_anything_is_made(workspace: Workspace) -> None:
    workspace.program(
        "import pulumi_random\n"
        "pulumi_random.RandomString('short', length=2, min_upper=3)\n"
        "pulumi_random.RandomUuid('fine')\n"
    )

    ended = workspace.pulumi("preview", "--stack", "au", "--non-interactive")

    assert ended.code != 0
    assert "property length value {2} has a problem: length is 2, but the minimums add up to 3" in ended.output


def test_a_dynamic_provider_refuses_a_property(workspace: Workspace) -> None:
    write_greetings(workspace)
    workspace.program("from infra.greetings import Greeting\nGreeting('greeting', 'nobody')\n")

    ended = workspace.pulumi("preview", "--stack", "au", "--non-interactive")

    assert ended.code != 0
    assert "property who value {nobody} has a problem: name somebody" in ended.output


def test_an_exception_is_shown_with_the_programs_own_frames(workspace: Workspace) -> None:
    workspace.program("def fail():\n    return {}['missing']\n\nfail()\n")

    ended = workspace.pulumi("preview", "--stack", "au", "--non-interactive")

    assert ended.code != 0
    assert "KeyError: 'missing'" in ended.output
    assert "in fail" in ended.output
    # Neither the machinery above the program nor a second report of the same failure.
    assert "runpy" not in ended.output
    assert "exit code" not in ended.output


def test_a_run_error_is_shown_as_its_message_and_nothing_else(workspace: Workspace) -> None:
    workspace.program("import pulumi\nraise pulumi.RunError('region is MARS: choose AU, US or EU')\n")

    ended = workspace.pulumi("preview", "--stack", "au", "--non-interactive")

    assert ended.code != 0
    assert ended.output.count("region is MARS: choose AU, US or EU") >= 1
    assert "Traceback" not in ended.output
    assert "exit code" not in ended.output


def test_a_program_that_exits_by_itself_is_reported_with_its_code(workspace: Workspace) -> None:
    workspace.program("import sys\nprint('on standard error', file=sys.stderr)\nsys.exit(3)\n")

    ended = workspace.pulumi("preview", "--stack", "au", "--non-interactive")

    assert ended.code != 0
    assert "on standard error" in ended.output
    assert "Program exited with non-zero exit code: 3" in ended.output


def test_the_program_knows_where_it_runs(workspace: Workspace) -> None:
    (workspace.folder / "shared.py").write_text("VALUE = 'imported from beside Pulumi.yaml'\n", encoding="utf-8")
    workspace.must("config", "set", "--secret", "key", "hidden")
    workspace.program(
        textwrap.dedent("""
        import importlib.util
        import pulumi
        from pulumi.runtime import is_config_secret
        from shared import VALUE

        pulumi.export("facts", {
            "project": pulumi.get_project(),
            "stack": pulumi.get_stack(),
            "organization": pulumi.get_organization(),
            "dry_run": pulumi.runtime.is_dry_run(),
            "root": pulumi.get_root_directory(),
            "secret": is_config_secret("probe:key"),
            "value": VALUE,
            "imports_of_the_host": importlib.util.find_spec("provider_server") is not None,
        })
        """)
    )

    ended = workspace.up()

    assert ended.code == 0, ended.output
    assert workspace.outputs()["facts"] == {
        "project": "probe",
        "stack": "au",
        "organization": "organization",
        "dry_run": False,
        "root": str(workspace.folder),
        "secret": True,
        "value": "imported from beside Pulumi.yaml",
        "imports_of_the_host": False,
    }


def test_a_package_without_its_plugin_fails_without_a_download(workspace: Workspace) -> None:
    workspace.program(
        "import pulumi\n"
        "pulumi.CustomResource('absent:index:Thing', 'thing', {}, pulumi.ResourceOptions(version='1.0.0'))\n"
    )

    ended = workspace.pulumi("preview", "--stack", "au", "--non-interactive", timeout=60)

    assert ended.code != 0
    assert "absent" in ended.output


@pytest.mark.timeout(60)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_engine_that_ends_early_takes_the_program_along(workspace: Workspace, how: signal.Signals) -> None:
    lifeline = workspace.folder / "lifeline"
    os.mkfifo(lifeline)
    workspace.program(
        "import signal\n"
        f"lifeline = open({str(lifeline)!r}, 'w')\n"
        "print('running', file=lifeline, flush=True)\n"
        "signal.pause()\n"
    )
    engine = subprocess.Popen(
        ["pulumi", "up", "--stack", "au", "--yes", "--skip-preview", "--non-interactive"],
        cwd=workspace.folder,
        env=workspace.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    with lifeline.open() as end:
        assert end.readline() == "running\n"
        engine.send_signal(how)

        # The other end closes when the program is gone; if it stays, the time limit of this test ends the wait.
        assert end.read() == ""
    engine.wait()


def test_a_stack_file_for_google_cloud_serves_here_too(workspace: Workspace) -> None:
    stack_file = workspace.folder / "Pulumi.au.yaml"
    text = "secretsprovider: gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k\nencryptedkey: CiQA\n"
    stack_file.write_text(text + 'config:\n  probe:length: "12"\n', encoding="utf-8")
    workspace.program("import pulumi\npulumi.export('length', pulumi.Config().require('length'))\n")

    ended = workspace.up()

    assert ended.code == 0, ended.output
    assert workspace.outputs() == {"length": "12"}
    assert stack_file.read_text() == text + 'config:\n  probe:length: "12"\n'


def test_the_engine_lists_what_the_program_depends_on(workspace: Workspace) -> None:
    about = json.loads(workspace.must("about", "--json", "--stack", "au").stdout)

    assert about["runtime"]["language"] == "python"
    assert {dependency["name"] for dependency in about["dependencies"]} >= {"pulumi", "pulumi_random"}
