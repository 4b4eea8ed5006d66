"""The task that runs a job. It knows jobs, not HTTP; delivering it twice, also at the same moment, does no harm."""

from datetime import timedelta
from typing import Final
from uuid import UUID

from django.core.files.storage import default_storage
from django_tasks import TaskResultStatus, task

from app.ids import id_of
from app.queues import VALIDATIONS
from app.tasking import Outcome
from app.validations import results
from app.validations.engines.results import Refused
from app.validations.models import State, ValidationJob
from app.validations.sandbox import pool

# Longer than reading the submission, waiting for a validator and its wall clock take together. It need not be longer
# than the worst case: `results` writes under the lease's token, and refuses when another worker has taken over.
LEASE: Final = timedelta(seconds=60)

_STATUS: Final = {
    State.PENDING: TaskResultStatus.READY,
    State.RUNNING: TaskResultStatus.RUNNING,
    State.SUCCESS: TaskResultStatus.SUCCESSFUL,
    State.FAILED: TaskResultStatus.FAILED,
    State.CANCELLED: TaskResultStatus.FAILED,
}


def outcome(job_id: str) -> Outcome | None:
    job = ValidationJob.objects.filter(pk=id_of(job_id)).first()
    if job is None:
        return None
    return Outcome(
        status=_STATUS[State(job.state)],
        enqueued_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        return_value=job.verdict or None,
        error=job.problem["title"] if job.problem else "",
    )


@task(queue_name=VALIDATIONS.name, outcome=outcome, gives_up=results.give_up, reopens=results.reopen)
def run_validation(job_id: str) -> None:
    """Run a job to its end.

    Raises: LeaseHeld for a second delivery while the first one works; Busy when every validator is at work.
    """
    with ValidationJob.objects.leased(UUID(job_id), LEASE) as job:
        if job.is_finished:
            return
        with default_storage.open(job.media_name) as stored:
            body = stored.read()
        try:
            found = pool().run(body, job.content_type)
        except Refused as refused:
            results.fail(job, refused.as_dict())
        else:
            results.succeed(job, found)
