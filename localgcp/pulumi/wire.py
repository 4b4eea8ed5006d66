"""Between Pulumi's wire format (`google.protobuf.Struct` with signatures) and the plain values of `provider`.

Secrets travel beside the values, as a *mask*: `True` where a value is secret, a dict of masks for what is inside an
object or a list, `None` where nothing is. A provider never meets a secret, and what it returns is marked again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import struct_pb2

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

Mask = Any  # None | True | dict[str | int, Mask]

SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
SECRET: Final = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105  a mark on values, not a value
ASSET: Final = "c44067f5952c0a294b673a41bacd8c17"
ARCHIVE: Final = "0def7320c3a5731c473e5ecbe6d01bc7"
RESOURCE: Final = "5cf8f73096256a8f31e491e813e4eb8e"
OUTPUT: Final = "d0e6a833031e9bbcd3f4e8bde6ca49a4"

UNKNOWN_TEXT: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
# One text per type of the value that is not known. All mean the same here.
_UNKNOWNS: Final = frozenset(
    {
        UNKNOWN_TEXT,
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
        "030794c1-ac77-496b-92df-f27374a8bd58",
        "e48ece36-62e2-4504-bad9-02848725956a",
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
    }
)
_LARGEST_EXACT_INT: Final = 2**53


def decode(properties: struct_pb2.Struct) -> tuple[dict[str, Any], Mask]:
    """Turn a struct into plain values and the mask of what in it is secret."""
    return _decode_fields(properties)


def _decode_fields(struct: struct_pb2.Struct) -> tuple[dict[str, Any], Mask]:
    plain: dict[str, Any] = {}
    masks: dict[str | int, Mask] = {}
    # A map of protobuf has no order; a provider whose requests follow it should still send the same ones each time.
    for key in sorted(struct.fields):
        plain[key], mask = _decode_value(struct.fields[key])
        if mask:
            masks[key] = mask
    return plain, masks or None


def _decode_value(value: struct_pb2.Value) -> tuple[Any, Mask]:
    match value.WhichOneof("kind"):
        case "string_value":
            return (UNKNOWN if value.string_value in _UNKNOWNS else value.string_value), None
        case "bool_value":
            return value.bool_value, None
        case "number_value":
            number = value.number_value
            if math.isfinite(number) and number.is_integer() and abs(number) <= _LARGEST_EXACT_INT:
                return int(number), None
            return number, None
        case "list_value":
            items = [_decode_value(item) for item in value.list_value.values]
            masks: dict[str | int, Mask] = {index: mask for index, (_, mask) in enumerate(items) if mask}
            return [item for item, _ in items], masks or None
        case "struct_value":
            return _decode_struct(value.struct_value)
        case _:
            return None, None


def _decode_struct(struct: struct_pb2.Struct) -> tuple[Any, Mask]:
    if SIGNATURE not in struct.fields:
        return _decode_fields(struct)
    signature = struct.fields[SIGNATURE].string_value
    text = {key: value.string_value for key, value in struct.fields.items()}
    if signature == SECRET:
        return _decode_value(struct.fields["value"])[0], True
    if signature == OUTPUT:
        plain = _decode_value(struct.fields["value"])[0] if "value" in struct.fields else UNKNOWN
        return plain, struct.fields["secret"].bool_value or None
    if signature == RESOURCE:
        return (_decode_value(struct.fields["id"])[0] if "id" in struct.fields else text["urn"]), None
    if signature == ASSET:
        return _decode_asset(text), None
    if signature == ARCHIVE:
        return _decode_archive(struct, text), None
    raise ValueError(f"a value has the signature {signature!r}, which this version of the protocol does not know")


def _decode_asset(text: dict[str, str]) -> Any:
    if text.get("path"):
        return FileAsset(text["path"], text.get("hash", ""))
    if text.get("uri"):
        return RemoteAsset(text["uri"], text.get("hash", ""))
    if text.get("text"):
        return StringAsset(text["text"], text.get("hash", ""))
    # An empty text and an elided content look alike, but for the key.
    if "text" in text and text.get("hash", "") in ("", _HASH_OF_NOTHING):
        return StringAsset("", text.get("hash", ""))
    return ElidedAsset(text.get("hash", ""))


_HASH_OF_NOTHING: Final = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def _decode_archive(struct: struct_pb2.Struct, text: dict[str, str]) -> Any:
    if text.get("path"):
        return FileArchive(text["path"], text.get("hash", ""))
    if text.get("uri"):
        return RemoteArchive(text["uri"], text.get("hash", ""))
    if "assets" in struct.fields and struct.fields["assets"].WhichOneof("kind") == "struct_value":
        assets, _ = _decode_fields(struct.fields["assets"].struct_value)
        return AssetArchive(assets, text.get("hash", ""))
    return ElidedArchive(text.get("hash", ""))


def encode(properties: Mapping[str, Any], mask: Mask = None) -> struct_pb2.Struct:
    """Turn plain values into a struct. What the mask names is secret, and so is each `Secret`."""
    struct = struct_pb2.Struct()
    for key, value in properties.items():
        _encode_value(struct.fields[key], value, _inner(mask, key), f"{key}")
    return struct


def _inner(mask: Mask, key: str | int) -> Mask:
    return mask.get(key) if isinstance(mask, dict) else None


def _encode_value(target: struct_pb2.Value, value: Any, mask: Mask, path: str) -> None:
    if mask is True or isinstance(value, Secret):
        inner = target.struct_value.fields
        inner[SIGNATURE].string_value = SECRET
        # A secret within a secret says nothing more.
        _encode_value(inner["value"], value.value if isinstance(value, Secret) else value, None, path)
    elif value is None:
        target.null_value = struct_pb2.NULL_VALUE
    elif value is UNKNOWN:
        target.string_value = UNKNOWN_TEXT
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int | float):
        target.number_value = value
    elif isinstance(value, str):
        target.string_value = value
    elif isinstance(value, Mapping):
        fields = target.struct_value.fields
        target.struct_value.SetInParent()
        for key, item in value.items():
            _encode_value(fields[key], item, _inner(mask, key), f"{path}.{key}")
    elif isinstance(value, list | tuple):
        target.list_value.SetInParent()
        for index, item in enumerate(value):
            _encode_value(target.list_value.values.add(), item, _inner(mask, index), f"{path}[{index}]")
    else:
        _encode_asset(target.struct_value, value, path)


def _encode_asset(target: struct_pb2.Struct, value: Any, path: str) -> None:
    fields = target.fields
    match value:
        case FileAsset() | FileArchive():
            fields["path"].string_value = value.path
        case RemoteAsset() | RemoteArchive():
            fields["uri"].string_value = value.uri
        case StringAsset():
            fields["text"].string_value = value.text
        case AssetArchive():
            fields["assets"].struct_value.CopyFrom(encode(value.assets))
        case ElidedAsset() | ElidedArchive():
            pass
        case _:
            raise TypeError(f"{path}: a provider returned a {type(value).__name__}, which is no value of Pulumi's")
    is_archive = isinstance(value, FileArchive | RemoteArchive | AssetArchive | ElidedArchive)
    fields[SIGNATURE].string_value = ARCHIVE if is_archive else ASSET
    if value.hash:
        fields["hash"].string_value = value.hash


def carry_over(mask: Mask, source: Any, result: Any) -> Mask:
    """The mask for `result`, given that `mask` was the one of `source` and both mean the same object.

    A property that is secret in one is secret in the other. Lists are often sets, whose order an API does not keep:
    unless a list comes back exactly as it went, one secret in it makes all of it secret.
    """
    if not mask:
        return None
    if mask is True:
        return True
    if isinstance(result, Mapping) and isinstance(source, Mapping):
        inner = {
            key: carry_over(inner_mask, source.get(key), result[key])
            for key, inner_mask in mask.items()
            if key in result
        }
        return {key: value for key, value in inner.items() if value} or None
    if isinstance(result, list) and isinstance(source, list) and result == source:
        return mask
    return True


def merge(first: Mask, second: Mask) -> Mask:
    """Secret in either."""
    if first is True or second is True:
        return True
    if not first or not second:
        return first or second
    return {key: merge(first.get(key), second.get(key)) for key in {*first, *second}}
