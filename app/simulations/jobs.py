"""How a simulation job ends: by a callback, or by the reaper. Either way its step goes on.

Submission to Cloud Run or Modal is not here yet. It will set `backend`, `execution` and `submitted_at`, and register
with the reaper how to look for an output that was written without a callback.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import structlog
from django.db import transaction
from django.utils import timezone

from app.outbox import BATCH, Deadline
from app.simulations.models import OPEN_STATES, SimulationJob, SimulationState
from app.workflows import attempts
from app.workflows.work import Done, Failure

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What compute says about a job. The output envelope is an object that it has already written."""

    status: Literal["SUCCESS", "FAILED"]
    output_envelope: str = ""
    output_sha256: str = ""
    code: str = ""
    detail: str = ""
    is_retryable: bool = False


Look = Callable[[SimulationJob], Report | None]
"""At an overdue job's execution and output: what it came to, or None when it came to nothing."""


class AlreadyEnded(Exception):
    """The job ended with another result than the one that is reported."""


def finish(job_id: UUID, report: Report) -> SimulationJob:
    """End a job and the step that waits for it. The same report again changes nothing.

    Raises: AlreadyEnded; SimulationJob.DoesNotExist.
    """
    # The locks are taken in the order run, step run, job: so the row is read first without one.
    job = SimulationJob.objects.select_related("step_run").get(id=job_id)
    now = timezone.now()
    with transaction.atomic():
        if job.step_run is not None:
            attempts.finish_waiting(job.step_run.run_id, job.step_run.id, job.attempt, _result(report, job))
        job = SimulationJob.objects.select_for_update(of=("self",)).get(id=job_id)
        if job.is_final:
            if _outcome(job) == (report.status, report.output_sha256):
                return job
            raise AlreadyEnded(f"the job is {job.state} already")
        job.state = SimulationState(report.status)
        job.output_envelope, job.output_sha256 = report.output_envelope, report.output_sha256
        job.problem = {"code": report.code, "detail": report.detail} if report.status == "FAILED" else None
        job.finished_at = now
        job.save()
    return job


def _outcome(job: SimulationJob) -> tuple[str, str]:
    return job.state, job.output_sha256


def _result(report: Report, job: SimulationJob) -> Done | Failure:
    if report.status == "FAILED":
        return Failure(code=report.code or "simulation-failed", detail=report.detail, is_retryable=report.is_retryable)
    return Done(
        outputs={
            "simulation_job": str(job.id),
            "output_envelope": report.output_envelope,
            "output_sha256": report.output_sha256,
        }
    )


def reap(look: Look = lambda job: None, *, until: Deadline | None = None) -> int:
    """End every job whose deadline has passed: as its execution ended, or as timed out. Returns how many."""
    overdue = SimulationJob.objects.filter(state__in=OPEN_STATES, deadline_at__lt=timezone.now())
    reaped = 0
    for job in overdue.order_by("deadline_at")[:BATCH]:
        if until is not None and until.is_over:
            break
        report = look(job) or Report(
            status="FAILED",
            code="timed-out",
            detail=f"no callback came until {job.deadline_at.isoformat(timespec='seconds')}",
            is_retryable=True,
        )
        try:
            finish(job.id, report)
        except (AlreadyEnded, SimulationJob.DoesNotExist):
            continue  # a callback or a cancellation came first
        log.warning("a simulation was reaped", job=str(job.id), code=report.code, status=report.status)
        reaped += 1
    return reaped
