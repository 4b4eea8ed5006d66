"""Webhooks: where an organisation wants to be told, and each message to it, once."""

from typing import ClassVar, Final, Literal, get_args

from django.db import models
from django.db.models import Q
from django.utils import timezone

from app import outbox
from app.ids import time_ordered_id
from app.organizations.models import Organization
from app.outbox import OutboxQuerySet, OutboxRow
from app.webhooks.signing import new_secret

Event = Literal["validation.finished", "workflow.finished"]
EVENTS: Final[tuple[Event, ...]] = get_args(Event)


def every_event() -> list[str]:
    return list(EVENTS)


class WebhookEndpoint(models.Model):
    """An address of an organisation, and the secret that it can check our messages with."""

    id = models.UUIDField(primary_key=True, default=time_ordered_id, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="webhook_endpoints")
    url = models.CharField(max_length=2000)
    description = models.CharField(max_length=200, blank=True, default="")
    events = models.JSONField(default=every_event)
    # In clear, as whoever signs must have it. Shown once, to whoever creates the endpoint.
    secret = models.CharField(max_length=100, default=new_secret, editable=False)
    previous_secret = models.CharField(max_length=100, blank=True, default="", editable=False)
    previous_secret_until = models.DateTimeField(null=True, blank=True, editable=False)
    is_active = models.BooleanField(default=True)
    is_internal = models.BooleanField(
        default=False,
        editable=False,
        help_text="Made by an operator: may have a private address, and be called without TLS.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [
            models.Index(fields=["organization"], condition=Q(is_active=True), name="webhookendpoint_active"),
        ]

    def __str__(self) -> str:
        return f"{self.url} of {self.organization_id}"

    @property
    def secrets(self) -> list[str]:
        """What signs: the old secret too, for as long as the receiver may not know the new one."""
        is_changing = self.previous_secret_until is not None and self.previous_secret_until > timezone.now()
        return [self.secret, *([self.previous_secret] if is_changing else [])]


class DeliveryState(models.TextChoices):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"


class WebhookDeliveries(OutboxQuerySet["WebhookDelivery"]):
    pass


class WebhookDelivery(OutboxRow):
    """One message to one endpoint. Sending it again keeps `message_id`, by which the receiver knows it has it."""

    id = models.UUIDField(primary_key=True, default=time_ordered_id, editable=False)
    endpoint = models.ForeignKey(WebhookEndpoint, on_delete=models.CASCADE, related_name="deliveries")
    event = models.CharField(max_length=100)
    message_id = models.CharField(max_length=200)
    payload = models.JSONField()
    state = models.CharField(max_length=9, choices=DeliveryState, default=DeliveryState.PENDING)
    last_status = models.PositiveSmallIntegerField(null=True)
    last_error = models.CharField(max_length=500, blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    started_at = models.DateTimeField(null=True, editable=False)
    finished_at = models.DateTimeField(null=True, editable=False)

    objects: ClassVar[WebhookDeliveries] = WebhookDeliveries.as_manager()  # type: ignore[assignment]

    class Meta:
        ordering: ClassVar = ["-id"]
        verbose_name_plural = "webhook deliveries"
        indexes: ClassVar = [
            models.Index(fields=["endpoint", "-id"], name="webhookdelivery_of_endpoint"),
            models.Index(
                fields=["finished_at"], condition=Q(finished_at__isnull=False), name="webhookdelivery_finished"
            ),
            *outbox.indexes("webhookdelivery"),
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["endpoint", "message_id"], name="webhookdelivery_is_made_once"),
            models.CheckConstraint(condition=Q(state__in=DeliveryState.values), name="webhookdelivery_state_is_known"),
            models.CheckConstraint(
                condition=Q(state__in=outbox.UNFINISHED, finished_at__isnull=True)
                | ~Q(state__in=outbox.UNFINISHED) & Q(finished_at__isnull=False),
                name="webhookdelivery_finished_iff_final",
            ),
            *outbox.constraints("webhookdelivery"),
        ]

    def __str__(self) -> str:
        return f"{self.event} {self.message_id}"
