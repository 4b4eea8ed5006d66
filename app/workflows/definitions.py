"""Workflow definitions as their authors write them, and everything that can be wrong with one. Free of Django."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, model_validator

from app.validations.engines.limits import MAX_EXPRESSION_LENGTH
from app.validations.engines.results import Validator
from app.workflows import engine
from app.workflows.engine import RunWhen

MAX_STEPS: Final = 100
MAX_TIMEOUT_SECONDS: Final = 24 * 3600
# Below the dispatch deadline of the queue, after which Cloud Tasks delivers the step again.
MAX_INLINE_TIMEOUT_SECONDS: Final = 240

# A key is a name in CEL too: `steps.<key>.outputs`.
Key = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
# In a condition: `steps.<key>`, `steps["<key>"]`; or a text or a comment, in which the same would be no name.
_STEP_OR_TEXT: Final = re.compile(
    r"(?<![\w.])steps\s*(?:\.\s*(?P<field>\w+)|\[\s*(?P<quote>['\"])(?P<index>\w*)(?P=quote)\s*\])"
    r"|//[^\n]*+|'''.*?'''|\"\"\".*?\"\"\"|'(?:[^'\\\n]|\\.)*+'|\"(?:[^\"\\\n]|\\.)*+\"",
    re.DOTALL,
)
# A macro that gives the name to something else.
_STEPS_BOUND: Final = re.compile(r"\(\s*steps\s*,")
Pointer = Annotated[str, StringConstraints(pattern=r"^/(inputs|steps)(/([^/~]|~[01])*)*$", max_length=500)]


class StepType(StrEnum):
    VALIDATOR = "VALIDATOR"
    ACTION = "ACTION"
    SIMULATION = "SIMULATION"


class ActionKind(StrEnum):
    WEBHOOK = "WEBHOOK"
    SLACK = "SLACK"
    CREDENTIAL = "CREDENTIAL"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Ref(_Model):
    """A value from the run's inputs or from the result of a step before this one."""

    ref: Pointer = Field(description="JSON Pointer, such as /inputs/order or /steps/check/outputs/verdict.")


class Value(_Model):
    value: Any = Field(description="The value itself.")


Source = Ref | Value


class RetryIn(_Model):
    max_attempts: int = Field(1, ge=1, le=20)
    backoff_seconds: float = Field(5, ge=0, le=3600, description="Doubled after every failure.")
    max_backoff_seconds: float = Field(300, ge=0, le=86400)

    def policy(self) -> engine.Retry:
        return engine.Retry(
            max_attempts=self.max_attempts,
            backoff=timedelta(seconds=self.backoff_seconds),
            max_backoff=timedelta(seconds=self.max_backoff_seconds),
        )


class ValidatorConfig(_Model):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    validator: Validator
    schema_: Any = Field(None, alias="schema", description="For json-schema and xml-schema.")
    rules: list[dict[str, Any]] | None = Field(None, description="For cel.")
    must_pass: bool = Field(True, description="The verdict FAIL fails the step. False: a condition looks at it.")

    @model_validator(mode="after")
    def _has_what_the_validator_takes(self) -> Self:
        taken, unused = ("rules", "schema_") if self.validator is Validator.CEL else ("schema_", "rules")
        if getattr(self, taken) is None:
            raise ValueError(f"{self.validator.value} needs {taken.rstrip('_')!r}")
        if getattr(self, unused) is not None:
            raise ValueError(f"{unused.rstrip('_')!r} does not belong to {self.validator.value}")
        return self


class WebhookConfig(_Model):
    """The step's inputs are posted to a webhook endpoint of the organisation, signed with its secret."""

    action: Literal[ActionKind.WEBHOOK]
    endpoint: UUID = Field(description="Id of a webhook endpoint.")


class SlackConfig(_Model):
    action: Literal[ActionKind.SLACK]
    webhook_url: Annotated[str, StringConstraints(pattern=r"^https?://[!-~]+$", max_length=500)] = Field(
        description="An incoming webhook. It is a secret: answers show its host only."
    )
    text: str = Field(
        min_length=1, max_length=3000, description="`{name}` is replaced by the step's input of that name."
    )


class CredentialConfig(_Model):
    """A W3C verifiable credential about the step's inputs, as a signed JWT."""

    action: Literal[ActionKind.CREDENTIAL]
    credential_type: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z0-9]{0,99}$")] = "ValidationCredential"
    expires_after_days: int | None = Field(None, ge=1, le=3660)


class SimulationKind(StrEnum):
    ENERGYPLUS = "ENERGYPLUS"
    FMI = "FMI"


class SimulationConfig(_Model):
    simulation: SimulationKind


