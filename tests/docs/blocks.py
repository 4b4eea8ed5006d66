"""The code blocks of the documentation, and a shell that runs them and compares what they print.

The word after the language says who runs a block (docs/README.md tells writers the same):

    run      tests/docs, with nothing but the clone
    served   tests/docs, with an empty region: what `python -m localgcp up` starts
    region   tests/e2e, with the Australian stack deployed: the blocks of a file in order, in one shell
    app      tests/app, with its database: the blocks of a file in order, in one namespace
    by-hand  nobody here: it needs Google Cloud, another machine or a fresh clone

In a `console` block, a line that begins with `$ ` is a command, one with `> ` continues it, and the others are what it
prints; `…` stands for any text. A command whose output is not shown only has to succeed. One that ends in `# fails`
has to fail.
"""

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MARKS = ("run", "served", "region", "app", "by-hand")
RUNNABLE = ("console", "python")
COMMAND_SECONDS = 180
_FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<info>[^`\n]*)\n(?P<text>.*?)^ *(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL
)
_END = "\x1e"


@dataclass(frozen=True, kw_only=True)
class Block:
    file: Path
    line: int
    language: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True, kw_only=True)
class Command:
    text: str
    #: None when the block does not show what it prints.
    output: str | None
    fails: bool


class BlockFailed(AssertionError):
    """A documented command did something else than its documentation says."""


def documents() -> list[Path]:
    """Every Markdown file that a reader of the repository meets."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "changelog.d").glob("*.md")])


def blocks_of(file: Path) -> list[Block]:
    text = file.read_text()
    found = []
    for match in _FENCE.finditer(text):
        language, _, mark = match["info"].strip().partition(" ")
        line = text.count("\n", 0, match.start()) + 1
        # A block in a list is indented with it.
        content = re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
        found.append(Block(file=file, line=line, language=language, mark=mark.strip(), text=content))
    return found


def all_blocks(*marks: str) -> list[Block]:
    return [block for file in documents() for block in blocks_of(file) if not marks or block.mark in marks]


def without_blocks(text: str) -> str:
    """The prose: a fence's content is no Markdown."""
    return _FENCE.sub("", text)


def commands_of(text: str) -> list[Command]:
    commands: list[list[str]] = []
    outputs: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            commands.append([line[2:]])
            outputs.append([])
        elif line.startswith("> ") and commands and not outputs[-1]:
            commands[-1].append(line[2:])
        elif commands:
            outputs[-1].append(line)
        else:
            raise BlockFailed(f"a console block begins with a command, not with {line!r}")
    return [
        Command(
            text="\n".join(words),
            output="\n".join(output).strip("\n") if any(output) else None,
            fails=words[-1].endswith("# fails"),
        )
        for words, output in zip(commands, outputs, strict=True)
    ]


def matches(expected: str, printed: str) -> bool:
    """Whether a text is what is expected, with any text where that has `…`, and without spaces at the ends of lines."""

    def lines(text: str) -> str:
        return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())

    pattern = ".*?".join(re.escape(part) for part in lines(expected).split("…"))
    return re.fullmatch(pattern, lines(printed), re.DOTALL) is not None


class Shell:
    """One bash, in which a variable that one command sets is there for the next. Close it."""

    def __init__(self, environ: Mapping[str, str], directory: Path = ROOT) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{environ.get('PATH', os.defpath)}"
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=directory,
            env={**environ, "PATH": path, "NO_COLOR": "1", "COLUMNS": "120"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, block: Block) -> None:
        """Raises BlockFailed, which shows what was expected and what was printed."""
        if block.language == "python":
            quoted = block.text.replace("'", "'\\''")
            commands = [Command(text=f"python -c '{quoted}'", output=None, fails=False)]
        else:
            commands = commands_of(block.text)
        for command in commands:
            status, printed = self.execute(command.text)
            if (status != 0) != command.fails:
                raise BlockFailed(f"{block}: `{command.text}` ended with status {status}:\n{printed}")
            if command.output is not None and not matches(command.output, printed):
                raise BlockFailed(f"{block}: `{command.text}` shall print\n{command.output}\n\nbut printed\n{printed}")

    def execute(self, command: str, timeout_seconds: float = COMMAND_SECONDS) -> tuple[int, str]:
        """The exit status and what was printed. Braces, not a subshell: what the command sets stays set."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{{ {command}\n}} </dev/null\nprintf '{_END}%d{_END}' $?\n".encode())
        stdin.flush()
        printed = b""
        deadline = time.monotonic() + timeout_seconds
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while printed.count(_END.encode()) < 2:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise BlockFailed(f"`{command}` took more than {timeout_seconds:g} s:\n{printed.decode()}")
                chunk = os.read(stdout.fileno(), 65536)
                if not chunk:
                    raise BlockFailed(f"`{command}` ended the shell:\n{printed.decode()}")
                printed += chunk
        text, status, _ = printed.decode(errors="replace").split(_END)
        return int(status), text

    def close(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
