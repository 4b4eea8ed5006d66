"""Field masks and merge patches: the two ways in which Google's APIs say what a PATCH changes."""

from collections.abc import Mapping
from typing import Any

from localgcp.errors import InvalidArgument
from localgcp.validation import camel


def parse_mask(mask: str, properties: Mapping[str, Any], message: str) -> list[list[str]]:
    """`a.b,display_name` -> [["a", "b"], ["displayName"]]. Raises InvalidArgument for an unknown first field."""
    paths = []
    for path in filter(None, (part.strip() for part in mask.split(","))):
        words = [camel(word) for word in path.split(".")]
        # `policy.spec` against a body that is the policy itself (Org Policy).
        if words[0] not in properties and len(words) > 1 and words[1] in properties:
            words = words[1:]
        if words[0] not in properties:
            raise InvalidArgument(f"Invalid field mask: {message} has no field '{path}'", location="updateMask")
        paths.append([words[0], *path.split(".")[-len(words) + 1 :]] if len(words) > 1 else words)
    return paths


def apply_mask(current: Mapping[str, Any], body: Mapping[str, Any], paths: list[list[str]]) -> dict[str, Any]:
    """`current` with the fields at `paths` as they are in `body`; a field that `body` lacks is cleared."""
    result: dict[str, Any] = _copied(current)
    for path in paths:
        source: Any = body
        target = result
        *parents, last = path
        for name in parents:
            source = _child(source, name)
            nested = target.get(name) if name in target else target.get(camel(name))
            if not isinstance(nested, dict):
                nested = {}
                target[_spelling(target, name)] = nested
            target = nested
        value = _child(source, last)
        name = last if not parents or (isinstance(source, Mapping) and last in source) else _spelling(target, last)
        if value is None:
            target.pop(name, None)
        else:
            target[name] = value
    return result


def merge_patch(current: Any, change: Any) -> Any:
    """RFC 7396: members are merged, null deletes, everything else replaces."""
    if not isinstance(change, Mapping):
        return change
    result = dict(current) if isinstance(current, Mapping) else {}
    for name, value in change.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


def _child(value: Any, name: str) -> Any:
    if not isinstance(value, Mapping):
        return None
    return value[name] if name in value else value.get(camel(name))


def _spelling(target: Mapping[str, Any], name: str) -> str:
    """Masks may spell a field in snake_case; what is stored is spelled as in JSON."""
    return name if name in target else camel(name)


def _copied(value: Any) -> Any:
    return {key: _copied(item) for key, item in value.items()} if isinstance(value, Mapping) else value