class _Step(_Model):
    key: Key
    depends_on: list[Key] = []
    condition: str = Field(
        "", max_length=MAX_EXPRESSION_LENGTH, description="CEL over `inputs` and `steps`; runs the step when true."
    )
    run_when: RunWhen = RunWhen.ALL_SUCCEEDED
    may_fail: bool = Field(False, description="Its failure does not fail the run.")
    retry: RetryIn = RetryIn()
    timeout_seconds: int = Field(30, ge=1, le=MAX_INLINE_TIMEOUT_SECONDS, description="Of one attempt.")
    inputs: dict[Key, Source] = {}

    def as_step(self) -> engine.Step:
        return engine.Step(
            key=self.key,
            depends_on=tuple(self.depends_on),
            run_when=self.run_when,
            may_fail=self.may_fail,
            retry=self.retry.policy(),
        )


class ValidatorStep(_Step):
    type: Literal[StepType.VALIDATOR]
    config: ValidatorConfig


class ActionStep(_Step):
    type: Literal[StepType.ACTION]
    config: Annotated[WebhookConfig | SlackConfig | CredentialConfig, Field(discriminator="action")]


class SimulationStep(_Step):
    type: Literal[StepType.SIMULATION]
    config: SimulationConfig
    timeout_seconds: int = Field(3900, ge=1, le=MAX_TIMEOUT_SECONDS, description="Until the callback must have come.")


AnyStep = Annotated[ValidatorStep | ActionStep | SimulationStep, Field(discriminator="type")]
step_adapter: Final[TypeAdapter[AnyStep]] = TypeAdapter(AnyStep)


class Definition(_Model):
    """One version of a workflow."""

    steps: list[AnyStep] = Field(min_length=1, max_length=MAX_STEPS)

    def as_steps(self) -> list[engine.Step]:
        return [step.as_step() for step in self.steps]

    def canonical(self) -> dict[str, Any]:
        """As it is stored: every default written out, so that a later default changes no version."""
        document: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        return document

    @property
    def sha256(self) -> str:
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class ErrorCode(StrEnum):
    """The name of what is wrong. Stable: clients may rely on it."""

    DUPLICATE_STEP = "duplicate-step"
    DUPLICATE_DEPENDENCY = "duplicate-dependency"
    SELF_DEPENDENCY = "self-dependency"
    UNKNOWN_STEP = "unknown-step"
    CYCLE = "cycle"
    UNREACHABLE_STEP = "unreachable-step"
    BAD_CONDITION = "bad-condition"
    BAD_VALIDATOR = "bad-validator"
    MISSING_INPUT = "missing-input"
    NOT_UPSTREAM = "not-upstream"
    UNKNOWN_ENDPOINT = "unknown-endpoint"
    BAD_SLACK_ADDRESS = "bad-slack-address"


@dataclass(frozen=True, kw_only=True)
class DefinitionError:
    code: ErrorCode
    field: str
    message: str
    remedy: str


Compile = Callable[[str], str]
"""Of a condition: what is wrong with it, or nothing."""


def errors_of(definition: Definition, compile_condition: Compile) -> list[DefinitionError]:
    """Everything that is wrong with a definition of the right shape; empty when it can be run."""
    steps = definition.as_steps()
    errors = [*_errors_of_edges(steps), *_errors_of_conditions(definition, compile_condition)]
    if all(error.code is ErrorCode.BAD_CONDITION for error in errors):
        ancestors = engine.ancestors(steps)
        errors += _errors_of_inputs(definition, ancestors)
        errors += _errors_of_names(definition, ancestors)
    return errors


def _errors_of_edges(steps: list[engine.Step]) -> Iterator[DefinitionError]:
    known = {step.key for step in steps}
    seen: set[str] = set()
    is_unsound = False
    for index, step in enumerate(steps):
        where = f"steps[{index}]"
        if step.key in seen:
            is_unsound = True
            yield DefinitionError(
                code=ErrorCode.DUPLICATE_STEP,
                field=f"{where}.key",
                message=f"two steps have the key {step.key!r}",
                remedy="give each step a key of its own",
            )
        seen.add(step.key)
        for at, key in enumerate(step.depends_on):
            field = f"{where}.depends_on[{at}]"
            if key == step.key:
                yield DefinitionError(
                    code=ErrorCode.SELF_DEPENDENCY,
                    field=field,
                    message=f"step {key!r} depends on itself",
                    remedy="remove the dependency",
                )
            elif key not in known:
                yield DefinitionError(
                    code=ErrorCode.UNKNOWN_STEP,
                    field=field,
                    message=f"step {step.key!r} depends on {key!r}, which is no step of this workflow",
                    remedy=f"depend on one of: {', '.join(sorted(known))}"[:500],
                )
            elif key in step.depends_on[:at]:
                yield DefinitionError(
                    code=ErrorCode.DUPLICATE_DEPENDENCY,
                    field=field,
                    message=f"step {step.key!r} depends on {key!r} twice",
                    remedy="name each dependency once",
                )
    if not is_unsound:
        yield from _errors_of_order(steps)


