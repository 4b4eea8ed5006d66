"""What happened, for whoever wants to be told: a message to each endpoint that listens."""

from typing import Any

from django.utils import timezone

from app.outbox import FIRST_SWEEP
from app.webhooks.models import WebhookDelivery, WebhookEndpoint
from app.webhooks.tasks import deliver_webhook


def announce(organization_id: int, event: str, message_id: str, data: dict[str, Any]) -> None:
    """Tell the organisation's endpoints, when the transaction is committed. A `message_id` is told once."""
    endpoints = WebhookEndpoint.objects.filter(organization_id=organization_id, is_active=True).only("id", "events")
    now = timezone.now()
    payload = {"type": event, "timestamp": now.isoformat(), "data": data}
    for endpoint in endpoints:
        if event not in endpoint.events:
            continue
        delivery, is_new = WebhookDelivery.objects.get_or_create(
            endpoint=endpoint,
            message_id=f"msg_{message_id}",
            defaults={"event": event, "payload": payload, "created_at": now, "sweep_at": now + FIRST_SWEEP},
        )
        if is_new:
            deliver_webhook.enqueue(str(delivery.id))
