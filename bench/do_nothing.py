"""A provider that accepts everything and does nothing: what an update costs when no resource does.

It stands in for `gcp`, and for the dynamic resources, whose work is calls to Google as well. The engine, the language
host, the program, the `random` provider and the state are the real ones.
"""

from typing import Any, NoReturn

from localgcp.pulumi.gcp.schema import Properties, Property, properties_of
from localgcp.pulumi.provider import BaseProvider, CheckFailure, Diff, Inputs, Outputs, ReadResult
from localgcp.pulumi.provider_server import serve


class DoNothing(BaseProvider):
    def __init__(self, name: str, version: str) -> None:
        self.name = name
        self.version = version

    def check(
        self, type: str, urn: str, *, olds: Inputs | None, news: Inputs, random_seed: bytes
    ) -> tuple[Inputs, list[CheckFailure]]:
        return news, []

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
        return Diff(changes={key: "update" for key in {*old_inputs, *news} if old_inputs.get(key) != news.get(key)})

    def create(
        self, type: str, urn: str, *, inputs: Inputs, preview: bool, timeout_seconds: float | None
    ) -> tuple[str, Outputs]:
        return urn.rpartition("::")[2], outputs_of(type, inputs)

    def read(
        self, type: str, urn: str, id: str, *, inputs: Inputs | None, outputs: Outputs | None
    ) -> ReadResult | None:
        return ReadResult(id=id, inputs=inputs or {}, outputs=outputs or {})

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
        return outputs_of(type, news)

    def delete(
        self, type: str, urn: str, id: str, *, inputs: Inputs, outputs: Outputs, timeout_seconds: float | None
    ) -> None:
        return None


def outputs_of(type: str, inputs: Inputs) -> Outputs:
    """The inputs, and a value for each output that the program may wait for."""
    if not type.startswith("gcp:"):
        return {name: "nothing" if value is None else value for name, value in inputs.items()}
    return {**_values(properties_of(type)), **{name: value for name, value in inputs.items() if value is not None}}


def _values(properties: Properties) -> dict[str, Any]:
    return {name: _value(each) for name, each in properties.items() if each.output}


def _value(each: Property) -> Any:
    inner = {name: _value(one) for name, one in each.properties.items()}
    match each.form:
        case "string":
            return "nothing"
        case "integer" | "number":
            return 0
        case "boolean":
            return False
        case "list" | "set":
            return [inner or "nothing"]
        case "map":
            return {}
        case _:
            return inner


def main(name: str, version: str) -> NoReturn:
    serve(DoNothing(name, version))
