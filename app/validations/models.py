"""Validation jobs and their findings.

The row is the outbox: it is committed first and enqueued then, and while it is PENDING, `sweep_at` is when somebody has
to look whether its task is still in the queue.

Two questions, two fields: `state` says whether the job ran (an execution's SUCCESS or FAILED), `verdict` says whether
the document passed. A job whose document is wrong is a SUCCESS with the verdict FAIL.
"""

import os
import time
import uuid
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final, Self

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from app.leases import Leased, LeasedQuerySet
from app.organizations.models import ApiKey, Organization
from app.validations.engines.results import Severity, Validator


def time_ordered_id() -> uuid.UUID:
    """A version 7 UUID (RFC 9562): new rows land at the end of the index, and sorting by id sorts by time."""
    milliseconds = time.time_ns() // 1_000_000
    value = milliseconds << 80 | int.from_bytes(os.urandom(10), "big")
    return uuid.UUID(int=value & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62)


def first_id_of(moment: datetime) -> uuid.UUID:
    """The lowest id that a row made at `moment` can have."""
    milliseconds = max(0, int(moment.timestamp() * 1000))
    return uuid.UUID(int=milliseconds << 80 | 0x7 << 76)


class State(models.TextChoices):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


UNFINISHED: Final = (State.PENDING, State.RUNNING)
FIRST_SWEEP: Final = timedelta(minutes=1)
"""After this long, a job that nobody began is looked after."""


class Verdict(models.TextChoices):
    PASS = "PASS"  # noqa: S105  # a verdict
    FAIL = "FAIL"


class ValidationJobs(LeasedQuerySet["ValidationJob"]):
    def unfinished(self) -> Self:
        return self.filter(state__in=UNFINISHED)


class ValidationJob(Leased):
    """One validation of one submission. The submission itself is the object `media_name` in the region's bucket."""

    id = models.UUIDField(primary_key=True, default=time_ordered_id, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="validation_jobs")
    api_key = models.ForeignKey(ApiKey, on_delete=models.SET_NULL, null=True, related_name="+")
    validator = models.CharField(max_length=20, choices=[(v.value, v.value) for v in Validator])
    state = models.CharField(max_length=10, choices=State, default=State.PENDING)
    verdict = models.CharField(max_length=4, choices=Verdict, blank=True, default="")
    filename = models.CharField(max_length=255, blank=True, default="")

    media_name = models.CharField(max_length=200)
    content_type = models.CharField(max_length=255)
    content_bytes = models.PositiveIntegerField()
    content_sha256 = models.CharField(max_length=64)

    errors = models.PositiveIntegerField(default=0)
    warnings = models.PositiveIntegerField(default=0)
    infos = models.PositiveIntegerField(default=0)
    findings_truncated = models.BooleanField(default=False)
    attempts = models.PositiveSmallIntegerField(
        default=0, help_text="How often a worker began, also those that died before they could say so."
    )
    generation = models.PositiveSmallIntegerField(
        default=0, help_text="Which task is the job's: a new one when the queue lost the one before."
    )
    sweep_at = models.DateTimeField(null=True, editable=False)
    sweeps = models.PositiveSmallIntegerField(default=0)
    submission_expires_at = models.DateTimeField(null=True, editable=False)
    problem = models.JSONField(null=True, blank=True, help_text="Why a FAILED job failed, as a problem document.")

    created_at = models.DateTimeField(default=timezone.now, editable=False)
    started_at = models.DateTimeField(null=True, editable=False)
    finished_at = models.DateTimeField(null=True, editable=False)

    objects: ClassVar[ValidationJobs] = ValidationJobs.as_manager()  # type: ignore[assignment]

    on_lease: ClassVar[dict[str, Any]] = {
        "state": State.RUNNING,
        "attempts": F("attempts") + 1,
        "started_at": Coalesce("started_at", Now()),
        "sweep_at": None,
    }
    on_release: ClassVar[dict[str, Any]] = {"state": State.PENDING, "sweep_at": Now() + FIRST_SWEEP}

    class Meta:
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [
            models.Index(fields=["organization", "-id"], name="validationjob_of_organization"),
            models.Index(fields=["organization", "state", "verdict", "-id"], name="validationjob_by_outcome"),
            # What the schedules look for. Each holds only the rows that are looked for, however many are finished.
            models.Index(fields=["sweep_at"], condition=Q(state="PENDING"), name="validationjob_to_sweep"),
            models.Index(fields=["lease_expires_at"], condition=Q(state="RUNNING"), name="validationjob_to_reap"),
            models.Index(
                fields=["submission_expires_at"],
                condition=Q(submission_expires_at__isnull=False),
                name="validationjob_to_purge",
            ),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(state__in=State.values), name="validationjob_state_is_known"),
            models.CheckConstraint(
                condition=Q(state=State.SUCCESS, verdict__in=Verdict.values) | ~Q(state=State.SUCCESS) & Q(verdict=""),
                name="validationjob_verdict_iff_success",
            ),
            models.CheckConstraint(
                condition=Q(state__in=[State.SUCCESS, State.FAILED, State.CANCELLED], finished_at__isnull=False)
                | Q(state__in=UNFINISHED, finished_at__isnull=True),
                name="validationjob_finished_iff_final",
            ),
            # A job that waits is looked after; one that does not would be swept for ever.
            models.CheckConstraint(
                condition=Q(state=State.PENDING, sweep_at__isnull=False)
                | ~Q(state=State.PENDING) & Q(sweep_at__isnull=True),
                name="validationjob_swept_iff_pending",
            ),
            models.CheckConstraint(
                condition=Q(state=State.RUNNING, lease_token__isnull=False, lease_expires_at__isnull=False)
                | ~Q(state=State.RUNNING) & Q(lease_token__isnull=True, lease_expires_at__isnull=True),
                name="validationjob_leased_iff_running",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.validator} {self.id}"

    @property
    def is_finished(self) -> bool:
        return self.state not in UNFINISHED

    @property
    def occurrence(self) -> str:
        """Which of its tasks the job waits for; see `app.tasking.occurrence`."""
        return str(self.generation) if self.generation else ""


class Finding(models.Model):
    """One thing that a validator found. `position` keeps the validator's order."""

    job = models.ForeignKey(ValidationJob, on_delete=models.CASCADE, related_name="findings")
    position = models.PositiveSmallIntegerField()
    severity = models.CharField(max_length=7, choices=[(s.value, s.value) for s in Severity])
    code = models.CharField(max_length=100)
    path = models.TextField(blank=True, default="")
    line = models.PositiveIntegerField(null=True)
    column = models.PositiveIntegerField(null=True)
    message = models.TextField()

    class Meta:
        ordering: ClassVar = ["job", "position"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["job", "position"], name="finding_position_is_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.severity} {self.code}"
