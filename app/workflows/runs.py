"""Runs in the database: start, advance, cancel, replay. The engine decides; this stores, and enqueues on commit.

Every change of a run's steps happens under the run's row lock. A change that the engine has to look at sets
`needs_advance_since` in its own transaction, and only an advance clears it: should the task be lost between the commit
and the queue, the sweep finds the run.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from django.db import transaction
from django.utils import timezone

from app.leases import RowGone
from app.organizations.models import ApiKey
from app.simulations.models import SimulationJob
from app.tasking import occurrence
from app.webhooks.events import announce
from app.workflows import engine
from app.workflows.engine import RunState, StepState
from app.workflows.models import WorkflowRun, WorkflowStepRun, WorkflowVersion
from app.workflows.tasks import advance_workflow, run_step

log = structlog.get_logger(__name__)

# A task is delivered within seconds. What nobody has picked up after this long is enqueued again.
PICKED_UP_WITHIN: Final = timedelta(minutes=2)


@contextmanager
def locked(run_id: UUID) -> Iterator[WorkflowRun]:
    """A transaction that holds the run's row. Whatever else it locks, it locks after this. Raises: RowGone."""
    with transaction.atomic():
        run = WorkflowRun.objects.select_for_update(of=("self",)).defer("inputs").filter(id=run_id).first()
        if run is None:
            raise RowGone(f"there is no workflow run {run_id}")
        yield run


def start(
    version: WorkflowVersion,
    inputs: dict[str, Any],
    *,
    api_key: ApiKey | None = None,
    replay_of: WorkflowRun | None = None,
    results: Mapping[str, WorkflowStepRun] | None = None,
) -> WorkflowRun:
    """A run that will begin when the transaction is committed. `results` are taken over instead of run again."""
    now = timezone.now()
    with transaction.atomic():
        run = WorkflowRun.objects.create(
            organization_id=version.workflow.organization_id,
            version=version,
            api_key=api_key,
            replay_of=replay_of,
            inputs=inputs,
            created_at=now,
            needs_advance_since=now,
        )
        WorkflowStepRun.objects.bulk_create(
            _copy(run, results[step.key]) if results and step.key in results else WorkflowStepRun(run=run, step=step)
            for step in version.steps.all()
        )
        occurrence(advance_workflow, "start").enqueue(str(run.id))
    return run


def _copy(run: WorkflowRun, result: WorkflowStepRun) -> WorkflowStepRun:
    copied = ("step_id", "state", "attempt", "outputs", "problem", "started_at", "finished_at")
    return WorkflowStepRun(run=run, copied_from=result, **{name: getattr(result, name) for name in copied})


def advance(run_id: UUID) -> None:
    """Let the engine decide, and store what it decides. Raises: RowGone."""
    now = timezone.now()
    with locked(run_id) as run:
        if run.is_final:
            return
        step_runs = {
            step_run.step.key: step_run
            for step_run in run.steps.select_related("step").defer("outputs", "problem", "step__settings")
        }
        decisions = engine.advance(
            RunState(run.state),
            [step_run.step.as_step() for step_run in step_runs.values()],
            {key: step_run.progress for key, step_run in step_runs.items()},
        )
        if decisions.skip:
            WorkflowStepRun.objects.filter(id__in=[step_runs[key].id for key in decisions.skip]).update(
                state=StepState.SKIPPED,
                finished_at=now,
                problem={"code": "dependencies", "detail": "its dependencies did not end as `run_when` asks"},
            )
        dispatched = [step_runs[key] for key in decisions.dispatch]
        if dispatched:
            WorkflowStepRun.objects.filter(id__in=[step_run.id for step_run in dispatched]).update(
                is_dispatched=True, due_at=now + PICKED_UP_WITHIN
            )
        for step_run in dispatched:
            occurrence(run_step, str(step_run.attempt)).enqueue(str(step_run.id))
        run.state = decisions.state
        run.started_at = run.started_at or now
        run.finished_at = now if decisions.state.is_final else None
        run.needs_advance_since = None
        run.save(update_fields=["state", "started_at", "finished_at", "needs_advance_since"])
        if decisions.state.is_final:
            _announce(run)
    if decisions.state.is_final:
        log.info("a workflow run has ended", run=str(run_id), state=decisions.state.value)


def has_changed(run: WorkflowRun, what: str) -> None:
    """Have the engine look at a run whose lock is held. `what` names the change: one change, one task."""
    run.needs_advance_since = run.needs_advance_since or timezone.now()
    run.save(update_fields=["needs_advance_since"])
    occurrence(advance_workflow, what).enqueue(str(run.id))


def cancel(run_id: UUID) -> WorkflowRun:
    """End a run now; one that has ended stays. A step at work is not interrupted, but its result is thrown away."""
    now = timezone.now()
    with locked(run_id) as run:
        if run.is_final:
            return run
        step_runs = WorkflowStepRun.objects.filter(run=run, state__in=[s.value for s in StepState if not s.is_final])
        SimulationJob.cancel(step_run_ids=list(step_runs.values_list("id", flat=True)), now=now)
        # Without its token, a worker can write nothing.
        step_runs.update(
            state=StepState.CANCELLED, finished_at=now, due_at=None, lease_token=None, lease_expires_at=None
        )
        run.state, run.finished_at, run.needs_advance_since = RunState.CANCELLED, now, None
        run.save(update_fields=["state", "finished_at", "needs_advance_since"])
        _announce(run)
    return run


def _announce(run: WorkflowRun) -> None:
    ended = {
        "workflow": str(run.version.workflow_id),
        "version": run.version.number,
        "run": str(run.id),
        "state": str(run.state),
        "finished_at": run.finished_at.isoformat() if run.finished_at else None,
    }
    announce(run.organization_id, "workflow.finished", str(run.id), ended)


class NothingToReplay(Exception):
    """The run has not ended, or nothing in it has failed."""


def replay(run: WorkflowRun, chosen: Collection[str] | None = None, *, api_key: ApiKey | None = None) -> WorkflowRun:
    """A run of the same version with the same inputs, which takes over what did not fail.

    Raises: NothingToReplay; KeyError with a step that the workflow has not.
    """
    if not run.is_final:
        raise NothingToReplay(f"the run is {run.state}: wait for its end, or cancel it")
    step_runs = {step_run.step.key: step_run for step_run in run.steps.select_related("step")}
    repeated = engine.to_repeat(
        [step_run.step.as_step() for step_run in step_runs.values()],
        {key: StepState(step_run.state) for key, step_run in step_runs.items()},
        chosen,
    )
    if not repeated:
        raise NothingToReplay("no step has failed: name the steps to run again")
    kept = {key: step_run for key, step_run in step_runs.items() if key not in repeated}
    return start(run.version, run.inputs, api_key=api_key, replay_of=run, results=kept)
