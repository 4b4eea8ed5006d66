"""Dependencies point one way. The arrows are contracts in pyproject.toml."""

import subprocess
import sys
from pathlib import Path

from tests.infra.inventory import ROOT

LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


def lint(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [str(LINT_IMPORTS), "--no-cache", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_no_import_goes_against_the_arrows() -> None:
    run = lint()

    assert run.returncode == 0, run.stdout
    assert "5 kept, 0 broken" in run.stdout
