"""The provider service under the real engine: what the engine makes of unknowns, secrets, failures and drift."""

import textwrap

import pytest

from tests.localgcp.pulumi.conftest import Workspace
from tests.localgcp.pulumi.memory import MemoryProvider

pytestmark = pytest.mark.slow

Memory = tuple[MemoryProvider, int]

THING = """
import pulumi


class Thing(pulumi.CustomResource):
    greeting: pulumi.Output[str]
    token: pulumi.Output[str]

    def __init__(self, resource_name, opts=None, **props):
        super().__init__("memory:index:Thing", resource_name, {"greeting": None, "token": None, **props}, opts)

"""


def program(body: str) -> str:
    return THING + textwrap.dedent(body)


def test_a_thing_is_made_changed_replaced_refreshed_and_deleted(memory_workspace: Workspace, memory: Memory) -> None:
    provider, _ = memory
    workspace = memory_workspace
    source = program("""
        first = Thing("first", name="one", password=pulumi.Output.secret("hunter2"), labels={"a.b": "x"})
        second = Thing("second", name=first.greeting)
    """)
    workspace.program(source)

    previewed = workspace.pulumi("preview", "--stack", "au", "--non-interactive")
    assert previewed.code == 0, previewed.output
    assert provider.things == {}

    created = workspace.up()
    assert created.code == 0, created.output
    assert provider.things == {
        "one": {"name": "one", "password": "hunter2", "labels": {"a.b": "x"}, "size": 1},
        "I am one": {"name": "I am one", "size": 1},
    }
    state = workspace.resources()["first"]
    clear = {key for key, value in state["outputs"].items() if not isinstance(value, dict) or "ciphertext" not in value}
    assert clear == {"name", "labels", "size", "greeting"}
    assert "ciphertext" in state["inputs"]["password"]

    assert workspace.pulumi("preview", "--stack", "au", "--expect-no-changes").code == 0

    workspace.program(source.replace('"x"', '"y"'))
    changed = workspace.up("--diff")
    assert changed.code == 0, changed.output
    assert "1 updated" in changed.output
    assert provider.things["one"]["labels"] == {"a.b": "y"}

    workspace.program(source.replace('"x"', '"y"').replace('"one"', '"uno"'))
    replaced = workspace.up()
    assert replaced.code == 0, replaced.output
    assert "2 replaced" in replaced.output
    assert sorted(provider.things) == ["I am uno", "uno"]

    provider.things["uno"]["size"] = 5
    provider.things.pop("I am uno")
    drifted = workspace.pulumi("refresh", "--stack", "au", "--yes", "--skip-preview")
    assert drifted.code == 0, drifted.output
    assert "1 updated" in drifted.output
    assert "1 deleted" in drifted.output

    mended = workspace.up()
    assert mended.code == 0, mended.output
    assert provider.things["uno"]["size"] == 1
    assert sorted(provider.things) == ["I am uno", "uno"]

    assert workspace.pulumi("destroy", "--stack", "au", "--yes", "--skip-preview").code == 0
    assert provider.things == {}


def test_a_partial_failure_is_kept_and_mended_by_the_next_up(memory_workspace: Workspace, memory: Memory) -> None:
    provider, _ = memory
    workspace = memory_workspace
    workspace.program(program('Thing("lame", name="limping-1")'))

    failed = workspace.up()
    assert failed.code != 0
    assert "limping-1 exists, but does not start" in failed.output
    kept = workspace.resources()["lame"]
    assert (kept["id"], kept["initErrors"]) == ("limping-1", ["limping-1 exists, but does not start"])

    provider.is_limping = False
    mended = workspace.up()
    assert mended.code == 0, mended.output
    assert "initErrors" not in workspace.resources()["lame"]
    assert list(provider.things) == ["limping-1"]


def test_a_refusal_is_shown_and_what_was_made_before_is_kept(memory_workspace: Workspace, memory: Memory) -> None:
    workspace = memory_workspace
    workspace.program(
        program("""
        good = Thing("good", name="good")
        Thing("bad", name="refused-1", opts=pulumi.ResourceOptions(depends_on=[good]))
    """)
    )

    failed = workspace.up()

    assert failed.code != 0
    assert "refused-1: the quota of this project is used up" in failed.output
    assert "unknown state" not in failed.output
    assert list(workspace.resources()) == ["good"]


def test_a_failed_check_names_the_property(memory_workspace: Workspace, memory: Memory) -> None:
    workspace = memory_workspace
    workspace.program(program('Thing("negative", name="a", size=-1)'))

    failed = workspace.pulumi("preview", "--stack", "au", "--non-interactive")

    assert failed.code != 0
    assert "size is -1: choose 0 or more" in failed.output
    assert memory[0].previewed == []


def test_a_thing_that_exists_already_can_be_imported(memory_workspace: Workspace, memory: Memory) -> None:
    provider, _ = memory
    provider.things["old"] = {"name": "old", "size": 1}
    workspace = memory_workspace
    workspace.program(program('Thing("old", name="old", opts=pulumi.ResourceOptions(import_="old"))'))

    imported = workspace.up()

    assert imported.code == 0, imported.output
    assert workspace.resources()["old"]["outputs"]["greeting"] == "I am old"


def test_a_provider_is_told_its_configuration(memory_workspace: Workspace, memory: Memory) -> None:
    workspace = memory_workspace
    workspace.must("config", "set", "memory:project", "validibot-au", "--stack", "au")
    workspace.program(program('Thing("a", name="a")'))

    assert workspace.up().code == 0

    assert memory[0].variables == {"project": "validibot-au"}
