"""When two values mean the same, and other questions about plain values."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from localgcp.pulumi.gcp.schema import Properties, Property
from localgcp.pulumi.provider import (
    UNKNOWN,
    AssetArchive,
    ElidedArchive,
    ElidedAsset,
    FileArchive,
    FileAsset,
    RemoteArchive,
    RemoteAsset,
    Secret,
    StringAsset,
)

_DURATION = re.compile(r"^-?\d+(\.\d+)?s$")
_TIMESTAMP = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")
_LINK = re.compile(r"^(?:https?:)?//[^/]+/(?:(?:compute|storage|dns|sql|sqladmin)/)?(?:v\d+[a-z0-9]*/|beta/)?")
_PROJECT = re.compile(r"^projects/([^/]+)/")

_Source = (
    *(FileAsset, StringAsset, RemoteAsset, ElidedAsset),
    *(FileArchive, AssetArchive, RemoteArchive, ElidedArchive),
)


def is_zero(value: Any) -> bool:
    """Whether a value says nothing: what an unset property and its zero value have in common."""
    return value is None or (value is not UNKNOWN and not isinstance(value, Secret) and value in (False, 0, "", [], {}))


def relative_link(value: str) -> str:
    """`projects/p/global/networks/n` of a full link to it; other texts as they are."""
    return _LINK.sub("", value, count=1)


def is_link(value: str) -> bool:
    return value.startswith(("https://", "http://", "//", "projects/"))


def _same_link(a: str, b: str) -> bool:
    if not is_link(a) and not is_link(b):
        return False
    short, long = sorted((relative_link(a), relative_link(b)), key=len)
    if short == long:
        return True
    if "/" not in short and short:
        return long.startswith("projects/") and long.rpartition("/")[2] == short
    mine, theirs = _PROJECT.match(short), _PROJECT.match(long)
    if mine and theirs and (mine[1].isdigit() != theirs[1].isdigit()):
        # One side names the project by its number, the other by its id.
        return short[mine.end() :] == long[theirs.end() :]
    # A name that begins below the project: `global/networks/n`, `zones/z`.
    return short.startswith(("global/", "regions/", "zones/")) and long.endswith("/" + short)


def _same_text(a: str, b: str) -> bool:
    if a == b:
        return True
    if _DURATION.match(a) and _DURATION.match(b):
        return float(a[:-1]) == float(b[:-1])
    if _TIMESTAMP.match(a) and _TIMESTAMP.match(b):
        return _moment(a) == _moment(b)
    return _same_link(a, b)


def _moment(text: str) -> datetime:
    # Google answers nanoseconds; datetime knows microseconds.
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text).replace("Z", "+00:00"))


def same_scalar(a: Any, b: Any) -> bool:
    if isinstance(a, str) and isinstance(b, str):
        return _same_text(a, b)
    if isinstance(a, _Source) and isinstance(b, _Source):
        return a.hash == b.hash if a.hash and b.hash else a == b
    if isinstance(a, bool) or isinstance(b, bool):
        return str(a).lower() == str(b).lower()
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b
    if isinstance(a, str | int | float) and isinstance(b, str | int | float):
        try:
            return float(a) == float(b)
        except ValueError:
            return False
    return bool(a == b)


def same(prop: Property, wanted: Any, actual: Any, *, partial: bool = False) -> bool:
    """Whether two values of a property mean the same.

    With `partial`, an object on the `actual` side may hold more than `wanted` mentions: what the API filled in.
    """
    if wanted is UNKNOWN or actual is UNKNOWN:
        return wanted is actual
    if is_zero(wanted) and is_zero(actual):
        return True
    if prop.form == "object" and isinstance(wanted, Mapping) and isinstance(actual, Mapping):
        return same_object(prop.properties, wanted, actual, partial=partial)
    if prop.form == "map" and isinstance(wanted, Mapping) and isinstance(actual, Mapping):
        return wanted.keys() == actual.keys() and all(same_scalar(wanted[key], actual[key]) for key in wanted)
    if prop.form in ("list", "set") and isinstance(wanted, Sequence) and isinstance(actual, Sequence):
        return _same_items(prop, wanted, actual, partial=partial)
    if is_zero(wanted) != is_zero(actual) and prop.form in ("object", "list", "set", "map"):
        return False
    return same_scalar(wanted, actual)


def same_object(props: Properties, wanted: Mapping[str, Any], actual: Mapping[str, Any], *, partial: bool) -> bool:
    names = wanted.keys() if partial else wanted.keys() | actual.keys()
    for name in names:
        prop = props.get(name)
        if prop is None or prop.output:
            continue
        mine = wanted.get(name)
        theirs = actual.get(name)
        if is_zero(mine) and prop.default is not None:
            mine = prop.default
        if is_zero(theirs) and prop.default is not None:
            theirs = prop.default
        if not same(prop, mine, theirs, partial=partial):
            return False
    return True


def same_item(prop: Property, a: Any, b: Any, *, partial: bool) -> bool:
    """Whether two items of a list or set mean the same."""
    if a is UNKNOWN or b is UNKNOWN:
        return a is b
    if prop.properties and isinstance(a, Mapping) and isinstance(b, Mapping):
        return same_object(prop.properties, a, b, partial=partial)
    return same_scalar(a, b)


def _same_items(prop: Property, wanted: Sequence[Any], actual: Sequence[Any], *, partial: bool) -> bool:
    if len(wanted) != len(actual):
        return False
    if prop.form == "list":
        return all(same_item(prop, a, b, partial=partial) for a, b in zip(wanted, actual, strict=True))
    rest = list(actual)
    for item in wanted:
        for index, candidate in enumerate(rest):
            if same_item(prop, item, candidate, partial=partial):
                del rest[index]
                break
        else:
            return False
    return True


def same_json(a: Any, b: Any) -> bool:
    """Whether two JSON texts mean the same, the second one possibly with what the API added."""
    try:
        return _covered(json.loads(a), json.loads(b))
    except (TypeError, ValueError):
        return bool(a == b)


def _covered(wanted: Any, actual: Any) -> bool:
    if isinstance(wanted, dict) and isinstance(actual, dict):
        return all(_covered(value, actual.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(actual, list):
        return len(wanted) == len(actual) and all(map(_covered, wanted, actual))
    return bool(wanted == actual) or (is_zero(wanted) and actual is None)


def reveal(value: Any) -> Any:
    """The value without any `Secret` around or in it."""
    if isinstance(value, Secret):
        return reveal(value.value)
    if isinstance(value, Mapping):
        return {key: reveal(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [reveal(item) for item in value]
    return value
