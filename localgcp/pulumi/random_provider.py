"""The `random` package, offline: passwords, strings, ids, bytes, UUIDs and integers that live in Pulumi's state.

As with the real provider, a value is drawn once; any change of an input, `keepers` included, draws another by replacing
the resource. Values come from the operating system's cryptographic generator.

Deliberately absent: `RandomPet` and `RandomShuffle`, `seed` (the real one's sequence is Go's, and a seeded value is no
secret), and the output `bcryptHash` of `RandomPassword`.
"""

from __future__ import annotations

import base64
import secrets
import string
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from localgcp.pulumi.provider import (
    UNKNOWN,
    BaseProvider,
    Change,
    CheckFailure,
    Diff,
    Inputs,
    Outputs,
    ProviderError,
    ReadResult,
    Secret,
    property_path,
)
from localgcp.pulumi.versions import sdk_version

_SPECIAL: Final = "!@#$%&*()-_=+[]{}<>:?"
_LONGEST: Final = 65536

# A property's type, or the type and the value it has when it is not given.
_STRING_PROPERTIES: Final[dict[str, tuple[type, Any]]] = {
    "length": (int, None),
    "lower": (bool, True),
    "upper": (bool, True),
    "numeric": (bool, True),
    "number": (bool, True),
    "special": (bool, True),
    "minLower": (int, 0),
    "minUpper": (int, 0),
    "minNumeric": (int, 0),
    "minSpecial": (int, 0),
    "overrideSpecial": (str, None),
}


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """A resource type: its properties, and how its id and drawn outputs come about."""

    properties: Mapping[str, tuple[type, Any]]
    draw: Callable[[Inputs], tuple[str, Outputs]]
    required: Sequence[str] = ()
    drawn: Sequence[str] = ()
    is_secret: bool = False
    validate: Callable[[Inputs], list[CheckFailure]] = field(default=lambda inputs: [])
    adopt: Callable[[str], tuple[Inputs, Outputs]] | None = None


class RandomProvider(BaseProvider):
    """Keeps nothing: what it drew is in the state, and reading it back is reading the state."""

    name = "random"

    def __init__(self) -> None:
        self.version = sdk_version("pulumi-random")

    def check(
        self, type: str, urn: str, *, olds: Inputs | None, news: Inputs, random_seed: bytes
    ) -> tuple[Inputs, list[CheckFailure]]:
        kind = _kind(type)
        failures: list[CheckFailure] = []
        for name, value in news.items():
            if name == "keepers":
                if value is not UNKNOWN and value is not None and not isinstance(value, Mapping):
                    failures.append(CheckFailure(name, "expected a map of strings"))
            elif name not in kind.properties:
                known = ", ".join(sorted([*kind.properties, "keepers"]))
                failures.append(CheckFailure(name, f"{type} has no property {name!r}; it has {known}"))
            elif value is not UNKNOWN and value is not None and not _is_a(value, kind.properties[name][0]):
                expected = kind.properties[name][0].__name__
                failures.append(CheckFailure(name, f"expected {expected}, found {value.__class__.__name__}"))
        failures += [
            CheckFailure(name, f"{type} needs {name!r}") for name in kind.required if news.get(name, None) is None
        ]
        if not failures:
            failures = kind.validate(news)
        return news, failures

    def diff(
        self,
        type: str,
        urn: str,
        id: str,
        *,
        old_inputs: Inputs,
        old_outputs: Outputs,
        news: Inputs,
    ) -> Diff:
        kind = _kind(type)
        changes: dict[str, Change] = {}
        for name, (_, default) in kind.properties.items():
            if _given(old_inputs, name, default) != _given(news, name, default):
                changes[name] = "update"
        old_keepers, new_keepers = old_inputs.get("keepers"), news.get("keepers")
        if new_keepers is UNKNOWN or old_keepers is UNKNOWN:
            changes["keepers"] = "update"
        else:
            changes.update(_map_changes(old_keepers or {}, new_keepers or {}))
        return Diff(changes=changes, replaces=tuple(changes))

    def create(
        self, type: str, urn: str, *, inputs: Inputs, preview: bool, timeout_seconds: float | None
    ) -> tuple[str, Outputs]:
        kind = _kind(type)
        settled = {
            name: default if inputs.get(name, None) is None else inputs[name]
            for name, (_, default) in kind.properties.items()
        }
        id, drawn = ("", dict.fromkeys(kind.drawn, UNKNOWN)) if preview else kind.draw(settled)
        outputs = {**{name: value for name, value in settled.items() if value is not None}}
        if inputs.get("keepers", None) is not None:
            outputs["keepers"] = inputs["keepers"]
        return id, {**outputs, **_marked(kind, drawn)}

    def read(
        self, type: str, urn: str, id: str, *, inputs: Inputs | None, outputs: Outputs | None
    ) -> ReadResult | None:
        kind = _kind(type)
        if inputs is not None and outputs is not None:
            drawn = {name: outputs[name] for name in kind.drawn if name in outputs}
            return ReadResult(id=id, inputs=inputs, outputs={**outputs, **_marked(kind, drawn)})
        if kind.adopt is None:
            raise ProviderError(f"{type} cannot be imported")
        adopted, drawn = kind.adopt(id)
        # The id of a password is never the password (state shows ids in clear).
        return ReadResult(
            id="none" if kind.is_secret else id, inputs=adopted, outputs={**adopted, **_marked(kind, drawn)}
        )

    def update(
        self,
        type: str,
        urn: str,
        id: str,
        *,
        old_inputs: Inputs,
        old_outputs: Outputs,
        news: Inputs,
        preview: bool,
        timeout_seconds: float | None,
    ) -> Outputs:
        kind = _kind(type)
        # Every real change replaces; what comes here spells out a default.
        given = {name: value for name, value in news.items() if value is not None}
        drawn = {name: old_outputs[name] for name in kind.drawn if name in old_outputs}
        return {**old_outputs, **given, **_marked(kind, drawn)}

    def delete(
        self, type: str, urn: str, id: str, *, inputs: Inputs, outputs: Outputs, timeout_seconds: float | None
    ) -> None:
        return None


