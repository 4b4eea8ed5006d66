"""What Cloud Scheduler calls: a handler for each row of `app.schedules`, made of what each part of the app does.

Every part works in bounded batches until a deadline, and may run twice at once: it takes rows that nobody else holds.
"""

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Final

import structlog
from django.contrib.sessions.models import Session
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import URLPattern, path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from app.callbacks import receipts
from app.dead_letters import letters
from app.idempotency.models import IdempotencyKey
from app.internal.callers import Callers
from app.internal.delivery import renew_connection
from app.outbox import Deadline, delete_older
from app.schedules import SCHEDULES, ScheduleSpec
from app.simulations import upkeep as simulations
from app.tasks import TASKS
from app.validations import upkeep as validations
from app.webhooks import upkeep as webhooks
from app.workflows import upkeep as workflows

log = structlog.get_logger(__name__)

Part = Callable[[Deadline], Mapping[str, int]]
# The rest is for what is begun at the end, and for the answer to arrive.
_SHARE_OF_DEADLINE: Final = 0.6


def _sweep_dead_letters(deadline: Deadline) -> Mapping[str, int]:
    return letters.sweep(TASKS, deadline)


def _clear_sessions(deadline: Deadline) -> Mapping[str, int]:
    return {"sessions": delete_older(Session, "expire_date", timedelta(0), deadline)}


def _purge_idempotency_keys(deadline: Deadline) -> Mapping[str, int]:
    return {"keys": delete_older(IdempotencyKey, "expires_at", timedelta(0), deadline)}


HANDLERS: Final[dict[str, tuple[Part, ...]]] = {
    "re-enqueue-pending": (
        validations.sweep,
        webhooks.sweep,
        workflows.sweep,
        partial(letters.enqueue_requeued, TASKS),
    ),
    "reap-stuck-runs": (validations.reap, webhooks.reap, simulations.reap, workflows.reap),
    "sweep-dead-letters": (_sweep_dead_letters,),
    "purge-expired-submissions": (validations.purge_submissions,),
    "purge-expired-outputs": (webhooks.purge,),
    "clear-sessions": (_clear_sessions,),
    "purge-idempotency-keys": (_purge_idempotency_keys,),
    "purge-callback-receipts": (receipts.purge,),
}


def scheduled(callers: Callers) -> list[URLPattern]:
    """An address for each row: `scheduled/<name>`. A row without a handler does not start."""
    return [_address(spec, HANDLERS[spec.name], callers) for spec in SCHEDULES]


def _address(spec: ScheduleSpec, parts: tuple[Part, ...], callers: Callers) -> URLPattern:
    def view(request: HttpRequest) -> HttpResponse:
        return run(spec, parts)

    return path(f"scheduled/{spec.name}", csrf_exempt(callers(require_POST(view))), name=spec.name)


def run(spec: ScheduleSpec, parts: tuple[Part, ...]) -> HttpResponse:
    """Every part, though one fails: 500 then, and Cloud Scheduler tries again as the row says."""
    started = time.monotonic()
    seconds = spec.attempt_deadline_seconds * _SHARE_OF_DEADLINE / max(1, len(parts))
    counts: dict[str, int] = {}
    failed: list[str] = []
    for part in parts:
        try:
            found = part(Deadline.after(seconds))
        except Exception as error:
            log.exception("a part of a schedule failed", exc_info=error, schedule=spec.name)
            failed.append(type(error).__name__)
            renew_connection()
        else:
            for name, count in found.items():
                counts[name] = counts.get(name, 0) + count
    report: dict[str, Any] = {"counts": counts, "failed": failed, "seconds": round(time.monotonic() - started, 3)}
    log.info("a schedule ran", schedule=spec.name, **report)
    return JsonResponse(report, status=500 if failed else 200)
