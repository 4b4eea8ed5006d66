"""A request against its schema: unknown fields, wrong types and bad enum values are refused as Google refuses them.

Two notations are accepted besides the documented one, because Google accepts them: `null` for an unset field, and
snake_case for the names of fields (the proto names). Fields that only Google sets are dropped, not refused.
"""

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from localgcp.clock import moment, seconds
from localgcp.discovery import Document, Method
from localgcp.enums import name_by_number
from localgcp.errors import InvalidArgument

INT_RANGES = {
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
}


def parsed(content: bytes | bytearray) -> Any:
    """The JSON of a request. Raises InvalidArgument, also for half a surrogate pair, which no UTF-8 can hold."""
    try:
        body = json.loads(content)
        if b"\\u" in content:
            json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(
            f"Invalid JSON payload received. {error}".replace("\n", " "), reason="parseError"
        ) from None
    return body


def camel(name: str) -> str:
    """`display_name` -> `displayName`; other names stay as they are."""
    head, *tail = name.split("_")
    return head + "".join(word[:1].upper() + word[1:] for word in tail) if tail else name


def is_output_only(schema: Mapping[str, Any]) -> bool:
    description = schema.get("description", "")
    return bool(schema.get("readOnly")) or description.startswith(("Output only.", "[Output Only]"))


