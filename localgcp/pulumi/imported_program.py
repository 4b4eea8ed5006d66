"""Python for what `pulumi import` has imported.

The engine describes imported resources in Pulumi's own configuration language and asks the language host for a program.
Only what such descriptions hold is understood: resources, their options, plain values, secrets, and references.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_TOKENS = re.compile(
    r"""
    (?P<space>\s+|\#[^\n]*|//[^\n]*)
  | (?P<text>"(?:[^"\\]|\\.)*")
  | (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
  | (?P<name>[A-Za-z_][A-Za-z0-9_-]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)
  | (?P<mark>[{}\[\]()=,:])
    """,
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_INDENT = "    "


class NotUnderstood(Exception):
    """A description holds more than an import's does."""


class Name(str):
    """A reference to something that the program defines, and not a text."""


@dataclass(frozen=True)
class Call:
    function: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Block:
    kind: str
    labels: tuple[str, ...]
    attributes: Mapping[str, Any]
    blocks: tuple[Block, ...]


def python_program(sources: Mapping[str, str]) -> str:
    """The program that registers what the sources describe."""
    blocks = [block for text in sources.values() for block in _Parser(text).blocks()]
    resources = [block for block in blocks if block.kind == "resource"]
    packages = sorted({block.labels[1].partition(":")[0] for block in resources})
    imports = ["import pulumi", *(f"import pulumi_{name.replace('-', '_')} as {_word(name)}" for name in packages)]
    return "\n\n".join(["\n".join(imports), *map(_resource, resources)]) + "\n"


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        position = 0
        while position < len(text):
            match = _TOKENS.match(text, position)
            if match is None:
                raise NotUnderstood(f"{text[position : position + 20]!r}")
            position = match.end()
            if match.lastgroup != "space":
                self._tokens.append((str(match.lastgroup), match.group()))
        self._next = 0

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._next] if self._next < len(self._tokens) else ("end", "")

    def _take(self, wanted: str = "") -> tuple[str, str]:
        token = self._peek()
        if wanted and token[1] != wanted:
            raise NotUnderstood(f"{token[1]!r} where {wanted!r} was expected")
        self._next += 1
        return token

    def blocks(self) -> list[Block]:
        found = []
        while self._peek()[0] != "end":
            found.append(self._block(self._take()[1]))
        return found

    def _block(self, kind: str) -> Block:
        labels = []
        while self._peek()[1] != "{":
            form, text = self._take()
            if form not in ("name", "text"):
                raise NotUnderstood(repr(text))
            labels.append(_text(text) if form == "text" else text)
        self._take("{")
        attributes: dict[str, Any] = {}
        inner = []
        while self._peek()[1] != "}":
            _, name = self._take()
            if self._peek()[1] == "=":
                self._take()
                attributes[name] = self._value()
            else:
                inner.append(self._block(name))
        self._take("}")
        return Block(kind, tuple(labels), attributes, tuple(inner))

    def _value(self) -> Any:
        form, text = self._take()
        if form == "text":
            return _text(text)
        if form == "number":
            return float(text) if set(text) & set(".eE") else int(text)
        if text == "[":
            return self._items("]")
        if text == "{":
            return self._object()
        if form != "name":
            raise NotUnderstood(repr(text))
        if self._peek()[1] == "(":
            self._take()
            return Call(text, tuple(self._items(")")))
        return {"true": True, "false": False, "null": None}.get(text, Name(text))

    def _items(self, end: str) -> list[Any]:
        items = []
        while self._peek()[1] != end:
            items.append(self._value())
            if self._peek()[1] == ",":
                self._take()
        self._take(end)
        return items

    def _object(self) -> dict[str, Any]:
        """Bare keys are names of properties, which Python writes in its own way; quoted ones belong to the user."""
        found = {}
        while self._peek()[1] != "}":
            form, key = self._take()
            if self._peek()[1] not in ("=", ":"):
                raise NotUnderstood(repr(key))
            self._take()
            found[_text(key) if form == "text" else python_name(key)] = self._value()
            if self._peek()[1] == ",":
                self._take()
        self._take("}")
        return found


def _text(quoted: str) -> str:
    def unescaped(match: re.Match[str]) -> str:
        if match[1]:
            return chr(int(match[1], 16))
        if match[2] not in _ESCAPES:
            raise NotUnderstood(match[0])
        return _ESCAPES[match[2]]

    text = quoted[1:-1]
    if re.search(r"(?<!\$)(?:\$\$)*\$\{", text):
        raise NotUnderstood(f"the template {quoted}")
    text = re.sub(r"\\(?:u([0-9a-fA-F]{4})|(.))", unescaped, text)
    return text.replace("$${", "${").replace("%%{", "%{")


def python_name(name: str) -> str:
    """`ipCidrRange` as Python's SDKs write it, `ip_cidr_range`."""
    return _word(re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower())


def _word(name: str) -> str:
    word = name.replace("-", "_")
    return f"{word}_" if keyword.iskeyword(word) else word


def _resource(block: Block) -> str:
    variable, token = block.labels
    package, module, type_name = token.split(":")
    folder = module.partition("/")[0]
    path = [_word(package), *([] if folder in ("index", "") else [_word(folder)]), type_name]
    attributes = dict(block.attributes)
    arguments = [_written(attributes.pop("__logicalName", variable), 1)]
    arguments += [f"{python_name(name)}={_written(value, 1)}" for name, value in attributes.items()]
    options = [option for inner in block.blocks if inner.kind == "options" for option in inner.attributes.items()]
    if options:
        values = ", ".join(f"{python_name(name)}={_option(name, value)}" for name, value in options)
        arguments.append(f"opts=pulumi.ResourceOptions({values})")
    lines = "".join(f"{_INDENT}{argument},\n" for argument in arguments)
    return f"{_word(variable)} = {'.'.join(path)}(\n{lines})"


def _option(name: str, value: Any) -> str:
    if name == "ignoreChanges":
        value = [str(item) for item in value]
    return _written(value, 1)


def _written(value: Any, depth: int) -> str:
    """A value as Python, lists and objects over several lines."""
    inner, outer = _INDENT * (depth + 1), _INDENT * depth
    match value:
        case Name():
            return ".".join(
                _word(part) if index == 0 else python_name(part) for index, part in enumerate(value.split("."))
            )
        case Call(function="secret", arguments=(argument,)):
            return f"pulumi.Output.secret({_written(argument, depth)})"
        case Call(function=function, arguments=(argument,)) if function in _ASSETS:
            return f"pulumi.{_ASSETS[function]}({_written(argument, depth)})"
        case Call():
            raise NotUnderstood(f"the function {value.function}")
        case str():
            return json.dumps(value, ensure_ascii=False)
        case dict() if value:
            items = "".join(
                f"{inner}{json.dumps(key, ensure_ascii=False)}: {_written(item, depth + 1)},\n"
                for key, item in value.items()
            )
            return f"{{\n{items}{outer}}}"
        case list() if value:
            items = "".join(f"{inner}{_written(item, depth + 1)},\n" for item in value)
            return f"[\n{items}{outer}]"
    return repr(value)


_ASSETS = {
    "fileAsset": "FileAsset",
    "stringAsset": "StringAsset",
    "remoteAsset": "RemoteAsset",
    "fileArchive": "FileArchive",
    "assetArchive": "AssetArchive",
    "remoteArchive": "RemoteArchive",
}
