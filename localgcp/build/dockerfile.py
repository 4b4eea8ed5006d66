"""Dockerfiles, read and carried out as far as this can be done without a container: files and configuration.

`RUN` is never executed, and nothing pretends that it was: the build log names every line that is left out. Base images
from other registries are not fetched either; the process runtime gives their place to this machine's Python.
"""

import fnmatch
import itertools
import json
import os
import posixpath
import re
import stat
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localgcp.build.archives import unpack

INSTRUCTIONS = frozenset(
    (
        *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL"),
        *("MAINTAINER", "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
    )
)
ASSIGNMENT = re.compile(r"""(?P<name>[^\s=]+)(?P<equals>=(?P<value>(?:"(?:[^"\\]|\\.)*"|'[^']*'|\\.|[^\s])*))?""")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ["/bin/sh", "-c"]


class BuildFailed(Exception):
    """The build cannot go on; the message is for its log."""


@dataclass(frozen=True, kw_only=True)
class Instruction:
    line: int
    keyword: str
    value: str
    flags: Mapping[str, str]
    #: Bodies of here-documents, by the name that announces them.
    documents: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class File:
    """What is at a path of an image: a directory, a symbolic link, or the content of `source`."""

    mode: int
    source: Path | None = None
    content: bytes | None = None
    target: str | None = None

    @property
    def is_directory(self) -> bool:
        return self.source is None and self.content is None and self.target is None


DIRECTORY = File(mode=0o755)


@dataclass(kw_only=True)
class Stage:
    """A stage while it is built: its files by absolute path, and the `config` of its image."""

    name: str
    files: dict[str, File] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    #: Whether a file may be missing because the instruction that makes it was not carried out.
    is_partial: bool = False

    @property
    def workdir(self) -> str:
        return str(self.config.get("WorkingDir", "/"))

    @property
    def environment(self) -> dict[str, str]:
        return dict(item.split("=", 1) for item in self.config.get("Env", ()))

    def set_environment(self, name: str, value: str) -> None:
        merged = self.environment | {name: value}
        self.config["Env"] = [f"{key}={text}" for key, text in merged.items()]

    def make_directory(self, path: str) -> None:
        for parent in _parents(path):
            self.files.setdefault(parent, DIRECTORY)

    def put(self, path: str, file: File) -> None:
        self.make_directory(posixpath.dirname(path))
        self.files[path] = file


def parse(text: str) -> list[Instruction]:
    """Raises BuildFailed."""
    escape = _escape(text)
    lines = enumerate(text.splitlines(), start=1)
    instructions: list[Instruction] = []
    for number, line in lines:
        if not _says_something(line):
            continue
        words = _joined(line, lines, escape).split(maxsplit=1)
        if not words:
            continue
        keyword, rest = words[0].upper(), words[1] if len(words) > 1 else ""
        if keyword not in INSTRUCTIONS:
            raise BuildFailed(f"dockerfile parse error on line {number}: unknown instruction: {keyword}")
        documents: dict[str, str] = {}
        if keyword in ("RUN", "COPY", "ADD"):
            for name in re.findall(r"<<-?[\"']?([A-Za-z_]\w*)[\"']?", rest):
                documents[name] = _document(name, lines)
        flags: dict[str, str] = {}
        while match := re.match(r"--([a-z-]+)(?:=(\S+))?\s+", rest):
            flags[match[1]] = match[2] or "true"
            rest = rest[match.end() :]
        instructions.append(Instruction(line=number, keyword=keyword, value=rest, flags=flags, documents=documents))
    if not any(instruction.keyword == "FROM" for instruction in instructions):
        raise BuildFailed("dockerfile parse error: the Dockerfile has no FROM")
    return instructions


def _escape(text: str) -> str:
    """What joins a line to the next one: directives at the top may choose it."""
    escape = "\\"
    for line in text.splitlines():
        directive = re.match(r"#\s*(\w+)\s*=\s*(\S+)\s*$", line)
        if directive is None:
            break
        if directive[1].lower() == "escape":
            escape = directive[2]
    return escape


def _says_something(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _joined(line: str, lines: Iterator[tuple[int, str]], escape: str) -> str:
    """A line with those that continue it, which comments and empty lines do not end."""
    parts = []
    while (stripped := line.rstrip()).endswith(escape):
        parts.append(stripped[: -len(escape)])
        line = next((following for _, following in lines if _says_something(following)), "")
    return "".join((*parts, stripped)).strip()


def _document(name: str, lines: Iterator[tuple[int, str]]) -> str:
    """The lines up to the one that holds the document's name alone."""
    return "".join(f"{line}\n" for _, line in itertools.takewhile(lambda each: each[1].strip() != name, lines))


def substitute(text: str, variables: Mapping[str, str]) -> str:
    """`$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:+other}`; an unknown name is empty, `\\$` stays a dollar."""

    def value(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        found = variables.get(match["name"] or match["plain"] or "", "")
        if match["operator"] == ":-":
            return found or substitute(match["word"], variables)
        if match["operator"] == ":+":
            return substitute(match["word"], variables) if found else ""
        return found

    pattern = r"(?P<escaped>\\\$)|\$\{(?P<name>\w+)(?:(?P<operator>:[-+])(?P<word>[^}]*))?\}|\$(?P<plain>\w+)"
    return re.sub(pattern, value, text)


class Ignore:
    """`.dockerignore`: patterns from the root of the context, the last one that matches decides."""

    def __init__(self, text: str) -> None:
        self._rules: list[tuple[bool, re.Pattern[str]]] = []
        for line in text.splitlines():
            pattern = line.strip()
            if not pattern or pattern.startswith("#"):
                continue
            keeps = pattern.startswith("!")
            pattern = posixpath.normpath(pattern.removeprefix("!").strip()).lstrip("/")
            self._rules.append((keeps, re.compile(_glob(pattern) + r"(?:/.*)?\Z")))

    def excludes(self, path: str) -> bool:
        excluded = False
        for keeps, pattern in self._rules:
            if pattern.match(path):
                excluded = not keeps
        return excluded


def _glob(pattern: str) -> str:
    parts = []
    index = 0
    while index < len(pattern):
        if pattern.startswith("**/", index):
            parts.append("(?:.*/)?")
            index += 3
        elif pattern.startswith("**", index):
            parts.append(".*")
            index += 2
        elif pattern[index] == "*":
            parts.append("[^/]*")
            index += 1
        elif pattern[index] == "?":
            parts.append("[^/]")
            index += 1
        elif pattern[index] == "[" and "]" in pattern[index:]:
            end = pattern.index("]", index)
            parts.append(pattern[index : end + 1].replace("[!", "[^"))
            index = end + 1
        else:
            parts.append(re.escape(pattern[index]))
            index += 1
    return "".join(parts)


class Context:
    """The files that a build may copy."""

    def __init__(self, root: Path) -> None:
        ignore_file = root / ".dockerignore"
        ignore = Ignore(ignore_file.read_text() if ignore_file.is_file() else "")
        self.files: dict[str, File] = {}
        for directory, names, files in os.walk(root):
            names.sort()
            for name in (*names, *sorted(files)):
                found = Path(directory, name)
                relative = found.relative_to(root).as_posix()
                if not ignore.excludes(relative):
                    self.files["/" + relative] = file_at(found)
        # A file that an exception keeps brings its directories with it.
        for path in list(self.files):
            for parent in _parents(posixpath.dirname(path)):
                self.files.setdefault(parent, DIRECTORY)


def file_at(path: Path) -> File:
    """Permissions are reduced to whether it is executable: nothing else of this machine belongs in an image."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return File(mode=0o777, target=str(path.readlink()))
    if stat.S_ISDIR(status.st_mode):
        return DIRECTORY
    if not stat.S_ISREG(status.st_mode):
        raise BuildFailed(f"{path.name} is neither a file, a directory nor a link: it cannot be in an image")
    return File(mode=0o755 if status.st_mode & stat.S_IXUSR else 0o644, source=path)


class Interpreter:
    """Carries a Dockerfile out. `find_base` answers a stage for an image of this region's registry, or None."""

    def __init__(
        self,
        context: Context,
        *,
        arguments: Mapping[str, str],
        scratch: Path,
        find_base: Callable[[str], Stage | None],
        log: Callable[[str], None],
    ) -> None:
        self._context = context
        self._arguments = dict(arguments)
        self._scratch = scratch
        self._find_base = find_base
        self._log = log
        self._stages: list[Stage] = []
        self._used_arguments: set[str] = set()

    def build(self, text: str, target: str | None = None) -> Stage:
        """The last stage, or the one named `target`. Raises BuildFailed."""
        instructions = parse(text)
        global_arguments: dict[str, str] = {}
        variables: dict[str, str] = {}
        for number, step in enumerate(instructions, 1):
            self._log(f"Step {number}/{len(instructions)} : {_shown(step)}")
            if step.keyword == "FROM":
                if target is not None and self._stages and self._stages[-1].name == target:
                    break
                variables = {}
                self._stages.append(self._from(step, global_arguments))
                continue
            if not self._stages:
                if step.keyword != "ARG":
                    raise BuildFailed(f"line {step.line}: {step.keyword} before the first FROM")
                self._argument(step, global_arguments, global_arguments)
                continue
            stage = self._stages[-1]
            if step.keyword == "ARG":
                self._argument(step, variables, global_arguments)
            else:
                self._carry_out(step, stage, variables)
            stage.history.append(_shown(step))
        stage = self._stages[-1]
        if target is not None and target not in (stage.name, str(len(self._stages) - 1)):
            raise BuildFailed(f"target stage {target!r} could not be found")
        if unused := sorted(set(self._arguments) - self._used_arguments):
            self._log(f"[Warning] One or more build-args {unused} were not consumed")
        return stage

    def _from(self, step: Instruction, variables: Mapping[str, str]) -> Stage:
        match = re.fullmatch(r"(\S+)(?:\s+[aA][sS]\s+(\S+))?", substitute(step.value, variables))
        if match is None:
            raise BuildFailed(f"line {step.line}: FROM {step.value} is not `FROM <image> [AS <name>]`")
        reference, name = match[1], (match[2] or str(len(self._stages))).lower()
        earlier = next((stage for stage in self._stages if stage.name == reference.lower()), None)
        base = earlier or self._find_base(reference)
        if base is not None:
            copy = json.loads(json.dumps(base.config))
            return Stage(
                name=name, files=dict(base.files), config=copy, history=list(base.history), is_partial=base.is_partial
            )
        stage = Stage(name=name, files={"/": DIRECTORY}, history=[f"FROM {reference}"])
        if reference != "scratch":
            stage.is_partial = True
            self._log(
                f" ---> {reference} is not fetched: the process runtime has no base images. Programs such as python"
                " come from the environment that localgcp itself runs in."
            )
        return stage

    def _argument(self, step: Instruction, variables: dict[str, str], global_arguments: Mapping[str, str]) -> None:
        for name, default in _assignments(step.value, variables, allow_bare=True):
            self._used_arguments.add(name)
            if name in self._arguments:
                variables[name] = self._arguments[name]
            elif default is not None:
                variables[name] = default
            elif name in global_arguments:
                variables[name] = global_arguments[name]

    def _carry_out(self, step: Instruction, stage: Stage, arguments: Mapping[str, str]) -> None:
        # A base image that is not fetched leaves PATH as every Linux image has it.
        variables = {"PATH": SYSTEM_PATH, **arguments, **stage.environment}
        value = step.value
        match step.keyword:
            case "RUN":
                stage.is_partial = True
                self._log(" ---> not executed: the process runtime carries out no RUN")
            case "ENV":
                for name, text in _assignments(value, variables, allow_bare=False):
                    stage.set_environment(name, text or "")
            case "LABEL":
                labels = {name: text or "" for name, text in _assignments(value, variables, allow_bare=False)}
                stage.config["Labels"] = stage.config.get("Labels", {}) | labels
            case "WORKDIR":
                stage.config["WorkingDir"] = _absolute(substitute(value, variables), stage.workdir)
                stage.make_directory(stage.workdir)
            case "USER":
                stage.config["User"] = substitute(value, variables)
                self._log(" ---> kept, not enforced: instances run as the account that runs localgcp")
            case "EXPOSE":
                ports = (port if "/" in port else f"{port}/tcp" for port in substitute(value, variables).split())
                stage.config["ExposedPorts"] = stage.config.get("ExposedPorts", {}) | {port: {} for port in ports}
            case "CMD":
                stage.config["Cmd"] = _command(value, stage)
            case "ENTRYPOINT":
                stage.config["Entrypoint"] = _command(value, stage)
                # An entrypoint resets the command that came from a base image: Dockerfile reference, "CMD".
                if "CMD" not in {shown.partition(" ")[0] for shown in stage.history}:
                    stage.config.pop("Cmd", None)
            case "SHELL":
                stage.config["Shell"] = _json_list(value) or DEFAULT_SHELL
            case "STOPSIGNAL":
                stage.config["StopSignal"] = substitute(value, variables)
            case "COPY" | "ADD":
                self._copy(step, stage, variables)
            case "HEALTHCHECK":
                self._log(" ---> ignored: Cloud Run has probes of its own and does not read it")
            case _:
                self._log(f" ---> ignored: {step.keyword} has no meaning on Cloud Run")

    def _copy(self, step: Instruction, stage: Stage, variables: Mapping[str, str]) -> None:
        unknown = set(step.flags) - {"from", "chown", "chmod", "link"}
        if unknown:
            raise BuildFailed(f"line {step.line}: {step.keyword} --{sorted(unknown)[0]} is not understood here")
        if "chown" in step.flags:
            self._log(" ---> --chown ignored: every file of an image belongs to the account that runs localgcp")
        words = _json_list(step.value) or re.findall(r"(?:\\ |\S)+", step.value)
        words = [substitute(word, variables).replace("\\ ", " ") for word in words]
        if len(words) < 2:
            raise BuildFailed(f"line {step.line}: {step.keyword} requires at least two arguments")
        *sources, destination = words
        files, is_partial, origin = self._source_files(step, stage)
        mode = int(step.flags["chmod"], 8) if re.fullmatch("0?[0-7]{3}", step.flags.get("chmod", "")) else None
        is_directory = destination.endswith(("/", "/.")) or destination in (".", "") or len(sources) > 1
        base = _absolute(destination, stage.workdir)
        is_directory = is_directory or (base in stage.files and stage.files[base].is_directory)
        for source in sources:
            if (document := re.fullmatch(r"<<-?[\"']?(\w+)[\"']?", source)) is not None:
                content = step.documents[document[1]].encode()
                path = posixpath.join(base, document[1]) if is_directory else base
                stage.put(path, File(mode=mode or 0o644, content=content))
                continue
            if re.match(r"https?://|git@", source):
                raise BuildFailed(f"line {step.line}: ADD {source}: a build here reaches no other host")
            found = list(_matching(files, source))
            if not found and is_partial:
                self._log(f" ---> not copied: {source} is not in {origin}, of which not every step was carried out")
                continue
            if not found:
                raise BuildFailed(f'line {step.line}: failed to compute cache key: "{source}": not found in {origin}')
            for path in found:
                file = files[path]
                if step.keyword == "ADD" and file.source is not None and tarfile.is_tarfile(file.source):
                    self._unpack(file.source, stage, base)
                elif file.is_directory:
                    stage.make_directory(base)
                    _copy_tree(files, path, stage, base, mode)
                else:
                    target = posixpath.join(base, posixpath.basename(path)) if is_directory else base
                    stage.put(target, _with_mode(file, mode))

    def _source_files(self, step: Instruction, stage: Stage) -> tuple[Mapping[str, File], bool, str]:
        name = step.flags.get("from")
        if name is None:
            return self._context.files, False, "the build context"
        for number, earlier in enumerate(self._stages[:-1]):
            if name.lower() in (earlier.name, str(number)):
                return earlier.files, earlier.is_partial, f"stage {name}"
        base = self._find_base(name)
        if base is not None:
            return base.files, base.is_partial, name
        # Another registry's image, typically a tool: what it holds is as absent as what RUN would have made.
        return {}, True, f"{name}, which is not fetched"

    def _unpack(self, archive: Path, stage: Stage, base: str) -> None:
        folder = self._scratch / f"unpacked-{len(list(self._scratch.iterdir()))}"
        folder.mkdir()
        try:
            unpack(archive, folder)
        except (tarfile.TarError, OSError) as error:
            raise BuildFailed(f"ADD {archive.name}: {error}") from error
        unpacked: dict[str, File] = {"/": DIRECTORY}
        for directory, names, files in os.walk(folder):
            for name in (*names, *files):
                path = Path(directory, name)
                unpacked["/" + path.relative_to(folder).as_posix()] = file_at(path)
        _copy_tree(unpacked, "/", stage, base, None)


def _shown(step: Instruction) -> str:
    flags = "".join(f"--{name}={value} " for name, value in step.flags.items())
    return f"{step.keyword} {flags}{step.value}".strip()


def _parents(path: str) -> Iterator[str]:
    """`/a/b` -> `/`, `/a`, `/a/b`."""
    yield "/"
    parts = [part for part in path.split("/") if part]
    for end in range(1, len(parts) + 1):
        yield "/" + "/".join(parts[:end])


def _absolute(path: str, workdir: str) -> str:
    return "/" + posixpath.normpath(posixpath.join(workdir, path)).lstrip("/") if path else workdir


def _matching(files: Mapping[str, File], source: str) -> Iterator[str]:
    path = "/" + posixpath.normpath("/" + source).lstrip("/")
    if not re.search(r"[*?\[]", path):
        if path in files or path == "/":
            yield path
        return
    depth = path.count("/")
    for name in sorted(files):
        if name.count("/") == depth and fnmatch.fnmatchcase(name, path):
            yield name


def _copy_tree(files: Mapping[str, File], root: str, stage: Stage, base: str, mode: int | None) -> None:
    prefix = root.rstrip("/") + "/"
    for path, file in files.items():
        if path.startswith(prefix) and path != "/":
            target = posixpath.join(base, path[len(prefix) :])
            if file.is_directory:
                stage.make_directory(target)
            else:
                stage.put(target, _with_mode(file, mode))


def _with_mode(file: File, mode: int | None) -> File:
    return file if mode is None else File(mode=mode, source=file.source, content=file.content, target=file.target)


def _json_list(value: str) -> list[str] | None:
    if not value.startswith("["):
        return None
    try:
        words = json.loads(value)
    except ValueError:
        return None
    return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None


def _command(value: str, stage: Stage) -> list[str]:
    words = _json_list(value)
    return words if words is not None else [*stage.config.get("Shell", DEFAULT_SHELL), value]


def _assignments(value: str, variables: Mapping[str, str], *, allow_bare: bool) -> Sequence[tuple[str, str | None]]:
    """`A=1 B="two words"`, the old `A one value`, and for ARG a bare `A`."""
    if not allow_bare and not re.match(r"[^\s=]+=", value):
        name, _, rest = value.partition(" ")
        return [(name, substitute(rest.strip(), variables))]
    result: list[tuple[str, str | None]] = []
    for match in ASSIGNMENT.finditer(value):
        if match["equals"] is None:
            result.append((match["name"], None))
            continue
        text = ""
        for piece in re.finditer(r""""((?:[^"\\]|\\.)*)"|'([^']*)'|((?:\\.|[^\s"'])+)""", match["value"]):
            if piece[2] is not None:
                text += piece[2]
            else:
                raw = piece[1] if piece[1] is not None else piece[3]
                text += re.sub(r"\\([^$])", r"\1", substitute(raw, variables))
        result.append((match["name"].strip("\"'"), text))
    return result
