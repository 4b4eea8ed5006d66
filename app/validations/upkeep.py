"""What schedules do for validations: enqueue again, take over from the dead, forget what has expired."""

from datetime import timedelta
from typing import Any, Final, cast

from django.core.files.storage import default_storage
from django.db import transaction
from django.utils import timezone

from app import outbox
from app.dead_letters.letters import Letter, keep
from app.outbox import Deadline
from app.tasking import CloudTask
from app.validations.models import ValidationJob
from app.validations.tasks import run_validation

_TASK: Final = cast("CloudTask[Any, Any]", run_validation)
_PURGE_BATCH: Final = 50


class WorkerDied(Exception):
    """Every worker that began the job died before it could say how it went."""


def sweep(deadline: Deadline) -> dict[str, int]:
    return outbox.sweep(ValidationJob, _TASK, deadline)


def reap(deadline: Deadline) -> dict[str, int]:
    return outbox.reap(ValidationJob, deadline, _give_up)


def purge_submissions(deadline: Deadline) -> dict[str, int]:
    """Delete objects that were kept long enough. The job stays, with its findings."""
    purged = 0
    while not deadline.is_over:
        with transaction.atomic():
            expired = list(
                ValidationJob.objects.filter(submission_expires_at__lte=timezone.now())
                .order_by("submission_expires_at")
                .select_for_update(skip_locked=True, of=("self",))[:_PURGE_BATCH]
            )
            for job in expired:
                if job.is_finished:
                    # Object first: should this be interrupted, it is deleted twice, and the second time is no error.
                    default_storage.delete(job.media_name)
                    job.submission_expires_at = None
                else:
                    job.submission_expires_at = timezone.now() + timedelta(days=1)
            ValidationJob.objects.bulk_update(expired, ["submission_expires_at"])
            purged += sum(job.submission_expires_at is None for job in expired)
        if len(expired) < _PURGE_BATCH:
            break
    return {"submissions": purged}


def _give_up(job_id: Any, attempts: int) -> None:
    job = ValidationJob.objects.get(pk=job_id)
    error = WorkerDied(f"{attempts} workers died while they ran the job")
    name = f"{_TASK.route}-{job_id}-{job.generation}-died"
    keep(Letter.of(_TASK, str(job_id), error, task_name=name, attempts=attempts), _TASK)
