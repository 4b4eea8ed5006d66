"""docs/reference/api.md says everything, and what it says is so."""

import json
import re
from argparse import ArgumentParser, _SubParsersAction
from pathlib import Path
from typing import Any

from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand

from app.validations.engines import limits

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = (ROOT / "docs/reference/api.md").read_text()


def test_every_problem_is_in_the_reference_and_no_other() -> None:
    raised: set[str] = set()
    for source in (ROOT / "app").rglob("*.py"):
        raised |= set(re.findall(r'(?:Refused|Problem|_unavailable)\(\s*"([a-z-]+)"', source.read_text()))
    raised |= set(re.findall(r'\d{3}: \("([a-z-]+)"', (ROOT / "app/web/problems.py").read_text()))
    table = REFERENCE.split("## Problems")[1].split("## Health")[0]
    rows = re.findall(r"^\| (`.*?) \| \d", table, re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)}

    assert listed == raised | {"over-budget", "internal-error"}


def test_the_limits_are_the_ones_in_force() -> None:
    table = REFERENCE.split("## Limits")[1].split("## Problems")[0]

    for number in (
        f"{limits.MAX_BODY_BYTES:,} bytes",
        f"{limits.MAX_DEPTH} levels of JSON",
        f"{limits.MAX_NUMBER_DIGITS} digits",
        f"| {limits.MAX_RULES}, of {limits.MAX_EXPRESSION_LENGTH} characters, with {limits.MAX_MACRO_DEPTH} macros",
        f"{limits.MAX_PATTERN_STEPS:,} backtracking steps",
        f"first {limits.MAX_FINDINGS}",
        f"{limits.WALL_CLOCK.seconds} seconds, {limits.MEMORY_HEADROOM_BYTES // 2**20} MiB",
    ):
        assert number in table


def test_the_example_has_the_answer_that_it_shows(submit: Any) -> None:
    request, answer = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", REFERENCE, re.DOTALL)[:2])

    actual = submit(**request).json()

    changing = {"id", "url", "created_at", "started_at", "finished_at"}
    assert actual.keys() == answer.keys()
    assert {k: v for k, v in actual.items() if k not in changing} == {
        k: v for k, v in answer.items() if k not in changing
    }


def test_every_option_of_a_command_is_in_the_reference_and_no_other() -> None:
    section = REFERENCE.split("## Environment and commands")[1]
    ours = {name: app for name, app in get_commands().items() if app.startswith("app.")}
    options = {
        option
        for name, app in ours.items()
        for option in options_of(load_command_class(app, name).create_parser("python -m app", name))
    }

    assert len(ours) == 5
    assert set(re.findall(r"--[a-z-]+", section)) == options - options_of(BaseCommand().create_parser("", ""))


def options_of(parser: ArgumentParser) -> set[str]:
    found = set()
    for action in parser._actions:
        found |= {option for option in action.option_strings if option.startswith("--")}
        if isinstance(action, _SubParsersAction):
            found |= {option for one in action.choices.values() for option in options_of(one)}
    return found
