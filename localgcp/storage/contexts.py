"""Object contexts: keys and values with times of their own, by which a list can be filtered."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from localgcp.errors import InvalidArgument

MAX_CONTEXTS = 50  # "Object contexts" of Cloud Storage
TEXT = re.compile(r"[^\W_][^'\"\\/]{0,255}")
FILTER = re.compile(r'(?P<negated>-?)contexts\."(?P<key>[^"]+)"(?::\*|\s*=\s*"(?P<value>[^"]*)")')


def custom(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The contexts of an object's properties, or of a request's body."""
    return dict((properties.get("contexts") or {}).get("custom") or {})


def complete(before: Mapping[str, Any], after: dict[str, Any], now: str) -> None:
    """Check the contexts in `after`, and write when each was made and last changed. Raises InvalidArgument."""
    known, given = custom(before), custom(after)
    after.pop("contexts", None)
    if not given:
        return
    if len(given) > MAX_CONTEXTS:
        raise InvalidArgument(f"An object has at most {MAX_CONTEXTS} contexts, got {len(given)}.", reason="invalid")
    contexts: dict[str, Any] = {}
    for key, payload in given.items():
        value = payload.get("value")
        for text in (key, value):
            if not isinstance(text, str) or not TEXT.fullmatch(text):
                raise InvalidArgument(
                    f"Invalid context '{key}': key and value have 1 to 256 characters, begin with a letter or digit,"
                    " and hold no quotation marks and slashes.",
                    reason="invalid",
                )
        old = known.get(key, {})
        contexts[key] = {
            "value": value,
            "createTime": old.get("createTime", now),
            "updateTime": old["updateTime"] if old.get("value") == value else now,
        }
    after["contexts"] = {"custom": contexts}


def permissions(before: Mapping[str, Any], body: Mapping[str, Any]) -> set[str]:
    """What a caller needs to change an object's contexts as `body` asks."""
    if "contexts" not in body:
        return set()
    known = custom(before)
    if not custom(body):
        return {"storage.objects.deleteContext"} if known else set()
    return {
        "storage.objects.deleteContext"
        if payload is None
        else "storage.objects.updateContext"
        if key in known
        else "storage.objects.createContext"
        for key, payload in custom(body).items()
    }


def matcher(text: str) -> Callable[[Mapping[str, Any]], bool]:
    """The `filter` of a list: `contexts."key":*`, `contexts."key"="value"`, or either behind a `-`.

    Raises InvalidArgument.
    """
    match = FILTER.fullmatch(text.strip())
    if match is None:
        raise InvalidArgument(f"Invalid filter: {text}", reason="invalid", location="filter")
    key, value = match["key"], match["value"]

    def matches(properties: Mapping[str, Any]) -> bool:
        payload = custom(properties).get(key)
        holds = payload is not None and value in (None, payload["value"])
        return holds != bool(match["negated"])

    return matches
