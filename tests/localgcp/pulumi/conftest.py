"""A stack that the real engine deploys: offline, in a directory of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from localgcp.pulumi.install import environment
from localgcp.pulumi.provider_server import start
from tests.localgcp.pulumi.memory import MemoryProvider


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A command of the engine that has ended. `output` is everything it showed."""

    code: int
    output: str
    stdout: str


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """A project's folder with its program, and the environment of a region's engine."""

    folder: Path
    environment: dict[str, str] = field(repr=False)

    def program(self, source: str) -> None:
        """Replace the program, `infra/__main__.py`."""
        (self.folder / "infra" / "__main__.py").write_text(source, encoding="utf-8")

    def pulumi(self, *arguments: str, timeout: float = 120) -> Finished:
        """Run the engine as a user does, in the project's folder."""
        ended = subprocess.run(
            ["pulumi", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return Finished(code=ended.returncode, output=ended.stdout + ended.stderr, stdout=ended.stdout)

    def up(self, *arguments: str) -> Finished:
        return self.pulumi("up", "--stack", "au", "--yes", "--skip-preview", "--non-interactive", *arguments)

    def must(self, *arguments: str) -> Finished:
        """Run the engine; a failure is one of the test's."""
        ended = self.pulumi(*arguments)
        assert ended.code == 0, ended.output
        return ended

    def resources(self) -> dict[str, dict[str, Any]]:
        """The state as it is stored, by resource name. The engine's own (stack and providers) are left out."""
        exported = json.loads(self.must("stack", "export", "--stack", "au").stdout)
        return {
            resource["urn"].rsplit("::", 1)[-1]: resource
            for resource in exported["deployment"].get("resources", [])
            if not resource["type"].startswith("pulumi:")
        }

    def outputs(self, *arguments: str) -> dict[str, Any]:
        shown = json.loads(self.must("stack", "output", "--stack", "au", "--json", *arguments).stdout)
        assert isinstance(shown, dict)
        return shown


@pytest.fixture(scope="session")
def engine() -> Path:
    """The real engine: `VALIDIBOT_PULUMI`, else the one on PATH, else the one that bootstrap put beside Python."""
    named = os.environ.get("VALIDIBOT_PULUMI")
    found = named or shutil.which("pulumi") or shutil.which("pulumi", path=str(Path(sys.executable).parent))
    if not found:
        pytest.skip("no Pulumi engine: run scripts/bootstrap, or name one in VALIDIBOT_PULUMI")
    return Path(found)


@pytest.fixture
def memory() -> Iterator[tuple[MemoryProvider, int]]:
    """The in-memory provider, served from here, and its port."""
    provider = MemoryProvider()
    server, port = start(provider)
    yield provider, port
    server.stop(grace=None).wait()


def make_workspace(root: Path, engine: Path, **variables: str) -> Workspace:
    """A git repository with a project whose stack `au` exists and is empty."""
    folder = root / "project"
    (folder / "infra").mkdir(parents=True)
    (folder / "infra" / "__init__.py").touch()
    (folder / ".gitignore").write_text("__pycache__/\n", encoding="utf-8")
    (folder / "Pulumi.yaml").write_text("name: probe\nruntime: python\nmain: infra\n", encoding="utf-8")
    (folder / "Pulumi.au.yaml").write_text(
        '# The stack of the tests.\nconfig:\n  probe:length: "12"\n', encoding="utf-8"
    )
    commands = root / "commands"
    commands.mkdir()
    (commands / "pulumi").symlink_to(engine)
    base = {
        "PATH": os.pathsep.join([str(commands), os.environ["PATH"]]),
        "HOME": str(root / "home"),
        "NO_COLOR": "1",
        # Python takes a program of the same second and size for the one that it has compiled.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    (root / "home").mkdir()
    workspace = Workspace(folder=folder, environment={**base, **environment(root / "data", base), **variables})
    workspace.program("")
    for command in (
        ["git", "init", "--quiet"],
        ["git", "add", "."],
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "--quiet", "-m", "start"],
    ):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    workspace.must("stack", "init", "au", "--non-interactive")
    return workspace


@pytest.fixture
def workspace(tmp_path: Path, engine: Path) -> Workspace:
    return make_workspace(tmp_path, engine)


@pytest.fixture
def memory_workspace(tmp_path: Path, engine: Path, memory: tuple[MemoryProvider, int]) -> Workspace:
    """A workspace whose engine talks to the provider of the `memory` fixture."""
    return make_workspace(tmp_path, engine, PULUMI_DEBUG_PROVIDERS=f"memory:{memory[1]}")
