"""What the schedules do for workflows: enqueue what was lost, and end what nobody will end."""

from datetime import timedelta
from typing import Any, Final

import structlog
from django.db import connection
from django.utils import timezone

from app.leases import RowGone
from app.outbox import BATCH, Deadline
from app.tasking import Submission, occurrence, submit
from app.workflows import attempts
from app.workflows.engine import StepState
from app.workflows.models import WorkflowStepRun
from app.workflows.runs import PICKED_UP_WITHIN
from app.workflows.tasks import advance_workflow, run_step
from app.workflows.work import Failure

log = structlog.get_logger(__name__)

# Each takes rows that nobody else holds, through a partial index, and puts them off: none is looked at twice at once.
RUNS: Final = """
    UPDATE workflows_workflowrun AS run
    SET needs_advance_since = now()
    FROM (
        SELECT id FROM workflows_workflowrun
        WHERE needs_advance_since < now() - %s * interval '1 second'
        ORDER BY needs_advance_since
        LIMIT %s
        FOR UPDATE SKIP LOCKED
    ) AS stale
    WHERE run.id = stale.id
    RETURNING run.id, 'again'
"""
STEPS: Final = """
    UPDATE workflows_workflowsteprun AS step
    SET due_at = now() + %s * interval '1 second'
    FROM (
        SELECT id FROM workflows_workflowsteprun
        WHERE due_at < now() AND state IN ('PENDING', 'RUNNING')
        ORDER BY due_at
        LIMIT %s
        FOR UPDATE SKIP LOCKED
    ) AS due
    WHERE step.id = due.id
    RETURNING step.id, step.attempt || '-again-' || step.starts
"""
# The job's own deadline ends a simulation's step. This is for a step whose job is gone.
_GRACE: Final = timedelta(minutes=10)


def sweep(deadline: Deadline) -> dict[str, int]:
    """Enqueue again tasks that were lost between commit and queue, and attempts whose worker died.

    Raises: QueueFailure.
    """
    return {
        "advances": _enqueue(RUNS, advance_workflow, deadline),
        "steps": _enqueue(STEPS, run_step, deadline),
    }


def _enqueue(statement: str, task: Any, deadline: Deadline) -> int:
    enqueued = 0
    while not deadline.is_over:
        with connection.cursor() as cursor:
            cursor.execute(statement, [PICKED_UP_WITHIN.total_seconds(), BATCH])
            due = cursor.fetchall()
        for id_, name in due:
            submission = submit(occurrence(task, name), str(id_))
            if submission is Submission.GONE:
                # The queue has had a task of this name. It stays taken for hours, and the row cannot wait for that.
                minute = int(timezone.now().timestamp()) // 60
                submission = submit(occurrence(task, f"{name}-{minute}"), str(id_))
            enqueued += submission is Submission.CREATED
        if len(due) < BATCH:
            break
    if enqueued:
        log.warning("workflow tasks were enqueued again", task=task.route, tasks=enqueued)
    return enqueued


def reap(deadline: Deadline) -> dict[str, int]:
    """End steps that wait for a callback that cannot come any more."""
    reaped = 0
    lost = WorkflowStepRun.objects.filter(state=StepState.WAITING.value, due_at__lt=timezone.now() - _GRACE)
    for step_run in lost.order_by("due_at")[:BATCH]:
        if deadline.is_over:
            break
        failure = Failure(code="timed-out", detail="no callback came in time", is_retryable=True)
        try:
            reaped += attempts.finish_waiting(step_run.run_id, step_run.id, step_run.attempt, failure)
        except RowGone:
            continue
    return {"steps timed out": reaped}
