"""Between Pulumi's values and REST bodies.

`planned` completes what a program wants with what the API filled in earlier, `expand` turns that into a request body,
`flatten` reads an answer, and `observed` finds out what somebody changed behind the program's back.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from localgcp.pulumi.gcp.schema import Properties, Property
from localgcp.pulumi.gcp.values import is_zero, same, same_item
from localgcp.pulumi.provider import UNKNOWN

Values = dict[str, Any]
Body = dict[str, Any]
Convert = Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """What is particular about a type's request bodies. Paths are property paths without indexes, `rules.match`."""

    #: By the path of an object: REST fields, dotted below inner ones, that are sent even when nothing is set.
    always: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    #: Output properties that go back to the API: fingerprints, names of inner parts.
    sent_outputs: frozenset[str] = frozenset()
    #: Objects below the top that are sent even when they are empty.
    keep_empty: frozenset[str] = frozenset()
    #: Zero values that are sent when the program (or the state) has them.
    keep_zero: frozenset[str] = frozenset()
    skip: frozenset[str] = frozenset()
    convert: Mapping[str, Convert] = field(default_factory=dict)
    #: Numbers that REST writes as text are sent as text; most of the provider sends them as numbers.
    text_numbers: bool = False


def join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def put(body: Body, rest: Sequence[str], value: Any) -> None:
    """Set a field at a path of REST names."""
    for name in rest[:-1]:
        body = body.setdefault(name, {})
    body[rest[-1]] = value


def dig(body: Any, rest: Iterable[str]) -> Any:
    """The field at a path of REST names; None when it is not there."""
    for name in rest:
        if not isinstance(body, Mapping):
            return None
        body = body.get(name)
    return body


def with_defaults(props: Properties, values: Mapping[str, Any]) -> Values:
    """The values completed with the defaults of the properties that are not set."""
    result = dict(values)
    for name, prop in props.items():
        value = result.get(name)
        if value is None:
            if prop.default is not None and not prop.output:
                result[name] = prop.default
        elif prop.properties and isinstance(value, Mapping):
            result[name] = with_defaults(prop.properties, value)
        elif prop.properties and isinstance(value, list):
            result[name] = [with_defaults(prop.properties, v) if isinstance(v, Mapping) else v for v in value]
    return result


def planned(props: Properties, news: Mapping[str, Any], olds: Mapping[str, Any], state: Mapping[str, Any]) -> Values:
    """What the resource shall be: the program's wish, and below it what the API had chosen by itself.

    What the program has set before and sets no longer is not carried over. What means the same as the state is
    written as in the state, so that an unchanged reference goes out as the API answered it.
    """
    plan: Values = {}
    for name, prop in props.items():
        new, old, now = news.get(name), olds.get(name), state.get(name)
        if prop.output or new is None:
            if now is not None and (prop.output or is_zero(old)):
                plan[name] = now
            continue
        plan[name] = _planned_value(prop, new, old, now)
    return plan


def _planned_value(prop: Property, new: Any, old: Any, now: Any) -> Any:
    if new is UNKNOWN or now is None:
        return new
    if prop.form == "object" and prop.properties and isinstance(new, Mapping) and isinstance(now, Mapping):
        return planned(prop.properties, new, old if isinstance(old, Mapping) else {}, now)
    if prop.properties and isinstance(new, list) and isinstance(now, list):
        olds = old if isinstance(old, list) else []
        return [_planned_item(prop, index, item, olds, now) for index, item in enumerate(new)]
    return now if same(prop, new, now) else new


def _planned_item(prop: Property, index: int, new: Any, olds: list[Any], now: list[Any]) -> Any:
    if not isinstance(new, Mapping):
        return new
    before = _counterpart(prop, index, new, now)
    if not isinstance(before, Mapping):
        return dict(new)
    old = _counterpart(prop, index, new, olds)
    return planned(prop.properties, new, old if isinstance(old, Mapping) else {}, before)


def _counterpart(prop: Property, index: int, item: Mapping[str, Any], others: list[Any]) -> Any:
    """The item of another list that is the same thing as `item`, perhaps with other settings."""
    for key in ("name", "id", "priority"):
        # An identity that the program gives, not one that the API hands out.
        if key in prop.properties and not prop.properties[key].output and item.get(key) is not None:
            return next((o for o in others if isinstance(o, Mapping) and o.get(key) == item[key]), None)
    if prop.form == "set":
        return next((other for other in others if same_item(prop, item, other, partial=True)), None)
    return others[index] if index < len(others) else None


def expand(props: Properties, values: Mapping[str, Any], encoding: Encoding, path: str = "") -> Body:
    """A request body. Zero values are left out unless the encoding says otherwise."""
    body: Body = {}
    for name, prop in props.items():
        here = join(path, name)
        if prop.rest is None or name not in values or here in encoding.skip:
            continue
        if prop.output and here not in encoding.sent_outputs:
            continue
        value = values[name]
        if value is None:
            continue
        sent = _expand_value(prop, value, encoding, here)
        # A block of the top level is sent when it is there, whatever is in it; an inner one only with content.
        keep = here in encoding.keep_zero or here in encoding.keep_empty or (not path and prop.form == "object")
        if not is_zero(sent) or (keep and sent is not None):
            put(body, prop.rest, sent)
    for rest, value in encoding.always.get(path, {}).items():
        if dig(body, rest.split(".")) is None:
            put(body, rest.split("."), deepcopy(value))
    return body


