"""Enums as numbers mean what they mean in the protos of Google's client libraries."""

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import proto  # type: ignore[import-untyped]
import pytest
from google.api.launch_stage_pb2 import LaunchStage  # type: ignore[import-untyped]
from google.logging.type.log_severity_pb2 import LogSeverity  # type: ignore[import-untyped]

from localgcp import discovery
from localgcp.enums import name_by_number

LIBRARIES = {
    "artifactregistry:v1": "google.cloud.artifactregistry_v1.types",
    "cloudbuild:v1": "google.cloud.devtools.cloudbuild_v1.types",
    "cloudscheduler:v1": "google.cloud.scheduler_v1.types",
    "cloudtasks:v2": "google.cloud.tasks_v2.types",
    "logging:v2": "google.cloud.logging_v2.types",
    "run:v2": "google.cloud.run_v2.types",
    "secretmanager:v1": "google.cloud.secretmanager_v1.types",
}


def proto_enums(module: Any, seen: set[type]) -> Iterator[dict[str, int]]:
    for member in vars(module).values():
        if not inspect.isclass(member) or member in seen:
            continue
        seen.add(member)
        if issubclass(member, proto.Enum):
            values: Any = member
            yield {value.name: int(value) for value in values}
        elif issubclass(member, proto.Message):
            yield from proto_enums(member, seen)


def settable_enums(document: discovery.Document) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The enums of fields that a request can set."""
    for name, schema in document.schemas.items():
        for field, spec in schema.get("properties", {}).items():
            if "enum" in spec and not spec.get("readOnly") and "Output only" not in spec.get("description", ""):
                yield f"{name}.{field}", tuple(spec["enum"])


@pytest.mark.parametrize(("identifier", "library"), LIBRARIES.items())
def test_the_number_of_an_enum_value_is_its_number_in_the_proto(identifier: str, library: str) -> None:
    enums = list(proto_enums(importlib.import_module(library), set()))

    compared, wrong = 0, []
    for field, names in settable_enums(discovery.load(identifier)):
        same = next((found for found in enums if found.keys() == set(names)), None)
        if same is None:
            continue
        compared += 1
        expected = {number: name for name, number in same.items()}
        if name_by_number(names) != expected:
            wrong.append((field, expected))

    assert compared > 0
    assert wrong == []


@pytest.mark.parametrize(
    ("identifier", "schema", "field", "values"),
    [
        ("run:v2", "GoogleCloudRunV2Service", "launchStage", LaunchStage),
        ("logging:v2", "LogEntry", "severity", LogSeverity),
    ],
)
def test_an_enum_that_apis_share_is_numbered_as_in_its_own_proto(
    identifier: str, schema: str, field: str, values: Any
) -> None:
    names = tuple(discovery.load(identifier).schemas[schema]["properties"][field]["enum"])

    assert name_by_number(names) == {value: name for name, value in values.items()}
