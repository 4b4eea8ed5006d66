"""Pulumi's gRPC definitions, without the price of importing the SDK.

The generated modules live in the SDK (`pulumi.runtime.proto`), and importing anything below `pulumi` first runs the
whole of it: 0.7 s, for each of the processes that every `pulumi` command starts, none of which needs more than the
messages. So the packages above them are stood in for while they are imported, and taken away again: a later
`import pulumi` finds nothing unusual.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

# What the engine and the SDK use: values can be large (a file's content, a whole program's state).
MAX_MESSAGE_BYTES = 400 * 1024 * 1024
GRPC_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Two hosts must never share a port by accident.
    ("grpc.so_reuseport", 0),
]


def _load(*names: str) -> list[ModuleType]:
    if "pulumi" in sys.modules:
        return [importlib.import_module(f"pulumi.runtime.proto.{name}") for name in names]
    spec = importlib.util.find_spec("pulumi")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "the Pulumi SDK is not installed in this environment: install the project's requirements", name="pulumi"
        )
    root = Path(next(iter(spec.submodule_search_locations)))
    stand_ins = {
        "pulumi": root,
        "pulumi.runtime": root / "runtime",
        "pulumi.runtime.proto": root / "runtime" / "proto",
    }
    for name, path in stand_ins.items():
        module = ModuleType(name)
        module.__path__ = [str(path)]
        sys.modules[name] = module
    try:
        return [importlib.import_module(f"pulumi.runtime.proto.{name}") for name in names]
    finally:
        for name in stand_ins:
            del sys.modules[name]


(
    language_pb2,
    language_pb2_grpc,
    plugin_pb2,
    provider_pb2,
    provider_pb2_grpc,
    engine_pb2,
    engine_pb2_grpc,
) = _load(
    "language_pb2",
    "language_pb2_grpc",
    "plugin_pb2",
    "provider_pb2",
    "provider_pb2_grpc",
    "engine_pb2",
    "engine_pb2_grpc",
)
