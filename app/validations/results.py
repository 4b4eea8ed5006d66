"""How a job ends: its last state, its findings and its webhooks, in one transaction."""

from typing import Any

from django.db import transaction
from django.utils import timezone

from app.outbox import UNFINISHED
from app.settings import env
from app.validations.engines.pool import Outcome
from app.validations.engines.results import Severity
from app.validations.models import Finding, State, ValidationJob, Verdict
from app.webhooks.events import announce

_NOT_LEASED = ValidationJob.NOT_LEASED


def columns_of(outcome: Outcome) -> dict[str, Any]:
    counts = {severity: sum(f["severity"] == severity.value for f in outcome.findings) for severity in Severity}
    return {
        "validator": outcome.validator,
        "filename": outcome.filename,
        "state": State.SUCCESS,
        "verdict": Verdict.FAIL if counts[Severity.ERROR] else Verdict.PASS,
        "errors": counts[Severity.ERROR],
        "warnings": counts[Severity.WARNING],
        "infos": counts[Severity.INFO],
        "findings_truncated": outcome.is_truncated,
        "finished_at": timezone.now(),
    }


def findings_of(job: ValidationJob, outcome: Outcome) -> list[Finding]:
    return [Finding(job=job, position=at, **finding) for at, finding in enumerate(outcome.findings)]


def succeed(job: ValidationJob, outcome: Outcome) -> None:
    """Raises: LeaseLost, and then nothing is written."""
    with transaction.atomic():
        job.while_held(**columns_of(outcome), **_NOT_LEASED)
        Finding.objects.bulk_create(findings_of(job, outcome))
        announce_end(job)


def fail(job: ValidationJob, problem: dict[str, Any]) -> None:
    """The submission cannot be validated; `problem` says why. Raises: LeaseLost, and then nothing is written."""
    with transaction.atomic():
        job.while_held(state=State.FAILED, problem=problem, finished_at=timezone.now(), **_NOT_LEASED)
        announce_end(job)


def give_up(job_id: str, error: str) -> None:
    """End a job whose last attempt failed, unless another worker is at it or has finished it."""
    with transaction.atomic():
        job = ValidationJob.objects.select_for_update().filter(pk=job_id).first()
        if job is None or job.is_finished or (job.lease_expires_at and job.lease_expires_at > timezone.now()):
            return
        end(job, State.FAILED, problem=internal_error())


def cancel(job: ValidationJob) -> bool:
    """Whether the job is cancelled. A worker that runs it at this moment finds its lease gone, and writes nothing."""
    with transaction.atomic():
        job = ValidationJob.objects.select_for_update().get(pk=job.pk)
        if not job.is_finished:
            end(job, State.CANCELLED)
        return job.state == State.CANCELLED


def reopen(job_id: str) -> str:
    """Have a failed job wait for a task again, and say for which one."""
    with transaction.atomic():
        job = ValidationJob.objects.select_for_update().filter(pk=job_id).first()
        if job is None:
            return "gone"  # its task will find nothing to do, and say so
        if job.state in (State.FAILED, *UNFINISHED) and job.lease_token is None:
            job.wait_again()
            job.problem, job.finished_at = None, None
            job.save()
        return job.occurrence


def end(job: ValidationJob, state: State, **columns: Any) -> None:
    """Of a locked row: the end that is not a worker's."""
    values = {"state": state, "finished_at": timezone.now(), **_NOT_LEASED, **columns}
    for name, value in values.items():
        setattr(job, name, value)
    job.save(update_fields=[*values])
    announce_end(job)


def announce_end(job: ValidationJob) -> None:
    announce(
        job.organization_id,
        "validation.finished",
        # Another generation is another end: a job that was requeued after a fix is announced again.
        f"{job.id}-{job.generation}",
        {
            "id": str(job.id),
            "url": f"https://{env.public_host}/api/validations/{job.id}",
            "validator": job.validator,
            "state": str(job.state),
            "verdict": str(job.verdict) or None,
            "errors": job.errors,
            "warnings": job.warnings,
            "infos": job.infos,
            "finished_at": job.finished_at.isoformat() if job.finished_at else None,
        },
    )


def internal_error() -> dict[str, Any]:
    """What a customer is told when it is not their submission that failed."""
    return {
        "code": "internal-error",
        "title": "Something failed on our side",
        "status": 500,
        "field": "",
        "detail": "the validation was tried several times; we are told, and will run it again",
        "remedy": "wait for it, or submit again",
    }