def _errors_of_order(steps: list[engine.Step]) -> Iterator[DefinitionError]:
    """Cycles, and what lies behind a cycle or an unknown step and would wait for ever."""
    depends_on = {step.key: set(step.depends_on) - {step.key} for step in steps}
    index = {step.key: at for at, step in enumerate(steps)}
    cyclic: set[str] = set()
    for cycle in _cycles(depends_on):
        cyclic.update(cycle)
        shown = " → ".join([*cycle, cycle[0]])
        yield DefinitionError(
            code=ErrorCode.CYCLE,
            field=f"steps[{index[cycle[0]]}].depends_on",
            message=f"each of these steps waits for the next one: {shown}",
            remedy="remove one of the dependencies",
        )
    # What nothing can finish: steps that wait for themselves, on the way round or at once, and steps that do not exist.
    endless = cyclic | {step.key for step in steps if step.key in step.depends_on}
    absent = {key for step in steps for key in step.depends_on} - index.keys()
    for step in steps:
        if step.key in endless:
            continue
        causes = (_behind(step.key, depends_on) & (endless | absent)) - (set(step.depends_on) & absent)
        if causes:
            yield DefinitionError(
                code=ErrorCode.UNREACHABLE_STEP,
                field=f"steps[{index[step.key]}]",
                message=f"step {step.key!r} can never run: it waits for {', '.join(sorted(causes))}"[:500],
                remedy="correct the steps that it waits for",
            )


def _behind(key: str, depends_on: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    stack = list(depends_on.get(key, ()))
    while stack:
        dependency = stack.pop()
        if dependency not in found:
            found.add(dependency)
            stack.extend(depends_on.get(dependency, ()))
    return found


def _cycles(depends_on: dict[str, set[str]]) -> Iterator[list[str]]:
    """One cycle through each knot of steps that wait for one another."""
    done: set[str] = set()
    for key in depends_on:
        if key in done or key not in _behind(key, depends_on):
            continue
        # Shortest way from the step back to itself, so that the message shows a cycle and not the whole knot.
        parents: dict[str, str] = {}
        frontier = [key]
        while key not in parents:
            following: list[str] = []
            for at in frontier:
                for dependency in sorted(depends_on.get(at, ())):
                    if dependency not in parents:
                        parents[dependency] = at
                        following.append(dependency)
            frontier = following
        cycle = [parents[key]]
        while cycle[-1] != key:
            cycle.append(parents[cycle[-1]])
        cycle.reverse()
        knot = {other for other in _behind(key, depends_on) if key in _behind(other, depends_on)}
        done |= knot
        yield cycle


def _errors_of_conditions(definition: Definition, compile_condition: Compile) -> Iterator[DefinitionError]:
    for index, step in enumerate(definition.steps):
        if step.condition and (found := compile_condition(step.condition)):
            yield DefinitionError(
                code=ErrorCode.BAD_CONDITION,
                field=f"steps[{index}].condition",
                message=found,
                remedy="write a CEL expression over `inputs` and `steps`, such as steps.check.outputs.errors == 0",
            )


def _errors_of_names(definition: Definition, ancestors: dict[str, frozenset[str]]) -> Iterator[DefinitionError]:
    """A condition sees no other steps than an input does: with a wrong name, it would fail in every run."""
    for index, step in enumerate(definition.steps):
        for key in sorted(_steps_named_in(step.condition) - ancestors[step.key]):
            yield _not_upstream(f"steps[{index}].condition", step.key, key)


def _steps_named_in(condition: str) -> set[str]:
    if _STEPS_BOUND.search(condition):
        return set()
    found = (match["field"] or match["index"] for match in _STEP_OR_TEXT.finditer(condition))
    return {key for key in found if key}


def _not_upstream(field: str, step: str, key: str) -> DefinitionError:
    return DefinitionError(
        code=ErrorCode.NOT_UPSTREAM,
        field=field,
        message=f"step {step!r} reads from {key!r}, which need not be finished when it runs",
        remedy=f"depend on {key!r}, or read from a step that is depended on",
    )


def _errors_of_inputs(definition: Definition, ancestors: dict[str, frozenset[str]]) -> Iterator[DefinitionError]:
    for index, step in enumerate(definition.steps):
        if step.type is StepType.VALIDATOR and "document" not in step.inputs:
            yield DefinitionError(
                code=ErrorCode.MISSING_INPUT,
                field=f"steps[{index}].inputs.document",
                message=f"step {step.key!r} validates a document, and does not say which",
                remedy='say where it is, such as {"ref": "/inputs/document"}',
            )
        for name, source in step.inputs.items():
            if not isinstance(source, Ref) or not source.ref.startswith("/steps"):
                continue
            key = source.ref.removeprefix("/steps").removeprefix("/").split("/")[0]
            if key not in ancestors[step.key]:
                yield _not_upstream(f"steps[{index}].inputs.{name}", step.key, key)
