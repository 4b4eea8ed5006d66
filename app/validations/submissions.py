"""How a submission becomes a job: validated while the customer waits, or accepted, to be validated by the worker."""

import hashlib
from datetime import datetime, timedelta
from typing import Any

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import transaction

from app.idempotency.keys import Slot
from app.organizations.models import ApiKey
from app.outbox import FIRST_SWEEP
from app.settings import env
from app.validations import results
from app.validations.models import Finding, State, ValidationJob, time_ordered_id
from app.validations.sandbox import pool
from app.validations.tasks import run_validation


def accept(key: ApiKey, body: bytes, content_type: str, at: datetime, slot: Slot) -> ValidationJob:
    """Store a submission as a job that waits for the worker. From its commit on, nothing loses it.

    Raises: Refused, for what can be told without validating; Busy.
    """
    outline = pool().outline(body, content_type)
    job = _job(
        key,
        body,
        content_type,
        at,
        validator=outline.validator,
        filename=outline.filename,
        state=State.PENDING,
        sweep_at=at + FIRST_SWEEP,
    )
    # The object first: a row that names an object must find it. An object that no row names harms nobody.
    default_storage.save(job.media_name, ContentFile(body))
    with transaction.atomic():
        job.save(force_insert=True)
        slot.complete(202, str(job.id))
        run_validation.enqueue(str(job.id))
    return job


def validate(
    key: ApiKey, body: bytes, content_type: str, at: datetime, slot: Slot
) -> tuple[ValidationJob, list[Finding]]:
    """Validate a submission at once and store it with its result.

    Raises: Refused, and then nothing is stored; Busy.
    """
    outcome = pool().run(body, content_type)
    job = _job(key, body, content_type, at, started_at=at, attempts=1, **results.columns_of(outcome))
    findings = results.findings_of(job, outcome)
    default_storage.save(job.media_name, ContentFile(body))
    with transaction.atomic():
        job.save(force_insert=True)
        Finding.objects.bulk_create(findings)
        slot.complete(201, str(job.id))
        results.announce_end(job)
    return job, findings


def _job(key: ApiKey, body: bytes, content_type: str, at: datetime, **columns: Any) -> ValidationJob:
    job_id = time_ordered_id()
    return ValidationJob(
        id=job_id,
        organization_id=key.organization_id,
        api_key=key,
        media_name=f"submissions/{key.organization_id}/{at:%Y/%m/%d}/{job_id}",
        content_type=content_type,
        content_bytes=len(body),
        content_sha256=hashlib.sha256(body).hexdigest(),
        created_at=at,
        submission_expires_at=at + timedelta(days=env.submission_retention_days),
        **columns,
    )
