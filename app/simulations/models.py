"""Simulation jobs: one attempt of one step of a workflow, carried out somewhere else.

The envelopes are objects in the region's bucket; the row holds their names and hashes, never what is in them.
"""

from collections.abc import Collection
from datetime import datetime
from typing import ClassVar
from uuid import UUID

from django.db import models
from django.db.models import Q
from django.utils import timezone

from app.ids import time_ordered_id
from app.organizations.models import Organization


class SimulationState(models.TextChoices):
    PENDING = "PENDING"  # nobody has been asked to run it yet
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


OPEN_STATES = (SimulationState.PENDING, SimulationState.RUNNING)
FINAL_STATES = (SimulationState.SUCCESS, SimulationState.FAILED, SimulationState.CANCELLED)


class SimulationKind(models.TextChoices):
    ENERGYPLUS = "ENERGYPLUS"
    FMI = "FMI"


class Backend(models.TextChoices):
    CLOUD_RUN = "CLOUD_RUN"
    MODAL = "MODAL"


class SimulationJob(models.Model):
    """A callback ends it, or the reaper when `deadline_at` has passed."""

    id = models.UUIDField(primary_key=True, default=time_ordered_id, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="simulation_jobs")
    step_run = models.ForeignKey(
        "workflows.WorkflowStepRun", on_delete=models.CASCADE, null=True, related_name="simulation_jobs"
    )
    attempt = models.PositiveSmallIntegerField(default=1)
    kind = models.CharField(max_length=10, choices=SimulationKind)
    state = models.CharField(max_length=9, choices=SimulationState, default=SimulationState.PENDING)

    backend = models.CharField(max_length=9, choices=Backend, blank=True, default="")
    execution = models.CharField(max_length=500, blank=True, default="", help_text="The backend's name for it.")
    input_envelope = models.CharField(max_length=500, blank=True, default="", help_text="Name of the object.")
    input_sha256 = models.CharField(max_length=64, blank=True, default="")
    output_envelope = models.CharField(max_length=500, blank=True, default="", help_text="Name of the object.")
    output_sha256 = models.CharField(max_length=64, blank=True, default="")
    problem = models.JSONField(null=True, blank=True)

    created_at = models.DateTimeField(default=timezone.now, editable=False)
    submitted_at = models.DateTimeField(null=True, editable=False)
    deadline_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [
            models.Index(
                fields=["deadline_at"], condition=Q(state__in=["PENDING", "RUNNING"]), name="simulationjob_overdue"
            )
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["step_run", "attempt"], name="simulationjob_of_attempt"),
            models.CheckConstraint(condition=Q(state__in=SimulationState.values), name="simulationjob_state_is_known"),
            models.CheckConstraint(
                condition=Q(state__in=FINAL_STATES, finished_at__isnull=False)
                | Q(state__in=OPEN_STATES, finished_at__isnull=True),
                name="simulationjob_finished_iff_final",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"

    @property
    def is_final(self) -> bool:
        return self.state in FINAL_STATES

    @classmethod
    def cancel(cls, *, step_run_ids: Collection[UUID], now: datetime) -> int:
        return cls.objects.filter(step_run__in=step_run_ids, state__in=OPEN_STATES).update(
            state=SimulationState.CANCELLED, finished_at=now
        )