class Validator:
    """Checks bodies and queries of one document's methods."""

    def __init__(self, document: Document, undocumented: Mapping[str, frozenset[str]], *, legacy: bool) -> None:
        self._document = document
        self._undocumented = undocumented
        self._legacy = legacy

    def body(self, method: Method, body: Any) -> dict[str, Any]:
        """The body with documented names only. Raises InvalidArgument naming each offending field."""
        if method.request_schema is None:
            return body if isinstance(body, dict) else {}
        if body is None:
            return {}
        if not isinstance(body, dict):
            raise InvalidArgument("Invalid JSON payload received. Root element must be a message.", reason="parseError")
        violations: list[tuple[str, str]] = []
        result = self._object(method.request_schema, body, "", violations)
        if violations:
            raise _bad_request(violations)
        return result

    def query(self, method: Method, pairs: list[tuple[str, str]]) -> dict[str, Any]:
        """Typed query parameters; repeated ones become lists."""
        result: dict[str, Any] = {}
        violations: list[tuple[str, str]] = []
        for raw_name, text in pairs:
            name = raw_name if raw_name in method.parameters else camel(raw_name)
            schema = method.parameters.get(name)
            if schema is None or schema.get("location") != "query":
                if raw_name in self._document.common_parameters or self._legacy:
                    result[raw_name] = text
                    continue
                violations.append(
                    (
                        raw_name,
                        f'Invalid JSON payload received. Unknown name "{raw_name}": Cannot bind query parameter.'
                        f" Field '{raw_name}' could not be found in request message.",
                    )
                )
                continue
            value = self._parameter(schema, text, name, violations)
            if schema.get("repeated"):
                result.setdefault(name, []).append(value)
            else:
                result[name] = value
        if violations:
            raise _bad_request(violations)
        for name, schema in method.parameters.items():
            if schema.get("location") == "query" and schema.get("required") and name not in result:
                raise InvalidArgument(f"Required parameter: {name}", reason="required", location=name)
        return result

    def _parameter(self, schema: Mapping[str, Any], text: str, name: str, violations: list[tuple[str, str]]) -> Any:
        kind = schema.get("type")
        if kind == "boolean":
            if text.lower() in ("true", "false", "1", "0"):
                return text.lower() in ("true", "1")
            violations.append((name, f"Invalid value at '{name}' (TYPE_BOOL), \"{text}\""))
            return None
        if kind == "integer":
            try:
                return int(text)
            except ValueError:
                violations.append((name, f"Invalid value at '{name}' (TYPE_INT32), \"{text}\""))
                return None
        if "enum" in schema:
            return self._enum(schema, int(text) if text.isdecimal() else text, name, violations)
        return text

    def _object(self, ref: str, body: Mapping[str, Any], at: str, violations: list[tuple[str, str]]) -> dict[str, Any]:
        return self._properties(self._document.schemas[ref], body, at, violations, ref)

    def _properties(
        self,
        schema: Mapping[str, Any],
        body: Mapping[str, Any],
        at: str,
        violations: list[tuple[str, str]],
        ref: str,
    ) -> dict[str, Any]:
        """`ref` names the schema; one that stands inside of another is named as `Object.retention`."""
        tolerated = self._undocumented.get(ref, frozenset())
        properties: Mapping[str, Any] = schema.get("properties", {})
        extra = schema.get("additionalProperties")
        result: dict[str, Any] = {}
        for raw_name, value in body.items():
            name = raw_name if raw_name in properties else camel(raw_name)
            where = f"{at}.{name}" if at else name
            if name in properties:
                if is_output_only(properties[name]):
                    continue
                if value is None:
                    result[name] = None
                else:
                    result[name] = self._value(properties[name], value, where, violations, f"{ref}.{name}")
            elif extra is not None:
                where = f"{at}.{raw_name}"
                result[raw_name] = None if value is None else self._value(extra, value, where, violations, ref)
            elif raw_name in tolerated:
                result[raw_name] = value
            else:
                place = f" at '{at}'" if at else ""
                violations.append(
                    (at, f'Invalid JSON payload received. Unknown name "{raw_name}"{place}: Cannot find field.')
                )
        return result

    def _value(
        self, schema: Mapping[str, Any], value: Any, at: str, violations: list[tuple[str, str]], ref: str
    ) -> Any:
        if "$ref" in schema:
            if not isinstance(value, dict):
                wanted = f"type.googleapis.com/{schema['$ref']}"
                violations.append((at, f"Invalid value at '{at}' ({wanted}), {_shown(value)}"))
                return None
            return self._object(schema["$ref"], value, at, violations)
        kind = schema.get("type")
        if kind == "array":
            if not isinstance(value, list):
                violations.append((at, f"Invalid value at '{at}' (repeated field), {_shown(value)}"))
                return None
            return [
                self._value(schema["items"], item, f"{at}[{index}]", violations, ref)
                for index, item in enumerate(value)
                if item is not None
            ]
        if kind == "object":
            if not isinstance(value, dict):
                violations.append((at, f"Invalid value at '{at}' (message), {_shown(value)}"))
                return None
            return self._properties(schema, value, at, violations, ref)
        if "enum" in schema:
            return self._enum(schema, value, at, violations)
        return self._scalar(schema, value, at, violations)

    def _enum(self, schema: Mapping[str, Any], value: Any, at: str, violations: list[tuple[str, str]]) -> Any:
        names: list[str] = schema["enum"]
        if isinstance(value, int) and not isinstance(value, bool):
            name = name_by_number(tuple(names)).get(value)
            if name is not None:
                return name
        if value == "" or value in names:
            return value
        violations.append((at, f"Invalid value at '{at}' ({schema.get('type', 'enum')}), {_shown(value)}"))
        return None

    def _scalar(self, schema: Mapping[str, Any], value: Any, at: str, violations: list[tuple[str, str]]) -> Any:
        kind, form = schema.get("type"), schema.get("format", "")

        def wrong(type_name: str) -> None:
            violations.append((at, f"Invalid value at '{at}' ({type_name}), {_shown(value)}"))

        if kind == "any":
            return value
        if kind == "boolean":
            if isinstance(value, bool):
                return value
            return wrong("TYPE_BOOL")
        if kind == "integer" or (kind == "string" and form in ("int64", "uint64")):
            try:
                number = _integer(value)
            except ValueError:
                return wrong(f"TYPE_{(form or 'int32').upper()}")
            low, high = INT_RANGES[form or "int32"]
            if not low <= number <= high:
                return wrong(f"TYPE_{(form or 'int32').upper()}")
            return str(number) if kind == "string" else number
        if kind == "number":
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                return wrong("TYPE_DOUBLE")
            try:
                return float(value) if not isinstance(value, int) else value
            except ValueError:
                return wrong("TYPE_DOUBLE")
        if kind == "string":
            if not isinstance(value, str):
                return wrong("TYPE_STRING")
            if form == "byte":
                standard = _standard_base64(value)
                if standard is None:
                    # Not a letter of it: bytes are what secrets are sent as.
                    said = f"Invalid value at '{at}' (TYPE_BYTES), Base64 decoding failed for a text of {len(value)}"
                    violations.append((at, said))
                return standard
            if form == "google-duration" and not _can_be_read(seconds, value):
                return wrong("type.googleapis.com/google.protobuf.Duration")
            if form == "google-datetime" and not _can_be_read(moment, value):
                return wrong("type.googleapis.com/google.protobuf.Timestamp")
            return value
        return value


def without_nulls(value: Any) -> Any:
    """The same value with every null member left out, at any depth."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def _integer(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError
        return int(value)
    if isinstance(value, int | str):
        return int(value)
    raise ValueError


def _can_be_read(read: Callable[[str], object], text: str) -> bool:
    try:
        read(text)
    except ValueError:
        return False
    return True


def _standard_base64(value: str) -> str | None:
    """The same in the standard alphabet and padded, for whoever decodes it: JSON may have either form of base64."""
    standard = value.replace("-", "+").replace("_", "/")
    standard += "=" * (-len(standard) % 4)
    try:
        base64.b64decode(standard, validate=True)
    except ValueError:  # for what is no ASCII, too
        return None
    return standard


def _shown(value: Any) -> str:
    """A short word or number; of anything else the type and size, because a body can hold secrets."""
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= 40 and re.fullmatch(r"[\w./:@ -]*", value) else f"text of {len(value)}"
    return str(value) if isinstance(value, bool | int | float) else type(value).__name__


def _bad_request(violations: list[tuple[str, str]]) -> InvalidArgument:
    return InvalidArgument(
        "\n".join(description for _, description in violations),
        reason="invalid",
        details=[
            {
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{"field": at, "description": description} for at, description in violations],
            }
        ],
    )
