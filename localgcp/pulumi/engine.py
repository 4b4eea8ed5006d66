"""`pulumi`, as a region's PATH has it: the real engine, given a stack file with the region's secrets provider.

`localgcp.pulumi.install` explains why. Whatever this command does not have to touch, it passes on as it is, and then it
*is* the real engine: the process is replaced. The one exception is the creation of a stack, which the engine does in a
folder of ours, because it would write the salt into the repository's stack file.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from localgcp.pulumi.install import is_ours

# Commands that read a stack's configuration and have `--config-file`. `config` is left out: it edits the user's file.
_WITH_CONFIG_FILE = frozenset(
    {"up", "update", "preview", "pre", "refresh", "destroy", "down", "dn", "import", "watch", "logs"}
)
_CREATING = frozenset({"new", "init", "create", "setup"})
# Flags of every command whose value is the next word.
_GLOBAL_WITH_VALUE = frozenset(
    {
        *("-C", "--cwd", "--color", "--tracing", "--otel-traces", "--profiling"),
        *("--memprofilerate", "-v", "--verbose", "--tracing-header"),
    }
)
# What a shell may have set for other stacks. The engine prefers a passphrase to the file that holds the region's, and
# the real provider a credential or an account to impersonate to the region's operator.
_OF_OTHER_STACKS = (
    "PULUMI_CONFIG_PASSPHRASE",
    *("GOOGLE_CREDENTIALS", "GOOGLE_CLOUD_KEYFILE_JSON", "GCLOUD_KEYFILE_JSON", "GOOGLE_IMPERSONATE_SERVICE_ACCOUNT"),
)
_SECRETS_SETTING = re.compile(r"^(encryptionsalt|secretsprovider|encryptedkey)\s*:")


@dataclass(frozen=True, kw_only=True)
class Command:
    """What of a command line matters here."""

    words: tuple[str, ...]  # the command and its arguments, without flags: ("stack", "init", "au")
    stack: str | None
    cwd: str | None
    has_config_file: bool
    saves_config: bool
    creates: bool
    selects: bool


def parse(arguments: Sequence[str]) -> Command:
    """Read a command line as far as it matters. The value of a flag that is not known counts as a word."""
    words: list[str] = []
    stack = cwd = None
    has_config_file = saves_config = select_creates = False
    selects = True
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            break
        name, has_value, value = word.partition("=")
        if word.startswith("-s") and not word.startswith("--") and len(word) > 2:
            stack = word[2:].removeprefix("=")
        elif name in ("-s", "--stack"):
            stack = value if has_value else _next(rest)
        elif name in ("-C", "--cwd"):
            cwd = value if has_value else _next(rest)
        elif name == "--config-file":
            has_config_file = True
        elif name == "--no-select":
            selects = value.lower() in ("false", "0")
        elif name in ("-c", "--config", "--create"):
            if words[:2] == ["stack", "select"]:
                select_creates = True
            elif name != "--create":
                saves_config = True
        elif word.startswith("-"):
            if name in _GLOBAL_WITH_VALUE and not has_value:
                _next(rest)
        else:
            words.append(word)
    creates = words[:1] == ["stack"] and (bool(_CREATING.intersection(words[1:2])) or select_creates)
    if creates and stack is None and len(words) > 2:
        stack = words[2]
    return Command(
        words=tuple(words),
        stack=stack,
        cwd=cwd,
        has_config_file=has_config_file,
        saves_config=saves_config,
        creates=creates,
        selects=selects,
    )


def _next(rest: list[str]) -> str | None:
    return rest.pop(0) if rest else None


@dataclass(frozen=True, kw_only=True)
class Project:
    """A Pulumi.yaml: its name, and where its stack files are."""

    name: str
    stack_files: Path

    @classmethod
    def find(cls, start: Path) -> Project | None:
        """The project that the engine would find from `start`."""
        for folder in (start, *start.parents):
            file = folder / "Pulumi.yaml"
            if file.is_file():
                text = file.read_text(encoding="utf-8")
                name = _setting(text, "name")
                return cls(name=name, stack_files=folder / (_setting(text, "stackConfigDir") or "")) if name else None
        return None


def _setting(text: str, name: str) -> str | None:
    found = re.search(rf"^{name}\s*:\s*['\"]?([^'\"#\n]+?)['\"]?\s*(#.*)?$", text, re.MULTILINE)
    return found.group(1) if found else None


def local_stack_file(home: Path, project: Project, stack: str) -> Path:
    """Write the stack's local file: the project's, with the region's own secrets settings. Returns where it is."""
    name = f"Pulumi.{stack.rsplit('/', 1)[-1]}.yaml"
    folder = home / "stacks" / project.name
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / name
    ours = [line for line in _lines(target) if line.startswith("encryptionsalt:")]
    theirs = [line for line in _lines(project.stack_files / name) if not _SECRETS_SETTING.match(line)]
    if theirs == ["{}"]:
        theirs = []  # what the engine leaves of a file whose last setting it has removed
    text = "".join(f"{line}\n" for line in [*ours, *theirs])
    if not target.exists() or target.read_text(encoding="utf-8") != text:
        temporary = target.with_name(f".{name}.{os.getpid()}")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(target)
    # For `stack init`, which has no `--config-file` and looks for a project.
    (folder / "Pulumi.yaml").write_text(f"name: {project.name}\nruntime: python\n", encoding="utf-8")
    return target


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def without_other_stacks(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables for the engine. Whoever has chosen a backend other than the region's keeps all of theirs."""
    home = environ.get("PULUMI_HOME")
    if not home or environ.get("PULUMI_BACKEND_URL") != (Path(home).absolute() / "state").as_uri():
        return dict(environ)
    return {name: value for name, value in environ.items() if name not in _OF_OTHER_STACKS}


def find_engine(environ: Mapping[str, str]) -> Path | None:
    """The real `pulumi`: the first on PATH that is not this command, else the one beside our interpreter."""
    folders = [Path(entry) for entry in environ.get("PATH", "").split(os.pathsep) if entry]
    for folder in [*folders, Path(sys.executable).parent]:
        candidate = folder / "pulumi"
        if candidate.is_file() and os.access(candidate, os.X_OK) and not is_ours(candidate):
            return candidate
    return None


def main() -> NoReturn:
    """Become the engine."""
    engine = find_engine(os.environ)
    if engine is None:
        sys.exit("pulumi: there is no Pulumi engine on PATH: run scripts/bootstrap, or install it from pulumi.com")
    arguments = sys.argv[1:]
    environment = without_other_stacks(os.environ)
    command = parse(arguments)
    home = environment.get("PULUMI_HOME")
    project = Project.find(Path(command.cwd or ".").resolve())
    if home and project:
        if command.creates and command.stack:
            _create(engine, Path(home), project, command, command.stack, arguments, environment)
        takes_file = command.words[:1] and command.words[0] in _WITH_CONFIG_FILE
        explicit = command.has_config_file or command.saves_config or "PULUMI_OPTION_CONFIG_FILE" in environment
        if takes_file and not explicit:
            stack = command.stack or environment.get("PULUMI_STACK") or _selected_stack(engine, command, environment)
            if stack:
                environment["PULUMI_OPTION_CONFIG_FILE"] = str(local_stack_file(Path(home), project, stack))
    os.execve(engine, ["pulumi", *arguments], environment)  # noqa: S606


def _selected_stack(engine: Path, command: Command, environment: Mapping[str, str]) -> str | None:
    where = ["--cwd", command.cwd] if command.cwd else []
    shown = subprocess.run(
        [engine, *where, "stack", "--show-name", "--non-interactive"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return shown.stdout.strip() or None


def _create(
    engine: Path,
    home: Path,
    project: Project,
    command: Command,
    stack: str,
    arguments: list[str],
    environment: Mapping[str, str],
) -> NoReturn:
    """Create the stack from our folder, where the salt may be written; then select it where the user is."""
    target = local_stack_file(home, project, stack)
    # The last one wins.
    created = subprocess.run([engine, *arguments, "--cwd", str(target.parent)], env=environment)
    if created.returncode == 0 and command.selects:
        where = ["--cwd", command.cwd] if command.cwd else []
        created = subprocess.run([engine, *where, "stack", "select", stack, "--non-interactive"], env=environment)
    sys.exit(created.returncode)


if __name__ == "__main__":
    main()