def _kind(type: str) -> _Kind:
    kind = _KINDS.get(type)
    if kind is None:
        known = ", ".join(sorted(name.rsplit(":", 1)[-1] for name in _KINDS))
        raise ProviderError(f"the offline random provider does not know {type}: it knows {known}")
    return kind


def _is_a(value: Any, expected: type) -> bool:
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, expected)


def _given(inputs: Inputs, name: str, default: Any) -> Any:
    value = inputs.get(name)
    return default if value is None else value


def _map_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Change]:
    changes: dict[str, Change] = {}
    for key in sorted({*old, *new}):
        path = property_path("keepers", key)
        if key not in new:
            changes[path] = "delete"
        elif key not in old:
            changes[path] = "add"
        elif old[key] != new[key]:
            changes[path] = "update"
    return changes


def _marked(kind: _Kind, drawn: Outputs) -> Outputs:
    return {name: Secret(value) for name, value in drawn.items()} if kind.is_secret else drawn


# -- strings and passwords


def _alphabets(inputs: Inputs) -> dict[str, str]:
    """The characters in use, by the property that asks for a minimum of them."""
    override = inputs.get("overrideSpecial")
    numeric = _given(inputs, "numeric", True) and _given(inputs, "number", True)
    wanted = {
        "minLower": string.ascii_lowercase if _given(inputs, "lower", True) else "",
        "minUpper": string.ascii_uppercase if _given(inputs, "upper", True) else "",
        "minNumeric": string.digits if numeric else "",
        "minSpecial": (override or _SPECIAL) if _given(inputs, "special", True) else "",
    }
    return {name: characters for name, characters in wanted.items() if characters}


def _validate_string(inputs: Inputs) -> list[CheckFailure]:
    if UNKNOWN in list(inputs.values()):
        return []
    length = inputs["length"]
    if not 1 <= length <= _LONGEST:
        return [CheckFailure("length", f"length is {length}: choose 1 to {_LONGEST}")]
    alphabets = _alphabets(inputs)
    if not alphabets:
        return [CheckFailure("special", "every kind of character is excluded: allow one")]
    least = {name: _given(inputs, name, 0) for name in ("minLower", "minUpper", "minNumeric", "minSpecial")}
    failures = [
        CheckFailure(name, f"at least {count} are asked for of a kind of character that is excluded")
        for name, count in least.items()
        if count and name not in alphabets
    ]
    if sum(least.values()) > length:
        failures.append(CheckFailure("length", f"length is {length}, but the minimums add up to {sum(least.values())}"))
    return failures


def _draw_text(inputs: Inputs) -> str:
    alphabets = _alphabets(inputs)
    characters = [
        secrets.choice(alphabet) for name, alphabet in alphabets.items() for _ in range(_given(inputs, name, 0))
    ]
    everything = "".join(alphabets.values())
    characters += [secrets.choice(everything) for _ in range(inputs["length"] - len(characters))]
    secrets.SystemRandom().shuffle(characters)
    return "".join(characters)


