"""The tasks that move a run: decide what comes next, and run one step. Both may be delivered any number of times."""

from uuid import UUID

from django_tasks import task
from django_tasks.base import TaskResultStatus

from app.ids import id_of
from app.queues import WORKFLOWS
from app.tasking import Outcome
from app.workflows.engine import RunState, StepState
from app.workflows.models import WorkflowRun, WorkflowStepRun

_STATUS_BY_RUN_STATE = {
    RunState.PENDING: TaskResultStatus.READY,
    RunState.RUNNING: TaskResultStatus.RUNNING,
    RunState.SUCCESS: TaskResultStatus.SUCCESSFUL,
    RunState.FAILED: TaskResultStatus.FAILED,
    RunState.CANCELLED: TaskResultStatus.FAILED,
}
_STATUS_BY_STEP_STATE = {
    StepState.PENDING: TaskResultStatus.READY,
    StepState.RUNNING: TaskResultStatus.RUNNING,
    StepState.WAITING: TaskResultStatus.RUNNING,
    StepState.SUCCESS: TaskResultStatus.SUCCESSFUL,
    StepState.SKIPPED: TaskResultStatus.SUCCESSFUL,
    StepState.FAILED: TaskResultStatus.FAILED,
    StepState.CANCELLED: TaskResultStatus.FAILED,
}


def _run_outcome(run_id: str) -> Outcome | None:
    run = WorkflowRun.objects.filter(id=id_of(run_id)).first()
    if run is None:
        return None
    return Outcome(
        status=_STATUS_BY_RUN_STATE[RunState(run.state)],
        enqueued_at=run.created_at,
        started_at=run.started_at,
        finished_at=run.finished_at,
    )


def _step_outcome(step_run_id: str) -> Outcome | None:
    step_run = WorkflowStepRun.objects.filter(id=id_of(step_run_id)).first()
    if step_run is None:
        return None
    return Outcome(
        status=_STATUS_BY_STEP_STATE[StepState(step_run.state)],
        started_at=step_run.started_at,
        finished_at=step_run.finished_at,
        return_value=step_run.outputs,
        error=str((step_run.problem or {}).get("detail", "")),
    )


@task(queue_name=WORKFLOWS.name, outcome=_run_outcome)
def advance_workflow(run_id: str) -> None:
    """Decide what comes next in a run. Raises: RowGone."""
    # These modules enqueue the tasks of this one.
    from app.workflows import runs

    runs.advance(UUID(run_id))


@task(queue_name=WORKFLOWS.name, outcome=_step_outcome)
def run_step(step_run_id: str) -> None:
    """Run one attempt of a step. Raises: LeaseHeld, TryLater, RowGone."""
    from app.workflows import attempts

    attempts.run(UUID(step_run_id))
