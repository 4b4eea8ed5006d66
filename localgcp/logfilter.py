"""The Logging query language, as far as people and Google's libraries use it in filters of entries.

    filter      = conjunction
    conjunction = disjunction { [ "AND" ] disjunction }
    disjunction = negation { "OR" negation }
    negation    = [ "NOT" | "-" ] ( "(" filter ")" | comparison | text )
    comparison  = path operator ( value | "(" value { ( "OR" | "AND" ) value } ")" )

OR binds tighter than AND (Logging query language, "Boolean operators"). Filters of other lists (AIP-160) are written in
the same grammar; `filters` reads them with this parser.

Functions other than `log_id` are refused, never ignored: a filter that matches too much hides what it was asked for.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from localgcp.enums import SEVERITIES
from localgcp.errors import InvalidArgument
from localgcp.validation import camel

Predicate = Callable[[Mapping[str, Any]], bool]

TOKEN = re.compile(
    r"""\s*(?:--[^\n]*(?:\n\s*|$))*(?:
        (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<operator>!=|>=|<=|=~|!~|=|>|<|:)
      | (?P<paren>[()])
      | (?P<word>(?:[^\s()"=<>!:~]|"(?:[^"\\]|\\.)*")+)
      | (?P<end>$)
    )""",
    re.VERBOSE,
)

#: What stands for itself after an operator: a moment, a name with a colon.
VALUE = re.compile(r"""\s*(?P<word>[^\s()"=<>!:~][^\s()"]*)""")
DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[Tt]|$)")


@dataclass(frozen=True)
class Filter:
    """`matches` decides; the bounds are what a store can look up before it asks."""

    matches: Predicate
    earliest: datetime | None = None
    latest: datetime | None = None


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int


def parse(text: str, *, takes_text: bool = True) -> Filter:
    """A filter; without `takes_text` one of comparisons only, which looks for no bare word in all of a resource.

    Raises InvalidArgument for what is no filter, or one that is not understood here.
    """
    if not text.strip():
        return Filter(lambda _: True)
    parser = _Parser(text, takes_text=takes_text)
    predicate = parser.conjunction()
    if parser.peek() is not None:
        raise parser.unparseable()
    return Filter(predicate, parser.earliest, parser.latest)


class _Parser:
    def __init__(self, text: str, *, takes_text: bool) -> None:
        self._text = text
        self._takes_text = takes_text
        self._tokens: list[_Token] = []
        self._at = 0
        #: Only a comparison that every match must pass may narrow the look-up.
        self._depth = 0
        self.earliest: datetime | None = None
        self.latest: datetime | None = None
        position = 0
        stripped = text.rstrip()
        while position < len(stripped):
            follows_operator = bool(self._tokens) and self._tokens[-1].kind == "operator"
            match = (VALUE.match(stripped, position) if follows_operator else None) or TOKEN.match(stripped, position)
            if match is None or match.lastgroup is None:
                raise InvalidArgument(f"Unparseable filter: syntax error at column {position + 1}: {text!r}")
            if match.lastgroup == "end":
                break
            token = _Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup))
            position = match.end()
            # `-severity=ERROR` negates, `jsonPayload.x>-5` does not.
            negates = token.kind == "word" and token.text.startswith("-") and len(token.text) > 1
            if negates and not follows_operator:
                self._tokens.append(_Token("minus", "-", token.position))
                token = _Token("word", token.text[1:], token.position + 1)
            self._tokens.append(token)

    def peek(self, offset: int = 0) -> _Token | None:
        index = self._at + offset
        return self._tokens[index] if index < len(self._tokens) else None

    def unparseable(self) -> InvalidArgument:
        token = self.peek()
        where = f"token '{token.text}' at column {token.position + 1}" if token else "the end"
        return InvalidArgument(f"Unparseable filter: syntax error at {where}: {self._text!r}")

    def _next(self) -> _Token:
        token = self.peek()
        if token is None:
            raise self.unparseable()
        self._at += 1
        return token

    def _accept(self, *texts: str) -> bool:
        token = self.peek()
        if token is not None and token.kind != "string" and token.text in texts:
            self._at += 1
            return True
        return False

    def conjunction(self) -> Predicate:
        parts = [self._disjunction()]
        while True:
            token = self.peek()
            if token is None or token.text == ")":
                break
            self._accept("AND")
            parts.append(self._disjunction())
        return parts[0] if len(parts) == 1 else lambda entry: all(part(entry) for part in parts)

    def _disjunction(self) -> Predicate:
        start, bounds = self._at, (self.earliest, self.latest)
        parts = [self._negation()]
        if self._accept("OR"):
            # An alternative narrows nothing: forget the bounds it may have set, and read it again without.
            self.earliest, self.latest = bounds
            self._at = start
            self._depth += 1
            parts = [self._negation()]
            while self._accept("OR"):
                parts.append(self._negation())
            self._depth -= 1
        return parts[0] if len(parts) == 1 else lambda entry: any(part(entry) for part in parts)

    def _negation(self) -> Predicate:
        if self._accept("NOT", "-"):
            return self._negated()
        if self._accept("("):
            inner = self.conjunction()
            if not self._accept(")"):
                raise self.unparseable()
            return inner
        return self._comparison()

    def _negated(self) -> Predicate:
        self._depth += 1
        inner = self._negation()
        self._depth -= 1
        return lambda entry: not inner(entry)

    def _comparison(self) -> Predicate:
        left = self._next()
        if left.kind not in ("word", "string") or left.text in ("AND", "OR"):
            self._at -= 1
            raise self.unparseable()
        following = self.peek()
        if left.kind == "word" and following is not None and following.text == "(" and left.text.isidentifier():
            return self._function(left.text)
        if following is None or following.kind != "operator":
            if not self._takes_text:
                self._at -= 1
                raise self.unparseable()
            wanted = _unquoted(left.text).casefold()
            return lambda entry: wanted in json.dumps(entry, ensure_ascii=False).casefold()
        operator = self._next().text
        path = _path(left.text)
        if self._accept("("):
            tests = [self._test(path, operator, self._value())]
            combine: Callable[[Any], bool] = any
            while not self._accept(")"):
                if self._accept("AND"):
                    combine = all
                else:
                    self._accept("OR")
                tests.append(self._test(path, operator, self._value()))
            return lambda entry: combine(test(entry) for test in tests)
        return self._test(path, operator, self._value(), narrows=self._depth == 0)

    def _function(self, name: str) -> Predicate:
        if name != "log_id":
            raise InvalidArgument(f"the function {name}() is not understood by this region's Logging: use comparisons")
        self._accept("(")
        wanted = quote(self._value(), safe="")
        if not self._accept(")"):
            raise self.unparseable()
        return lambda entry: str(entry.get("logName", "")).endswith(f"/logs/{wanted}")

    def _value(self) -> str:
        token = self._next()
        if token.kind not in ("word", "string"):
            self._at -= 1
            raise self.unparseable()
        return _unquoted(token.text)

    def _test(self, path: tuple[str, ...], operator: str, wanted: str, *, narrows: bool = False) -> Predicate:
        if operator in ("=~", "!~"):
            try:
                pattern = re.compile(wanted)
            except re.error as error:
                raise InvalidArgument(f"Unparseable filter: bad regular expression {wanted!r}: {error}") from error
            if operator == "=~":
                return lambda entry: any(pattern.search(_text(found)) for found in _lookup(entry, path))
            return lambda entry: not any(pattern.search(_text(found)) for found in _lookup(entry, path))
        if operator == ":" and wanted == "*":
            return lambda entry: bool(_lookup(entry, path))
        if "*" in wanted and operator in ("=", "!=", ":") and not self._takes_text:
            return _wildcard(path, wanted, expected=operator != "!=")
        if operator == ":":
            return lambda entry: any(wanted.casefold() in _text(found).casefold() for found in _lookup(entry, path))
        compare = _comparator(path, wanted)
        if narrows and path == ("timestamp",):
            self._narrow(operator, _moment(wanted))
        decide = DECISIONS[operator]
        if operator == "!=":
            return lambda entry: not any(compare(found) == 0 for found in _lookup(entry, path))
        return lambda entry: any(
            (order := compare(found)) is not None and decide(order) for found in _lookup(entry, path)
        )

    def _narrow(self, operator: str, moment: datetime | None) -> None:
        if moment is None:
            return
        if operator in (">", ">=", "="):
            self.earliest = max(self.earliest or moment, moment)
        if operator in ("<", "<=", "="):
            self.latest = min(self.latest or moment, moment)


DECISIONS: dict[str, Callable[[int], bool]] = {
    "=": lambda order: order == 0,
    "!=": lambda order: order != 0,
    ">": lambda order: order > 0,
    ">=": lambda order: order >= 0,
    "<": lambda order: order < 0,
    "<=": lambda order: order <= 0,
}


def _wildcard(path: tuple[str, ...], wanted: str, *, expected: bool) -> Predicate:
    """A text with `*` for any characters (AIP-160; Logging has regular expressions instead).

    A full resource name is meant by its last word as well.
    """
    pattern = re.compile(".*".join(map(re.escape, wanted.split("*"))), re.IGNORECASE | re.DOTALL)

    def is_like(found: Any) -> bool:
        text = _text(found)
        return any(pattern.fullmatch(part) for part in (text, text.rpartition("/")[2]))

    return lambda entry: any(map(is_like, _lookup(entry, path))) is expected


def _comparator(path: tuple[str, ...], wanted: str) -> Callable[[Any], int | None]:
    """A function from a found value to its order against the wanted one; None when they cannot be compared."""
    if path == ("severity",):
        rank = int(wanted) if wanted.isdecimal() else SEVERITIES.get(wanted.upper())
        if rank is None:
            known = ", ".join(SEVERITIES)
            raise InvalidArgument(f"Unparseable filter: {wanted!r} is no severity, expected one of {known}")
        return lambda found: _order(SEVERITIES.get(str(found).upper(), 0), rank)
    if path[-1] in ("timestamp", "receiveTimestamp"):
        moment = _moment(wanted)
        if moment is None:
            raise InvalidArgument(f"Unparseable filter: {wanted!r} is no RFC 3339 timestamp")
        return lambda found: None if (at := _moment(str(found))) is None else _order(at, moment)

    number = _number(wanted)
    date = _moment(wanted) if DATE.match(wanted) else None

    def compare(found: Any) -> int | None:
        if isinstance(found, bool):
            return _order(str(found).lower(), wanted.lower())
        if number is not None and (value := _number(found)) is not None:
            return _order(value, number)
        if date is not None and DATE.match(_text(found)) and (at := _moment(found)) is not None:
            return _order(at, date)
        if isinstance(found, (dict, list)):
            return None
        return _order(_text(found).casefold(), wanted.casefold())

    return compare


def _order(left: Any, right: Any) -> int:
    return int(left > right) - int(left < right)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _unquoted(text: str) -> str:
    if not text.startswith('"'):
        return text
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def _path(text: str) -> tuple[str, ...]:
    """`labels."run.googleapis.com/x"` -> ("labels", "run.googleapis.com/x")."""
    return tuple(_unquoted(part) for part in re.findall(r'"(?:[^"\\]|\\.)*"|[^."]+', text))


def _lookup(value: Any, path: tuple[str, ...]) -> list[Any]:
    """What is found at a path. A list on the way stands for each of its elements, `create_time` for `createTime`."""
    inners = value if isinstance(value, list) else [value]
    if not path:
        return inners
    found: list[Any] = []
    for inner in inners:
        if not isinstance(inner, Mapping):
            continue
        rest = ".".join(path)
        if rest in inner:
            # Labels may have dots in their names.
            found += _lookup(inner[rest], ())
        else:
            name = path[0] if path[0] in inner else camel(path[0])
            if name in inner:
                found += _lookup(inner[name], path[1:])
    return found
