"""JSON as RFC 8259 and I-JSON mean it: UTF-8, no duplicate names, no NaN, bounded depth and numbers.

`json.loads` accepts all of these silently, and two readers of one document would then see different values.
"""

import json
import math
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE
from json.decoder import scanstring  # type: ignore[attr-defined]  # C function, not in the stubs
from typing import Any, NoReturn

from app.validations.engines.limits import MAX_DEPTH, MAX_NUMBER_DIGITS
from app.validations.engines.results import Refused

# A text that never ends matches up to the end of the input, so that the scan stays linear.
_TEXTS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_AS_SQUARE = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_WHITESPACE = re.compile(r"[ \t\n\r]*+")

Path = tuple[str | int, ...]


class SyntaxProblem(Exception):
    """The text is not JSON. Lines and columns count from 1."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.message, self.line, self.column = message, line, column


def decode(content: bytes, field: str) -> str:
    """The text of `content`: UTF-8, a byte order mark is accepted and dropped (RFC 8259, 8.1).

    Raises: Refused.
    """
    for mark, name in (
        (BOM_UTF32_LE, "UTF-32"),
        (BOM_UTF32_BE, "UTF-32"),
        (BOM_UTF16_LE, "UTF-16"),
        (BOM_UTF16_BE, "UTF-16"),
    ):
        if content.startswith(mark):
            raise Refused(
                "bad-encoding",
                "The text is not UTF-8",
                field=field,
                detail=f"the content starts with the byte order mark of {name}",
                remedy="send JSON as UTF-8",
            )
    try:
        return content.removeprefix(BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Refused(
            "bad-encoding",
            "The text is not UTF-8",
            field=field,
            detail=f"byte {error.start} (line {line}) is 0x{content[error.start]:02x}: {error.reason}",
            remedy="send JSON as UTF-8",
        ) from None


def loads(text: str, field: str) -> Any:
    """The value of `text`.

    Raises: SyntaxProblem when it is not JSON; Refused when it is JSON that two readers could understand differently,
    or that costs too much to read.
    """
    _refuse_depth(text, field)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            _refuse_duplicate(pairs, field)
        return value

    def integer(digits: str) -> int:
        if len(digits) > MAX_NUMBER_DIGITS:
            _refuse_length(digits, field)
        return int(digits)

    try:
        return json.loads(
            text,
            object_pairs_hook=unique,
            parse_constant=lambda name: _refuse_constant(name, field),
            parse_int=integer,
            parse_float=lambda digits: _number(digits, field),
        )
    except json.JSONDecodeError as error:
        raise SyntaxProblem(error.msg, error.lineno, error.colno) from None
    except RecursionError:
        raise _too_deep(field) from None


def _refuse_depth(text: str, field: str) -> None:
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    # What remains are the brackets; each round takes the innermost level away, at the speed of bytes.replace.
    brackets = _TEXTS.sub(b"", text.encode("utf-8", "surrogatepass")).translate(_AS_SQUARE, _NOT_BRACKETS)
    for _ in range(MAX_DEPTH):
        shallower = brackets.replace(b"[]", b"")
        if len(shallower) == len(brackets):
            break
        brackets = shallower
    # Unbalanced brackets remain too, and are a matter of syntax as long as there are few.
    if brackets.count(b"[") > MAX_DEPTH or b"[]" in brackets:
        raise _too_deep(field)


def _too_deep(field: str) -> Refused:
    return Refused(
        "too-deep",
        "The JSON is nested too deeply",
        field=field,
        detail=f"arrays and objects are nested more than {MAX_DEPTH} deep",
        remedy=f"nest at most {MAX_DEPTH} levels",
    )


def _refuse_duplicate(pairs: list[tuple[str, Any]], field: str) -> NoReturn:
    seen: set[str] = set()
    twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
    raise Refused(
        "duplicate-name",
        "An object has two members of one name",
        field=field,
        detail=f"the name {twice[:100]!r} occurs twice in one object",
        remedy="keep one of the two: readers disagree about which one counts",
    )


def _refuse_constant(name: str, field: str) -> NoReturn:
    raise Refused(
        "not-a-json-number",
        "The number does not exist in JSON",
        field=field,
        detail=f"{name} is not a JSON number",
        remedy="send null or a text instead",
    )


def _number(digits: str, field: str) -> float:
    if len(digits) > MAX_NUMBER_DIGITS:
        _refuse_length(digits, field)
    value = float(digits)
    if math.isinf(value):
        raise Refused(
            "number-too-large",
            "The number is too large",
            field=field,
            detail=f"{digits[:40]} is beyond the range of a double",
            remedy="send numbers up to 1.7e308, or a text",
        )
    return value


def _refuse_length(digits: str, field: str) -> NoReturn:
    raise Refused(
        "number-too-long",
        "The number is too long",
        field=field,
        detail=f"a number has {len(digits)} digits: {digits[:20]}…",
        remedy=f"send at most {MAX_NUMBER_DIGITS} digits, or a text",
    )


def pointer(path: Path) -> str:
    """`path` as a JSON Pointer (RFC 6901)."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def positions(text: str, paths: list[Path]) -> dict[Path, tuple[int, int]]:
    """Line and column of each path's value in `text`, which must be valid JSON. A path that leads nowhere is left out.

    One pass for all paths; what lies beside them is skipped at the speed of the C scanner.
    """
    wanted: dict[str | int, Any] = {}
    for path in paths:
        node = wanted
        for step in path:
            node = node.setdefault(step, {})
        node[_HERE] = path
    offsets: dict[Path, int] = {}
    _locate(text, _WHITESPACE.match(text, 0).end(), wanted, offsets)  # type: ignore[union-attr]

    found: dict[Path, tuple[int, int]] = {}
    line, line_start, seen = 1, 0, 0
    for path, offset in sorted(offsets.items(), key=lambda item: item[1]):
        line += text.count("\n", seen, offset)
        line_start = text.rfind("\n", 0, offset) + 1
        seen = offset
        found[path] = (line, offset - line_start + 1)
    return found


_HERE = -1  # no array has it, and no object either: names are texts
_skip = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # as above


def _space(text: str, at: int) -> int:
    match = _WHITESPACE.match(text, at)
    return match.end() if match else at


def _locate(text: str, at: int, wanted: dict[str | int, Any], offsets: dict[Path, int]) -> int:
    """The offset behind the value at `at`; notes the offsets of the wanted values in it."""
    if _HERE in wanted:
        offsets[wanted[_HERE]] = at
    opening = text[at]
    if opening not in "[{" or not (wanted.keys() - {_HERE}):
        return int(_skip(text, at)[1])
    at = _space(text, at + 1)
    if text[at] in "]}":
        return at + 1
    index = 0
    while True:
        step: str | int
        if opening == "{":
            step, at = scanstring(text, at + 1, True)
            at = _space(text, _space(text, at) + 1)
        else:
            step, index = index, index + 1
        below = wanted.get(step)
        at = _space(text, int(_skip(text, at)[1]) if below is None else _locate(text, at, below, offsets))
        if text[at] != ",":
            return at + 1
        at = _space(text, at + 1)
