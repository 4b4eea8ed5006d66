"""A provider whose cloud is a dictionary: everything the protocol has to carry, and nothing else."""

from localgcp.pulumi.provider import (
    UNKNOWN,
    BaseProvider,
    Change,
    CheckFailure,
    Diff,
    Inputs,
    Outputs,
    PartialFailure,
    ProviderError,
    ReadResult,
    Secret,
)

THING = "memory:index:Thing"


class MemoryProvider(BaseProvider):
    """`Thing`: `name` replaces, the rest updates; `greeting` and the secret `token` are computed.

    The name says what shall go wrong: `refused…` cannot be created, `limping…` is created and then fails.
    """

    name = "memory"
    version = "1.0.0"

    def __init__(self) -> None:
        self.things: dict[str, Inputs] = {}
        self.variables: Inputs | None = None
        self.previewed: list[Inputs] = []
        self.is_limping = True
        self.cancelled = False

    def check_config(self, variables: Inputs) -> list[CheckFailure]:
        return [CheckFailure("colour", "choose red")] if variables.get("colour") == "green" else []

    def configure(self, variables: Inputs) -> None:
        self.variables = variables

    def check(
        self, type: str, urn: str, *, olds: Inputs | None, news: Inputs, random_seed: bytes
    ) -> tuple[Inputs, list[CheckFailure]]:
        if type != THING:
            raise ProviderError(f"there is no {type}")
        size = news.get("size", 1)
        failures = (
            [CheckFailure("size", f"size is {size}: choose 0 or more")] if size is not UNKNOWN and size < 0 else []
        )
        return {"size": 1, **news}, failures

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
        changes: dict[str, Change] = {}
        for key in sorted({*old_inputs, *news}):
            if old_inputs.get(key) != news.get(key):
                changes[key] = "add" if key not in old_inputs else "delete" if key not in news else "update"
        return Diff(changes=changes, replaces=["name"] if "name" in changes else [], delete_before_replace=True)

    def create(
        self, type: str, urn: str, *, inputs: Inputs, preview: bool, timeout_seconds: float | None
    ) -> tuple[str, Outputs]:
        if preview:
            self.previewed.append(inputs)
            return "", {**inputs, "greeting": UNKNOWN, "token": Secret(UNKNOWN)}
        name = inputs["name"]
        if name.startswith("refused"):
            raise ProviderError(f"{name}: the quota of this project is used up")
        self.things[name] = dict(inputs)
        if name.startswith("limping") and self.is_limping:
            raise PartialFailure(name, self._outputs(name), [f"{name} exists, but does not start"])
        return name, self._outputs(name)

    def read(
        self, type: str, urn: str, id: str, *, inputs: Inputs | None, outputs: Outputs | None
    ) -> ReadResult | None:
        if id not in self.things:
            return None
        return ReadResult(id=id, inputs=dict(self.things[id]), outputs=self._outputs(id))

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
        if preview:
            return {**news, "greeting": UNKNOWN, "token": Secret(UNKNOWN)}
        self.things[id] = dict(news)
        return self._outputs(id)

    def delete(
        self, type: str, urn: str, id: str, *, inputs: Inputs, outputs: Outputs, timeout_seconds: float | None
    ) -> None:
        self.things.pop(id, None)

    def invoke(self, token: str, arguments: Inputs, *, preview: bool) -> tuple[Outputs, list[CheckFailure]]:
        return {"echo": arguments.get("text")}, []

    def cancel(self) -> None:
        self.cancelled = True

    def _outputs(self, id: str) -> Outputs:
        return {**self.things[id], "greeting": f"I am {id}", "token": Secret(f"token-of-{id}")}
