"""What a step does, by its type. Nothing here knows about leases or states: it takes `Work` and returns a `Result`."""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from app.validations.engines.pool import Outcome
from app.validations.engines.results import Severity
from app.validations.sandbox import pool
from app.workflows.definitions import (
    ActionStep,
    AnyStep,
    Ref,
    SimulationKind,
    SimulationStep,
    ValidatorConfig,
    ValidatorStep,
)

MAX_FINDINGS: Final = 100  # of a step's outputs, which conditions and later steps read


@dataclass(frozen=True, kw_only=True)
class Work:
    """An attempt to be made. `id` is the step run's: the idempotency key of every effect, whatever the attempt."""

    id: UUID
    run_id: UUID
    definition: AnyStep
    variables: dict[str, Any]
    organization_id: int
    started_at: datetime

    def inputs(self) -> dict[str, Any]:
        """Raises: MissingInput."""
        return {
            name: resolve(source.ref, self.variables) if isinstance(source, Ref) else source.value
            for name, source in self.definition.inputs.items()
        }


@dataclass(frozen=True, kw_only=True)
class Done:
    outputs: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Skip:
    code: str
    detail: str

    @property
    def problem(self) -> dict[str, str]:
        return {"code": self.code, "detail": self.detail}


@dataclass(frozen=True, kw_only=True)
class Waits:
    """The rest is somebody else's, who calls back within `timeout`."""

    simulation: SimulationKind
    timeout: timedelta


@dataclass(frozen=True, kw_only=True)
class Failure:
    """`retry_after` is what the other side asked for; `outputs` are kept all the same."""

    code: str
    detail: str
    is_retryable: bool = False
    retry_after: timedelta | None = None
    outputs: dict[str, Any] | None = None

    @property
    def problem(self) -> dict[str, str]:
        return {"code": self.code, "detail": self.detail[:1000]}


Result = Done | Skip | Waits | Failure


class MissingInput(Exception):
    """A reference leads nowhere."""


def resolve(pointer: str, variables: Any) -> Any:
    """The value that a JSON Pointer (RFC 6901) leads to. Raises: MissingInput."""
    value = variables
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            raise MissingInput(f"{pointer} leads nowhere: there is no {name!r}")
    return value


def perform(work: Work) -> Result:
    try:
        inputs = work.inputs()
    except MissingInput as missing:
        return Failure(code="missing-input", detail=str(missing))
    match work.definition:
        case ValidatorStep():
            return _validate(work.definition, inputs)
        case ActionStep():
            # Actions return the results of this module.
            from app.workflows import actions

            return actions.perform(work, work.definition, inputs)
        case SimulationStep():
            return Waits(
                simulation=work.definition.config.simulation,
                timeout=timedelta(seconds=work.definition.timeout_seconds),
            )


def validated(config: ValidatorConfig, document: Any) -> Outcome:
    """Raises: Refused; Busy."""
    submission = {"validator": config.validator.value, "document": document}
    if config.schema_ is not None:
        submission["schema"] = config.schema_
    if config.rules is not None:
        submission["rules"] = config.rules
    return pool().run(json.dumps(submission).encode(), "application/json")


def _validate(step: ValidatorStep, inputs: dict[str, Any]) -> Result:
    outcome = validated(step.config, inputs["document"])
    count = {severity: sum(f["severity"] == severity.value for f in outcome.findings) for severity in Severity}
    verdict = "FAIL" if count[Severity.ERROR] else "PASS"
    outputs = {
        "verdict": verdict,
        "errors": count[Severity.ERROR],
        "warnings": count[Severity.WARNING],
        "infos": count[Severity.INFO],
        "findings": outcome.findings[:MAX_FINDINGS],
        "findings_truncated": outcome.is_truncated or len(outcome.findings) > MAX_FINDINGS,
    }
    if verdict == "FAIL" and step.config.must_pass:
        return Failure(code="verdict-fail", detail=f"the document has {outputs['errors']} errors", outputs=outputs)
    return Done(outputs=outputs)
