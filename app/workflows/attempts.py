"""One attempt of one step, under a lease: begin, work without a lock, store the result with what follows from it."""

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from django.db import DatabaseError, InterfaceError
from django.utils import timezone

from app.leases import LeaseLost
from app.simulations.models import SimulationJob
from app.tasking import TryLater, occurrence
from app.validations.engines.pool import Busy
from app.validations.engines.results import Refused
from app.validations.sandbox import pool
from app.workflows import engine, runs, work
from app.workflows.definitions import SimulationStep
from app.workflows.engine import StepState
from app.workflows.models import WorkflowRun, WorkflowStepRun
from app.workflows.tasks import run_step
from app.workflows.work import Done, Failure, Result, Skip, Waits, Work

log = structlog.get_logger(__name__)

# Evaluating a condition and storing results take seconds. The step's own time is added when it is known.
LEASE: Final = timedelta(seconds=60)
# A step that kills its worker again and again must not do so for ever.
MAX_STARTS: Final = 10
# Cloud Tasks' clock and ours need not agree.
_CLOCKS_DIFFER_BY: Final = timedelta(seconds=5)


def run(step_run_id: UUID) -> None:
    """Run one attempt, unless there is none to run. Raises: LeaseHeld, TryLater, RowGone."""
    with WorkflowStepRun.objects.leased(step_run_id, LEASE) as step_run:
        if step_run.is_finished:
            return
        now = timezone.now()
        if step_run.not_before is not None and step_run.not_before > now + _CLOCKS_DIFFER_BY:
            return  # a duplicate of the attempt before; the task of this one comes in time
        try:
            _attempt(step_run, now)
        except LeaseLost as lost:
            # The run was cancelled, or another worker took over: whatever this one found is not wanted.
            log.warning("a step's result was thrown away", step_run=str(step_run_id), reason=str(lost))


def _attempt(step_run: WorkflowStepRun, now: datetime) -> None:
    definition = step_run.step.definition
    seconds = 0 if isinstance(definition, SimulationStep) else definition.timeout_seconds
    ends = now + LEASE + timedelta(seconds=seconds)
    step_run.while_held(
        state=StepState.RUNNING.value,
        starts=step_run.starts + 1,
        started_at=step_run.started_at or now,
        lease_expires_at=ends,
        due_at=ends,
    )
    try:
        result = _result(step_run)
    except Busy as busy:
        # Nothing was begun, so nothing is counted. The queue comes back.
        step_run.while_held(state=StepState.PENDING.value, starts=step_run.starts - 1)
        raise TryLater(str(busy), seconds=5) from None
    _store(step_run, result)


def _result(step_run: WorkflowStepRun) -> Result:
    if step_run.starts > MAX_STARTS:
        return Failure(code="worker-lost", detail=f"{MAX_STARTS} workers began this attempt and never came back")
    try:
        job = Work(
            id=step_run.id,
            run_id=step_run.run_id,
            definition=step_run.step.definition,
            variables=variables_of(step_run),
            organization_id=step_run.run.organization_id,
            started_at=step_run.run.created_at,
        )
        if job.definition.condition and (why_not := pool().why_not(job.definition.condition, job.variables)):
            if why_not == "false":
                return Skip(code="condition", detail=f"the condition is false: {job.definition.condition}"[:500])
            return Failure(code="bad-condition", detail=why_not)
        return work.perform(job)
    except Refused as refused:
        return Failure(code=refused.code, detail=f"{refused.detail}: {refused.remedy}")
    except (Busy, DatabaseError, InterfaceError):
        raise  # the queue delivers this attempt again
    except Exception as error:
        log.exception("a step failed unexpectedly", step_run=str(step_run.id))
        return Failure(code="internal-error", detail=f"{type(error).__name__}; the error is logged", is_retryable=True)


def variables_of(step_run: WorkflowStepRun) -> dict[str, Any]:
    """What a step sees: the run's inputs, and the results of the steps that had to end before it."""
    siblings = list(step_run.run.steps.select_related("step").defer("step__settings", "problem"))
    visible = engine.ancestors([sibling.step.as_step() for sibling in siblings])[step_run.step.key]
    return {
        "inputs": step_run.run.inputs,
        "steps": {
            sibling.step.key: {"state": sibling.state, "outputs": sibling.outputs or {}}
            for sibling in siblings
            if sibling.step.key in visible
        },
    }


def _store(step_run: WorkflowStepRun, result: Result) -> None:
    """Write the result, what follows from it and the tasks for that, or nothing. Raises: LeaseLost."""
    now = timezone.now()
    with runs.locked(step_run.run_id) as run:
        columns = _columns(step_run, result, now)
        step_run.while_held(**columns, lease_token=None, lease_expires_at=None)
        _follow(run, step_run, result, now)


def finish_waiting(run_id: UUID, step_run_id: UUID, attempt: int, result: Done | Failure) -> bool:
    """End a WAITING attempt. False when it no longer waits, and nothing was changed."""
    now = timezone.now()
    with runs.locked(run_id) as run:
        step_run = WorkflowStepRun.objects.select_for_update(of=("self",)).get(id=step_run_id)
        if step_run.state != StepState.WAITING.value or step_run.attempt != attempt:
            return False
        for name, value in _columns(step_run, result, now).items():
            setattr(step_run, name, value)
        step_run.save()
        _follow(run, step_run, result, now)
    return True


def _columns(step_run: WorkflowStepRun, result: Result, now: datetime) -> dict[str, Any]:
    match result:
        case Done(outputs=outputs):
            return _end(StepState.SUCCESS, now) | {"outputs": outputs, "problem": None}
        case Skip():
            return _end(StepState.SKIPPED, now) | {"problem": result.problem}
        case Waits(timeout=timeout):
            return {"state": StepState.WAITING.value, "due_at": now + timeout}
        case Failure():
            settled = engine.settle_failure(
                step_run.step.as_step(),
                step_run.attempt,
                is_retryable=result.is_retryable,
                wait_at_least=result.retry_after,
            )
            failed = {"problem": result.problem, "outputs": result.outputs}
            if settled.rest is None:
                return _end(settled.state, now) | failed
            not_before = now + settled.rest
            return failed | {
                "state": settled.state.value,
                "attempt": step_run.attempt + 1,
                "starts": 0,
                "not_before": not_before,
                "due_at": not_before + runs.PICKED_UP_WITHIN,
            }


def _end(state: StepState, now: datetime) -> dict[str, Any]:
    return {"state": state.value, "finished_at": now, "due_at": None}


def _follow(run: WorkflowRun, step_run: WorkflowStepRun, result: Result, now: datetime) -> None:
    """`step_run` has its new state; its run's lock is held."""
    if step_run.is_final:
        runs.has_changed(run, step_run.id.hex)
    elif isinstance(result, Waits):
        SimulationJob.objects.create(
            organization_id=run.organization_id,
            step_run=step_run,
            attempt=step_run.attempt,
            kind=result.simulation.value,
            deadline_at=now + result.timeout,
        )
    else:
        next_attempt = occurrence(run_step, str(step_run.attempt))
        # Without deferral, the sweep is what comes back.
        if next_attempt.get_backend().supports_defer:
            next_attempt.using(run_after=step_run.not_before).enqueue(str(step_run.id))
