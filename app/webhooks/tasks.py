"""The task that sends one message. A receiver may get a message twice, with one `webhook-id`; the row ends once."""

import json
import time
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.db import transaction
from django.utils import timezone
from django_tasks import TaskResultStatus, task

from app.ids import id_of
from app.queues import WEBHOOKS
from app.tasking import Outcome, TargetFailed
from app.webhooks import sending, signing
from app.webhooks.models import DeliveryState, WebhookDelivery, WebhookEndpoint

# Longer than connecting and waiting for an answer take together.
LEASE: Final = timedelta(seconds=60)
_GONE: Final = 410
_STATUS: Final = {
    DeliveryState.PENDING: TaskResultStatus.READY,
    DeliveryState.RUNNING: TaskResultStatus.RUNNING,
    DeliveryState.DELIVERED: TaskResultStatus.SUCCESSFUL,
    DeliveryState.FAILED: TaskResultStatus.FAILED,
}


def outcome(delivery_id: str) -> Outcome | None:
    row = WebhookDelivery.objects.filter(pk=id_of(delivery_id)).first()
    if row is None:
        return None
    return Outcome(
        status=_STATUS[DeliveryState(row.state)],
        enqueued_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        return_value=row.last_status,
        error=row.last_error,
    )


def give_up(delivery_id: str, error: str) -> None:
    with transaction.atomic():
        row = WebhookDelivery.objects.select_for_update().filter(pk=UUID(delivery_id)).first()
        if row is None or row.is_finished or row.lease_token is not None:
            return
        row.state, row.finished_at, row.sweep_at = DeliveryState.FAILED, timezone.now(), None
        row.last_error = row.last_error or error[:500]
        row.save(update_fields=["state", "finished_at", "sweep_at", "last_error"])


def reopen(delivery_id: str) -> str:
    """Have a message sent again that was not delivered, and say which task does it."""
    with transaction.atomic():
        row = WebhookDelivery.objects.select_for_update().filter(pk=UUID(delivery_id)).first()
        if row is None:
            return "gone"
        if row.state != DeliveryState.DELIVERED and row.lease_token is None:
            row.wait_again()
            row.finished_at = None
            row.save()
        return row.occurrence


@task(queue_name=WEBHOOKS.name, outcome=outcome, gives_up=give_up, reopens=reopen)
def deliver_webhook(delivery_id: str) -> None:
    """Raises: LeaseHeld; TargetFailed, to be tried again."""
    with WebhookDelivery.objects.leased(UUID(delivery_id), LEASE) as row:
        if row.is_finished:
            return
        endpoint = row.endpoint
        if not endpoint.is_active:
            _end(row, DeliveryState.FAILED, last_error="the endpoint was switched off")
            return
        body = json.dumps(row.payload, ensure_ascii=False, separators=(",", ":")).encode()
        headers = signing.headers(row.message_id, int(time.time()), body, endpoint.secrets)
        try:
            status = sending.post(endpoint.url, body, headers, is_internal=endpoint.is_internal)
        except sending.NotAllowed as error:
            _end(row, DeliveryState.FAILED, last_error=str(error)[:500])
            return
        except sending.Unreachable as error:
            row.while_held(last_status=None, last_error=str(error)[:500])
            raise TargetFailed(str(error)) from None
        if 200 <= status <= 299:
            _end(row, DeliveryState.DELIVERED, last_status=status, last_error="")
        elif status == _GONE:
            # Standard Webhooks: the receiver wants no more of these.
            WebhookEndpoint.objects.filter(pk=endpoint.pk).update(is_active=False)
            _end(
                row, DeliveryState.FAILED, last_status=status, last_error="the endpoint is gone (410), and switched off"
            )
        else:
            row.while_held(last_status=status, last_error=f"the endpoint answered {status}")
            raise TargetFailed(f"{endpoint.url.split('?')[0]} answered {status}")


def _end(row: WebhookDelivery, state: DeliveryState, **columns: object) -> None:
    row.while_held(state=state, finished_at=timezone.now(), **WebhookDelivery.NOT_LEASED, **columns)
