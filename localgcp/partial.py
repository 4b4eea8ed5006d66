"""Partial answers: the `fields` parameter, `items(name,labels/stack),nextPageToken`, or `items.name` as in a mask."""

import re
from collections.abc import Mapping
from typing import Any

from localgcp.errors import InvalidArgument

Tree = dict[str, "Tree"]
Schema = Mapping[str, Any]


def select(answer: Any, fields: str) -> Any:
    """`answer` with the selected fields only. Raises InvalidArgument when `fields` cannot be parsed."""
    return _pick(answer, _tree(fields))


def check(fields: str, schema: Schema, schemas: Mapping[str, Schema]) -> None:
    """Raises InvalidArgument when `fields` selects what an answer of that schema never has."""
    _check(_tree(fields), schema, schemas)


def _tree(fields: str) -> Tree:
    tree, rest = _parse(fields)
    if rest:
        raise _invalid(fields)
    return tree


def _check(tree: Tree, schema: Schema, schemas: Mapping[str, Schema]) -> None:
    while "$ref" in schema or schema.get("type") == "array":
        schema = schemas[schema["$ref"]] if "$ref" in schema else schema["items"]
    properties, others = schema.get("properties"), schema.get("additionalProperties")
    if properties is None and others is None:
        # Of anything, anything may be selected; of a scalar, nothing.
        if tree and schema.get("type") not in ("any", "object"):
            raise _invalid(next(iter(tree)))
        return
    for name, inner in tree.items():
        child = (properties or {}).get(name, others)
        if name == "*":
            continue
        if child is None:
            raise _invalid(name)
        _check(inner, child, schemas)


def _invalid(selection: str) -> InvalidArgument:
    return InvalidArgument(f"Invalid field selection {selection}", reason="invalidParameter", location="fields")


def _parse(text: str) -> tuple[Tree, str]:
    tree: Tree = {}
    while text and text[0] != ")":
        end = min((i for i in (text.find(c) for c in ",()") if i >= 0), default=len(text))
        path, text = re.split(r"[/.]", text[:end].strip()), text[end:]
        leaf = tree
        for name in path:
            if not name:
                raise InvalidArgument("Invalid field selection: an empty name", location="fields")
            leaf = leaf.setdefault(name, {})
        if text[:1] == "(":
            inner, text = _parse(text[1:])
            if text[:1] != ")":
                raise InvalidArgument("Invalid field selection: a parenthesis is not closed", location="fields")
            leaf.update(inner)
            text = text[1:]
        if text[:1] == ",":
            text = text[1:]
        elif text and text[0] != ")":
            raise InvalidArgument(f"Invalid field selection at {text}", location="fields")
    return tree, text


def _pick(value: Any, tree: Tree) -> Any:
    if not tree or "*" in tree:
        return value
    if isinstance(value, list):
        return [_pick(item, tree) for item in value]
    if isinstance(value, Mapping):
        return {name: _pick(item, tree[name]) for name, item in value.items() if name in tree}
    return value
