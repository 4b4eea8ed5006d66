"""What properties a resource type has: `types.json`, as objects.

A property there carries Pulumi's facts (`type`, `required`, `replace`, `default`, `enum`, `output`, `secret`) and where
it lives in REST: `rest` is the field's name, dotted below an inner object, when it is not the property's own; null when
the API has no such field. `text` is a number that REST writes as text, `flag` a text that is a boolean in REST,
`listed` one object that is a list of one in REST, `single` the reverse, `keyed` a list that is a map by `id` or `key`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

Form = Literal["string", "integer", "number", "boolean", "object", "list", "set", "map"]

_ELEMENTS: dict[str, Form] = {"String": "string", "Int": "integer", "Float": "number"}


@dataclass(frozen=True, kw_only=True)
class Property:
    name: str
    form: Form
    #: What a list, set or map holds, when that is not an object with `properties`.
    element: Form | None = None
    properties: Mapping[str, "Property"]
    required: bool = False
    replace: bool = False
    output: bool = False
    secret: bool = False
    default: Any = None
    #: The values that the real provider takes, where it checks them itself. The empty text means unset.
    enum: tuple[str, ...] = ()
    rest: tuple[str, ...] | None = ()
    text: bool = False
    flag: bool = False
    listed: bool = False
    single: bool = False
    keyed: bool = False

    @property
    def is_block(self) -> bool:
        """Whether the value is an object, or a list or set of objects, with properties of their own."""
        return bool(self.properties) or self.form == "object"


Properties = Mapping[str, Property]


def _property(name: str, facts: Mapping[str, Any]) -> Property:
    form, _, element = facts.get("type", "string").partition("<")
    rest = facts.get("rest", name)
    return Property(
        name=name,
        form=form,
        element=_ELEMENTS[element.rstrip(">")] if element else None,
        properties=_properties(facts.get("properties", {})),
        required=facts.get("required", False),
        replace=facts.get("replace", False),
        output=facts.get("output", False),
        secret=facts.get("secret", False),
        default=facts.get("default"),
        enum=tuple(facts.get("enum", ())),
        rest=tuple(rest.split(".")) if rest is not None else None,
        text=facts.get("text", False),
        flag=facts.get("flag", False),
        listed=facts.get("listed", False),
        single=facts.get("single", False),
        keyed=facts.get("keyed", False),
    )


def _properties(facts: Mapping[str, Any]) -> Properties:
    return MappingProxyType({name: _property(name, each) for name, each in facts.items()})


@cache
def _facts() -> Mapping[str, Any]:
    text = (Path(__file__).parent / "types.json").read_text(encoding="utf-8")
    types: Mapping[str, Any] = json.loads(text)
    return types


def tokens() -> Iterator[str]:
    """Every resource type this provider knows, `gcp:storage/bucket:Bucket`."""
    return iter(_facts())


@cache
def properties_of(token: str) -> Properties:
    """The properties of a type; KeyError for a type that is not known."""
    return _properties(_facts()[token])