def _expand_value(prop: Property, value: Any, encoding: Encoding, path: str) -> Any:
    if convert := encoding.convert.get(path):
        return convert(value)
    if prop.properties or (prop.form == "object" and isinstance(value, Mapping)):
        if prop.form == "object":
            sent: Any = expand(prop.properties, value, encoding, path)
            return [sent] if prop.listed else sent
        items = [expand(prop.properties, item, encoding, path) for item in value]
        if prop.keyed:
            return {_key_of(item): sent for item, sent in zip(value, items, strict=True)}
        if prop.single:
            return items[0] if items else None
        return items
    if prop.text and encoding.text_numbers and not isinstance(value, str):
        return str(value) if value else None
    if prop.flag and isinstance(value, str):
        return value.lower() == "true"
    return value


def _key_of(item: Mapping[str, Any]) -> str:
    return str(item["id"] if "id" in item else item["key"])


def flatten(props: Properties, body: Mapping[str, Any], convert: Mapping[str, Convert], path: str = "") -> Values:
    """The property values that an answer shows."""
    values: Values = {}
    for name, prop in props.items():
        if prop.rest is None:
            continue
        raw = dig(body, prop.rest)
        if raw is None:
            continue
        here = join(path, name)
        values[name] = convert[here](raw) if here in convert else _flatten_value(prop, raw, convert, here)
    return values


def _flatten_value(prop: Property, raw: Any, convert: Mapping[str, Convert], path: str) -> Any:
    if prop.keyed and isinstance(raw, Mapping):
        key = "id" if "id" in prop.properties else "key"
        return [{key: name, **flatten(prop.properties, item, convert, path)} for name, item in sorted(raw.items())]
    if prop.single and isinstance(raw, Mapping):
        raw = [raw]
    if prop.listed and isinstance(raw, list):
        raw = raw[0] if raw else {}
    if prop.form == "object":
        return flatten(prop.properties, raw, convert, path) if isinstance(raw, Mapping) else raw
    if prop.form in ("list", "set"):
        if prop.properties:
            return [flatten(prop.properties, item, convert, path) for item in raw]
        return [_scalar(prop.element, item) for item in raw]
    if prop.form == "map":
        return {key: _scalar(prop.element, item) for key, item in raw.items()}
    if prop.flag and isinstance(raw, bool):
        return str(raw).upper()
    return _scalar(prop.form, raw)


def _scalar(form: str | None, raw: Any) -> Any:
    if form == "integer" and isinstance(raw, str | float):
        return int(raw)
    if form == "number" and isinstance(raw, str):
        return float(raw)
    if form == "string" and not isinstance(raw, str):
        return str(raw).lower() if isinstance(raw, bool) else str(raw)
    return raw


def observed(
    props: Properties,
    inputs: Mapping[str, Any],
    live: Mapping[str, Any],
    alike: Mapping[str, Callable[[Any, Any], bool]],
    path: str = "",
) -> Values:
    """The inputs as they would have to be written to describe what is live.

    What still means the same stays word for word as the program wrote it; what the program does not mention, the API
    may choose.
    """
    result: Values = {}
    for name, value in inputs.items():
        prop = props.get(name)
        here = join(path, name)
        if prop is None or prop.secret or (prop.rest is None and name not in live):
            result[name] = value
            continue
        now = live.get(name)
        if (alike[here](value, now) if here in alike else False) or same(prop, value, now, partial=True):
            result[name] = value
        elif prop.form == "object" and isinstance(value, Mapping) and isinstance(now, Mapping):
            result[name] = observed(prop.properties, value, now, alike, here)
        elif now is not None:
            result[name] = without_outputs(prop, now)
    return result


def without_outputs(prop: Property, value: Any) -> Any:
    """The part of a live value that a program could have written."""
    if prop.properties and isinstance(value, Mapping):
        return settable(prop.properties, value)
    if prop.properties and isinstance(value, list):
        return [settable(prop.properties, item) if isinstance(item, Mapping) else item for item in value]
    return value


def settable(props: Properties, live: Mapping[str, Any]) -> Values:
    """Live values as inputs: for an import, and for what changed behind the program's back."""
    result: Values = {}
    for name, value in live.items():
        prop = props.get(name)
        if prop is None or prop.output or not _says_something(prop, value):
            continue
        kept = without_outputs(prop, value)
        if _says_something(prop, kept):
            result[name] = kept
    for name, prop in props.items():
        if prop.required and not prop.output and prop.form in _ZEROS:
            # An API leaves out what is zero.
            result.setdefault(name, _ZEROS[prop.form])
    return result


_ZEROS: Mapping[str, Any] = {"boolean": False, "integer": 0, "number": 0}


def _says_something(prop: Property, value: Any) -> bool:
    """Whether a live value is more than the property being unset: a block that is there, a zero that is no default."""
    if prop.form == "object":
        return value is not None
    return not is_zero(value) or (value is not None and not is_zero(prop.default))


def mentioned(props: Properties, olds: Mapping[str, Any], news: Mapping[str, Any], names: Iterable[str]) -> Values:
    """The old inputs without those that nobody chose and that are not mentioned now: the API filled them in."""
    result = dict(olds)
    for name in names:
        if name not in props or name not in result:
            continue
        if news.get(name) is None:
            del result[name]
        else:
            result[name] = _mentioned_value(props[name], result[name], news[name])
    return result


def _mentioned_value(prop: Property, old: Any, new: Any) -> Any:
    if not prop.properties:
        return old
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return mentioned(prop.properties, old, new, list(old))
    if prop.form == "list" and len(old) == len(new):
        return [_mentioned_value(prop, before, after) for before, after in zip(old, new, strict=True)]
    return old
