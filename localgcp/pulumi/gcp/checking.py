"""Whether a program's inputs can be meant: types, unknown names, what is missing. Nothing here asks an API."""

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from localgcp.pulumi.gcp.kind import Kind
from localgcp.pulumi.gcp.mapping import Values
from localgcp.pulumi.gcp.schema import Properties, Property
from localgcp.pulumi.provider import UNKNOWN, CheckFailure, property_path

#: The names of the inputs that the provider filled in, as the real provider keeps them in the state.
DEFAULTS = "__defaults"
_SUFFIX_DIGITS = 7

Path = tuple[str | int, ...]
_ARTICLES = {
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "an object",
    "list": "a list",
    "set": "a list",
    "map": "an object of strings",
}


class Failures(list[CheckFailure]):
    def add(self, path: Path, reason: str) -> None:
        self.append(CheckFailure(property_path(*path), reason))


def checked(
    kind: Kind, olds: Mapping[str, Any] | None, news: Mapping[str, Any], seed: bytes, name: str
) -> tuple[Values, Failures]:
    """The inputs, typed and completed, and what is wrong with them."""
    failures = Failures()
    inputs = _checked_object(kind.properties, news, (), failures)
    defaults = _complete(kind, inputs, olds or {}, seed, name)
    for prop in kind.properties.values():
        if prop.required and inputs.get(prop.name) is None:
            failures.add((prop.name,), "is required and missing")
    if not failures:
        for path, reason in kind.check(inputs):
            failures.add((path,), reason)
    inputs[DEFAULTS] = sorted(defaults)
    return inputs, failures


def _complete(kind: Kind, inputs: Values, olds: Mapping[str, Any], seed: bytes, name: str) -> set[str]:
    """Fill in defaults and the name; the names of what was filled in."""
    defaults: set[str] = set()
    for prop in kind.properties.values():
        if prop.default is not None and not prop.output and inputs.get(prop.name) is None:
            inputs[prop.name] = prop.default
            defaults.add(prop.name)
    if kind.auto_name and kind.name in kind.properties and inputs.get(kind.name) is None:
        earlier = olds.get(kind.name) if kind.name in olds.get(DEFAULTS, ()) else None
        inputs[kind.name] = earlier or made_up_name(kind, name, seed)
        defaults.add(kind.name)
    return defaults


def made_up_name(kind: Kind, name: str, seed: bytes) -> str:
    """A resource's name in the program and a random suffix, as the real provider makes it."""
    digest = hashlib.sha256(seed or name.encode()).hexdigest()
    start = name[: kind.longest_name - _SUFFIX_DIGITS - 1].lower()
    return f"{start}-{digest[:_SUFFIX_DIGITS]}".replace("-", kind.name_joint)


def _checked_object(props: Properties, values: Mapping[str, Any], path: Path, failures: Failures) -> Values:
    result: Values = {}
    for name, value in values.items():
        if name.startswith("__"):
            continue
        prop = props.get(name)
        if prop is None:
            failures.add((*path, name), f"is unknown{_suggestion(name, props)}")
        elif value is not None:
            if prop.output and not path:
                failures.add((*path, name), "cannot be set: the API chooses it")
                continue
            result[name] = _checked(prop, value, (*path, name), failures)
    if path:
        for prop in props.values():
            if prop.required and not prop.output and result.get(prop.name) is None:
                failures.add((*path, prop.name), "is required and missing")
    return result


def _suggestion(name: str, props: Properties) -> str:
    settable = [prop.name for prop in props.values() if not prop.output]
    camel = name.split("_")[0] + "".join(word.title() for word in name.split("_")[1:])
    close = [camel] if camel in settable else difflib.get_close_matches(name, settable, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _checked(prop: Property, value: Any, path: Path, failures: Failures) -> Any:
    if value is UNKNOWN:
        return value
    if prop.form == "object":
        if not isinstance(value, Mapping):
            return _wrong(prop.form, value, path, failures)
        return _checked_object(prop.properties, value, path, failures) if prop.properties else dict(value)
    if prop.form in ("list", "set"):
        if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
            return _wrong(prop.form, value, path, failures)
        return [_checked_item(prop, item, (*path, index), failures) for index, item in enumerate(value)]
    if prop.form == "map":
        if not isinstance(value, Mapping):
            return _wrong(prop.form, value, path, failures)
        return {key: _scalar(prop.element or "string", item, (*path, key), failures) for key, item in value.items()}
    if prop.name == "source" and not isinstance(value, str):
        return value  # an asset
    scalar = _scalar(prop.form, value, path, failures)
    if prop.enum and isinstance(scalar, str) and scalar and scalar not in prop.enum:
        failures.add(path, f"must be one of {', '.join(prop.enum)}, not {scalar!r}")
    return scalar


def _checked_item(prop: Property, item: Any, path: Path, failures: Failures) -> Any:
    if item is UNKNOWN:
        return item
    if prop.properties:
        if not isinstance(item, Mapping):
            return _wrong("object", item, path, failures)
        return _checked_object(prop.properties, item, path, failures)
    if item is None:
        failures.add(path, "is null")
        return item
    return _scalar(prop.element or "string", item, path, failures)


def _scalar(form: str, value: Any, path: Path, failures: Failures) -> Any:
    """A value of a simple type; what loses nothing is converted, as the real provider does."""
    if value is UNKNOWN or value is None:
        return value
    if form == "string":
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, str):
            return value
        if isinstance(value, int | float):
            return str(int(value)) if float(value).is_integer() else str(value)
    elif form == "boolean":
        if isinstance(value, bool):
            return value
        if value in ("true", "false"):
            return value == "true"
    elif form in ("integer", "number") and not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError):
            return _wrong(form, value, path, failures)
        if number.is_integer():
            return int(number)
        if form == "number":
            return number
    return _wrong(form, value, path, failures)


def _wrong(form: str, value: Any, path: Path, failures: Failures) -> Any:
    shown = repr(value) if isinstance(value, str | int | float | bool) else f"a {type(value).__name__}"
    failures.add(path, f"must be {_ARTICLES[form]}, not {shown[:80]}")
    return value
