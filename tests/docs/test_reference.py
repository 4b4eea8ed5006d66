"""A command, option, setting, variable, API or target that is missing from the documentation fails here."""

import os
import re
from collections.abc import Iterator
from typing import Any, get_args

import click
import pytest
import typer.main
from pydantic.alias_generators import to_camel

from app.environment import Environment
from infra.settings import Settings, StackSettings
from localgcp import cli, endpoints
from localgcp.apis import APIS
from localgcp.faults import Fault
from localgcp.pulumi import install
from localgcp.pulumi.gcp.kinds import KINDS
from scripts.pulumi_engine import MINIMUM, VERSION
from tests.docs.blocks import ROOT

DOCS = ROOT / "docs"
LOCALGCP = (DOCS / "reference" / "localgcp.md").read_text()
SETTINGS = (DOCS / "reference" / "settings.md").read_text()
PULUMI = (DOCS / "reference" / "pulumi.md").read_text()


def section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next one of its level."""
    level = heading.partition(" ")[0]
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no heading {heading!r}"
    return found[1]


def rows(text: str) -> dict[str, list[str]]:
    """The rows of a section's tables: the names in the first cell to the other cells."""
    found = {}
    for line in re.findall(r"^\| *(`.*)\|$", text, re.MULTILINE):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)]
        for name in re.findall(r"`([^`]+)`", cells[0]):
            found[name] = cells[1:]
    return found


COMMANDS: dict[str, click.Command] = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_documented_and_no_other(name: str) -> None:
    documented = rows(section(LOCALGCP, f"### `{name}`"))
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}

    assert {name for name in documented if name.startswith("-")} == options


def test_every_command_is_documented_and_no_other() -> None:
    headings = re.findall(r"^### `(.*)`$", section(LOCALGCP, "## Commands"), re.MULTILINE)

    assert headings == list(COMMANDS)


def test_every_api_is_in_the_table() -> None:
    assert rows(section(LOCALGCP, "## APIs")).keys() == {api.name for api in APIS}


def test_every_fault_is_documented() -> None:
    kinds = get_args(Fault.model_fields["kind"].annotation)
    section_of_faults = section(LOCALGCP, "## Faults")

    assert len(kinds) >= 5
    assert rows(section_of_faults).keys() == set(kinds)
    assert [name for name in Fault.model_fields if f"`{name}`" not in section_of_faults] == []


def test_every_variable_that_env_prints_is_documented() -> None:
    printed = {
        *endpoints.environment("http://127.0.0.1:9180"),
        *("LOCALGCP_DATA_DIR", "GOOGLE_OAUTH_ACCESS_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS"),
        "PULUMI_GCP_SKIP_REGION_VALIDATION",
        *endpoints.without_proxy({}),
    }
    documented = section(LOCALGCP, "## Environment")

    assert {name for name in printed if f"`{name}`" not in documented} == set()


def test_every_variable_for_the_engine_is_documented(tmp_path: Any) -> None:
    variables = install.environment(tmp_path, environ={"PATH": os.defpath})

    assert {name for name in variables if f"`{name}`" not in PULUMI} == set()


def test_every_resource_type_of_the_provider_is_listed() -> None:
    assert set(re.findall(r"`(gcp:[^`]+)`", section(PULUMI, "### Resource types"))) == set(KINDS)


def test_the_versions_of_the_engine_are_the_ones_that_bootstrap_looks_for() -> None:
    assert f"v{VERSION}" in PULUMI
    assert f"at least {'.'.join(map(str, MINIMUM))}" in PULUMI


def settings(model: type[Settings], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        key = prefix + to_camel(name)
        if isinstance(field.default, Settings):
            # A model that changes defaults of another: what is documented is what is in force.
            yield from settings(type(field.default), f"{key}.")
        elif name != "stack":
            yield key, field


def test_every_stack_setting_is_documented_with_its_default_and_limits() -> None:
    documented = rows(section(SETTINGS, "## Stack settings"))

    assert documented.keys() == dict(settings(StackSettings)).keys()
    for key, field in settings(StackSettings):
        kind, default, allowed = documented[key][:3]
        shown = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
        assert default == ("required" if field.is_required() else f"`{shown}`" if shown else "empty"), key
        # Enum or Literal: every value; a number: its limits.
        values = [str(getattr(value, "value", value)) for value in values_of(field.annotation)]
        limits = [str(bound) for part in field.metadata for bound in limits_of(part)]
        assert [text for text in [*values, *limits] if text not in allowed] == [], key
        assert kind in {"text", "whole number", "true or false"}, key


def values_of(annotation: Any) -> list[Any]:
    if get_args(annotation):
        return list(get_args(annotation))
    return list(annotation) if hasattr(annotation, "__members__") else []


def limits_of(part: Any) -> list[int]:
    return [getattr(part, name) for name in ("ge", "le") if getattr(part, name, None) is not None]


def test_every_variable_of_the_application_is_documented_with_its_default_and_no_other() -> None:
    documented = rows(section(SETTINGS, "## The application's environment"))
    fields = {str(field.validation_alias): field for field in Environment.model_fields.values()}
    of_gunicorn = set(re.findall(r"environ\.get\(['\"](\w+)", (ROOT / "app" / "gunicorn_conf.py").read_text()))

    assert len(of_gunicorn) >= 4
    assert documented.keys() == fields.keys() | of_gunicorn
    for name, field in fields.items():
        if field.is_required():
            assert documented[name][0] == "required", name
        elif isinstance(field.default, int):
            assert documented[name][0] == f"`{field.default}`", name


def test_the_variables_that_the_program_never_sets_are_listed() -> None:
    documented = section(SETTINGS, "## The application's environment")
    (listed,) = re.findall(r"These no stack setting reaches: (.*?)\. Whoever", documented, re.DOTALL)
    program = "".join(file.read_text() for file in (ROOT / "infra").rglob("*.py"))

    assert set(re.findall(r"`(\w+)`", listed)) == {name for name in rows(documented) if name not in program}


def test_every_make_target_is_documented() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    contributing = (ROOT / "CONTRIBUTING.md").read_text()

    assert {target for target in phony.split() if f"`make {target}`" not in contributing} == set()


def test_every_variable_that_scripts_read_is_documented() -> None:
    """Variables that change what a command of ours does, wherever it reads them."""
    documented = section(SETTINGS, "## Commands on a developer's machine")

    assert rows(documented).keys() == {"LOCALGCP_DATA_DIR", "XDG_CACHE_HOME", "JOBS", "ARGS"}


def test_the_changelog_has_only_fragments_of_a_known_shape() -> None:
    """`<area>-<what>.md` that begins with a bold sentence: what changes for the operator."""
    fragments = [file for file in (ROOT / "changelog.d").glob("*.md") if file.name != "README.md"]

    assert [file.name for file in fragments if not re.fullmatch(r"[a-z]+-[a-z0-9-]+\.md", file.name)] == []
    assert [file.name for file in fragments if not re.match(r"\*\*[^*]+\.\*\* ", file.read_text())] == []