def _draw_string(inputs: Inputs) -> tuple[str, Outputs]:
    text = _draw_text(inputs)
    return text, {"result": text}


def _draw_password(inputs: Inputs) -> tuple[str, Outputs]:
    return "none", {"result": _draw_text(inputs)}


def _adopt_string(id: str) -> tuple[Inputs, Outputs]:
    return {"length": len(id)}, {"result": id}


# -- numbers


def _at_least_one(name: str) -> Callable[[Inputs], list[CheckFailure]]:
    def validate(inputs: Inputs) -> list[CheckFailure]:
        count = inputs[name]
        if count is UNKNOWN or 1 <= count <= _LONGEST:
            return []
        return [CheckFailure(name, f"{name} is {count}: choose 1 to {_LONGEST}")]

    return validate


def _id_outputs(drawn: bytes, prefix: str) -> Outputs:
    return {
        "b64Std": prefix + base64.b64encode(drawn).decode(),
        "b64Url": prefix + base64.urlsafe_b64encode(drawn).decode().rstrip("="),
        "hex": prefix + drawn.hex(),
        "dec": prefix + str(int.from_bytes(drawn, "big")),
    }


def _draw_id(inputs: Inputs) -> tuple[str, Outputs]:
    drawn = secrets.token_bytes(inputs["byteLength"])
    return base64.urlsafe_b64encode(drawn).decode().rstrip("="), _id_outputs(drawn, inputs.get("prefix") or "")


def _draw_bytes(inputs: Inputs) -> tuple[str, Outputs]:
    drawn = secrets.token_bytes(inputs["length"])
    return "none", {"base64": base64.b64encode(drawn).decode(), "hex": drawn.hex()}


def _draw_uuid(inputs: Inputs) -> tuple[str, Outputs]:
    drawn = str(uuid.uuid4())
    return drawn, {"result": drawn}


def _adopt_uuid(id: str) -> tuple[Inputs, Outputs]:
    try:
        return {}, {"result": str(uuid.UUID(id))}
    except ValueError:
        raise ProviderError(f"{id!r} is not a UUID") from None


def _validate_range(inputs: Inputs) -> list[CheckFailure]:
    if UNKNOWN in (inputs["min"], inputs["max"]) or inputs["min"] <= inputs["max"]:
        return []
    return [CheckFailure("max", f"max is {inputs['max']}, which is less than min, {inputs['min']}")]


def _draw_integer(inputs: Inputs) -> tuple[str, Outputs]:
    drawn = inputs["min"] + secrets.randbelow(inputs["max"] - inputs["min"] + 1)
    return str(drawn), {"result": drawn}


_STRING: Final = _Kind(
    properties=_STRING_PROPERTIES,
    required=["length"],
    drawn=["result"],
    draw=_draw_string,
    validate=_validate_string,
    adopt=_adopt_string,
)
_PASSWORD: Final = _Kind(
    properties=_STRING_PROPERTIES,
    required=["length"],
    drawn=["result"],
    is_secret=True,
    draw=_draw_password,
    validate=_validate_string,
    adopt=_adopt_string,
)

_KINDS: Final[dict[str, _Kind]] = {
    "random:index/randomString:RandomString": _STRING,
    "random:index/randomPassword:RandomPassword": _PASSWORD,
    "random:index/randomId:RandomId": _Kind(
        properties={"byteLength": (int, None), "prefix": (str, None)},
        required=["byteLength"],
        drawn=["b64Std", "b64Url", "hex", "dec"],
        draw=_draw_id,
        validate=_at_least_one("byteLength"),
    ),
    "random:index/randomBytes:RandomBytes": _Kind(
        properties={"length": (int, None)},
        required=["length"],
        drawn=["base64", "hex"],
        is_secret=True,
        draw=_draw_bytes,
        validate=_at_least_one("length"),
    ),
    "random:index/randomUuid:RandomUuid": _Kind(properties={}, drawn=["result"], draw=_draw_uuid, adopt=_adopt_uuid),
    "random:index/randomInteger:RandomInteger": _Kind(
        properties={"min": (int, None), "max": (int, None)},
        required=["min", "max"],
        drawn=["result"],
        draw=_draw_integer,
        validate=_validate_range,
    ),
}


def main() -> NoReturn:
    """Be the plug-in `pulumi-resource-random`."""
    from localgcp.pulumi.provider_server import serve

    serve(RandomProvider())


if __name__ == "__main__":
    main()
