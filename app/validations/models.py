"""Validation jobs and their findings.

Two questions, two fields: `state` says whether the job ran (an execution's SUCCESS or FAILED), `verdict` says whether
the document passed. A job whose document is wrong is a SUCCESS with the verdict FAIL.
"""

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone

from app import outbox
from app.ids import first_id_of as first_id_of
from app.ids import time_ordered_id as time_ordered_id
from app.organizations.models import ApiKey, Organization
from app.outbox import OutboxQuerySet, OutboxRow
from app.validations.engines.results import Severity, Validator


class State(models.TextChoices):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Verdict(models.TextChoices):
    PASS = "PASS"  # noqa: S105  # a verdict
    FAIL = "FAIL"


class ValidationJobs(OutboxQuerySet["ValidationJob"]):
    pass


class ValidationJob(OutboxRow):
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
    submission_expires_at = models.DateTimeField(null=True, editable=False)
    problem = models.JSONField(null=True, blank=True, help_text="Why a FAILED job failed, as a problem document.")

    created_at = models.DateTimeField(default=timezone.now, editable=False)
    started_at = models.DateTimeField(null=True, editable=False)
    finished_at = models.DateTimeField(null=True, editable=False)

    objects: ClassVar[ValidationJobs] = ValidationJobs.as_manager()  # type: ignore[assignment]

    class Meta:
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [
            models.Index(fields=["organization", "-id"], name="validationjob_of_organization"),
            models.Index(fields=["organization", "state", "verdict", "-id"], name="validationjob_by_outcome"),
            *outbox.indexes("validationjob"),
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
                | Q(state__in=outbox.UNFINISHED, finished_at__isnull=True),
                name="validationjob_finished_iff_final",
            ),
            *outbox.constraints("validationjob"),
        ]

    def __str__(self) -> str:
        return f"{self.validator} {self.id}"


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
