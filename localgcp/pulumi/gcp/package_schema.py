"""The package's schema, as far as this provider has it: `pulumi import` writes programs by it."""

import json
from collections.abc import Mapping
from typing import Any

from localgcp.pulumi.gcp.schema import Form, Properties, Property, properties_of, tokens

_SIMPLE: Mapping[Form, str] = {"string": "string", "integer": "integer", "number": "number", "boolean": "boolean"}


def package_schema(version: str) -> str:
    """Every resource type and the types of its parts, in Pulumi's JSON."""
    types: dict[str, Any] = {}
    resources = {}
    for token in sorted(tokens()):
        props = properties_of(token)
        prefix = token.partition("/")[0] + "/" + token.rpartition(":")[2]
        specs = _specs(props, prefix, types)
        inputs = {name: spec for name, spec in specs.items() if not props[name].output}
        required = [name for name in inputs if props[name].required]
        resources[token] = {"properties": specs, "inputProperties": inputs, "requiredInputs": required}
    return json.dumps({"name": "gcp", "version": version, "types": types, "resources": resources})


def _specs(props: Properties, prefix: str, types: dict[str, Any]) -> dict[str, Any]:
    return {name: {**_type(prop, prefix, types), "secret": prop.secret} for name, prop in props.items()}


def _type(prop: Property, prefix: str, types: dict[str, Any]) -> dict[str, Any]:
    if prop.form in _SIMPLE:
        return {"$ref": "pulumi.json#/Asset"} if prop.name == "source" else {"type": _SIMPLE[prop.form]}
    if prop.form == "map":
        return {"type": "object", "additionalProperties": {"type": _SIMPLE[prop.element or "string"]}}
    inner: dict[str, Any] = {"type": _SIMPLE[prop.element or "string"]}
    if prop.is_block:
        inner = _block(prop, prefix, types)
    return inner if prop.form == "object" else {"type": "array", "items": inner}


def _block(prop: Property, prefix: str, types: dict[str, Any]) -> dict[str, Any]:
    if not prop.properties:
        return {"$ref": "pulumi.json#/Any"}
    name = prefix + prop.name[0].upper() + prop.name[1:]
    token = f"{name}:{name.rpartition('/')[2]}"
    specs = _specs(prop.properties, name, types)
    required = [inner.name for inner in prop.properties.values() if inner.required and not inner.output]
    types[token] = {"type": "object", "properties": specs, "required": required}
    return {"$ref": f"#/types/{token}"}
