"""What schedules do for webhooks: enqueue again, take over from the dead, forget what is long done."""

from datetime import timedelta
from typing import Any, Final, cast

from django.db.models.functions import Now

from app import outbox
from app.outbox import Deadline, delete_older
from app.tasking import CloudTask
from app.webhooks.models import DeliveryState, WebhookDelivery
from app.webhooks.tasks import deliver_webhook

KEPT: Final = timedelta(days=30)


def sweep(deadline: Deadline) -> dict[str, int]:
    return outbox.sweep(WebhookDelivery, cast("CloudTask[Any, Any]", deliver_webhook), deadline)


def reap(deadline: Deadline) -> dict[str, int]:
    return outbox.reap(WebhookDelivery, deadline, _give_up)


def purge(deadline: Deadline) -> dict[str, int]:
    return {"webhook deliveries": delete_older(WebhookDelivery, "finished_at", KEPT, deadline)}


def _give_up(delivery_id: Any, attempts: int) -> None:
    WebhookDelivery.objects.filter(pk=delivery_id, state=DeliveryState.PENDING).update(
        state=DeliveryState.FAILED,
        finished_at=Now(),
        sweep_at=None,
        last_error=f"{attempts} workers died while they sent this message",
    )
