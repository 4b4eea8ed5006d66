"""What the repository promises of itself: commands that are documented, dependencies that are pinned, no addresses."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = sorted((ROOT / "requirements").glob("*.txt"))


@pytest.mark.parametrize("file", REQUIREMENTS, ids=lambda file: file.name)
def test_every_requirement_is_pinned_with_hashes_and_no_address(file: Path) -> None:
    text = file.read_text()
    blocks = re.split(r"\n(?=[a-zA-Z0-9])", text.partition("\n#    make requirements\n")[2].strip())

    assert len(blocks) > 10
    assert [block.splitlines()[0] for block in blocks if "==" not in block or "--hash=sha256:" not in block] == []
    assert re.findall(r"https?://\S+|--(?:extra-)?index-url|--find-links", text) == []


def test_one_version_of_a_package_is_used_everywhere() -> None:
    pinned: dict[str, set[str]] = {}
    for file in REQUIREMENTS:
        for name, version in re.findall(r"^([a-z0-9-]+)(?:\[[^]]*\])?==(\S+)", file.read_text(), re.MULTILINE):
            pinned.setdefault(name, set()).add(version)

    assert {name: versions for name, versions in pinned.items() if len(versions) > 1} == {}


def test_every_group_that_is_declared_is_compiled() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    compiled = re.findall(r"--group (\w+)", (ROOT / "scripts" / "compile-requirements").read_text())

    assert set(compiled) == set(groups)


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    printed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert re.findall(r"^  make (\S+)", printed, re.MULTILINE) == phony.split()


def test_contributing_names_only_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)`", (ROOT / "CONTRIBUTING.md").read_text()))

    assert named
    assert named <= targets
