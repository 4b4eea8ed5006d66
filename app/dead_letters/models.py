"""Tasks that failed to the last attempt. The row is what people look at; the copy in the paused queue outlives it."""

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone


class State(models.TextChoices):
    WAITING = "WAITING"
    REQUEUED = "REQUEUED"
    PURGED = "PURGED"


class DeadLetter(models.Model):
    """One task that ran out of attempts, and what somebody decided about it."""

    queue = models.CharField(max_length=100)
    task_name = models.CharField(max_length=500, help_text="The task's name in its queue.")
    route = models.CharField(max_length=100, help_text="The task's address below /internal/.")
    task_id = models.CharField(max_length=200, help_text="The id that the task carried.")
    attempts = models.PositiveIntegerField()
    error_type = models.CharField(max_length=200)
    error = models.TextField(blank=True, default="")
    trace = models.CharField(max_length=32, blank=True, default="")
    failed_at = models.DateTimeField(default=timezone.now)

    state = models.CharField(max_length=8, choices=State, default=State.WAITING)
    resolved_at = models.DateTimeField(null=True, blank=True)
    # Until the task is in its queue again: the row is the outbox of a requeue.
    requeue_occurrence = models.CharField(max_length=200, blank=True, default="")
    enqueue_at = models.DateTimeField(null=True, blank=True, editable=False)
    # Until the parked copy is deleted.
    is_parked = models.BooleanField(default=False)

    class Meta:
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            # A last attempt that is delivered twice is one dead letter.
            models.UniqueConstraint(fields=["queue", "task_name"], name="deadletter_of_one_task"),
            models.CheckConstraint(condition=Q(state__in=State.values), name="deadletter_state_is_known"),
            models.CheckConstraint(
                condition=Q(state=State.WAITING, resolved_at__isnull=True)
                | ~Q(state=State.WAITING) & Q(resolved_at__isnull=False),
                name="deadletter_resolved_iff_not_waiting",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["-id"], condition=Q(state="WAITING"), name="deadletter_waiting"),
            models.Index(fields=["enqueue_at"], condition=Q(enqueue_at__isnull=False), name="deadletter_to_enqueue"),
            models.Index(fields=["id"], condition=Q(is_parked=True) & ~Q(state="WAITING"), name="deadletter_to_unpark"),
        ]

    def __str__(self) -> str:
        return f"{self.route}/{self.task_id}"
