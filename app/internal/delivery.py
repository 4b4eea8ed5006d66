"""One delivery of a task: what the answer tells Cloud Tasks, and what becomes of a task that fails to the last.

2xx forgets the task; 429 and 5xx have it delivered again, until the queue's attempts are used up. Then Cloud Tasks
drops it, so the last attempt that fails leaves a dead letter.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Self
from uuid import UUID

import structlog
from django.db import close_old_connections, connection
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from app.dead_letters.letters import Letter, keep
from app.internal.callers import Callers
from app.leases import LeaseHeld, LeaseLost, RowGone
from app.queues import QUEUE_BY_NAME, QueueSpec
from app.tasking import CloudTask, TargetFailed, TryLater
from app.validations.engines.pool import Busy

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Which attempt this is, as Cloud Tasks tells. `number` counts from 1, and counts those that never reached us."""

    queue: QueueSpec
    task_name: str
    number: int

    @classmethod
    def of(cls, request: HttpRequest, queue: QueueSpec) -> Self:
        retries = request.headers.get("X-CloudTasks-TaskRetryCount", "0")
        return cls(
            queue=queue,
            task_name=request.headers.get("X-CloudTasks-TaskName", "")[:500],
            number=int(retries) + 1 if retries.isdecimal() else 1,
        )

    @property
    def is_last(self) -> bool:
        return self.number >= self.queue.max_attempts


def delivered(task: CloudTask[Any, Any], callers: Callers) -> URLPattern:
    """The address of a task: `run-validation/<id>`, for POST by these callers."""
    queue = QUEUE_BY_NAME[task.queue_name]

    def view(request: HttpRequest, id_: str) -> HttpResponse:
        try:
            row = UUID(id_)
        except ValueError:
            raise Http404(f"{id_} is not the id of a row") from None
        return deliver(task, str(row), Attempt.of(request, queue))

    # Not `<uuid:id_>`: whoever may not call learns nothing, and is refused at every address.
    return path(f"{task.route}/<slug:id_>", csrf_exempt(callers(require_POST(view))), name=task.route)


def deliver(task: CloudTask[Any, Any], id_: str, attempt: Attempt) -> HttpResponse:
    structlog.contextvars.bind_contextvars(task=attempt.task_name, attempt=attempt.number)
    try:
        task.call(id_)
    except RowGone as error:
        log.info("the task has nothing to do", reason=str(error))
    except (LeaseHeld, LeaseLost, TryLater, Busy) as error:
        # Acknowledging would lose the work if the worker that holds the lease dies. Come back instead. When there is
        # no next attempt, it is the reaper that looks whether the lease has ended without a result.
        return _again(HTTPStatus.TOO_MANY_REQUESTS, _seconds(error), str(error))
    except TargetFailed as error:
        if not attempt.is_last:
            return _again(HTTPStatus.SERVICE_UNAVAILABLE, 0, str(error))
        log.warning("somebody else's server failed to the last attempt", reason=str(error))
        if task.gives_up is not None:
            task.gives_up(id_, str(error))
    except Exception as error:
        log.exception("a task failed", exc_info=error, is_last=attempt.is_last)
        if not attempt.is_last:
            return _again(HTTPStatus.INTERNAL_SERVER_ERROR, 0, type(error).__name__)
        # A broken connection is what may have failed: whoever writes next needs a new one.
        renew_connection()
        letter = Letter.of(task, id_, error, task_name=attempt.task_name, attempts=attempt.number)
        if not keep(letter, task):
            return _again(HTTPStatus.INTERNAL_SERVER_ERROR, 0, "the dead letter could not be kept")
    return HttpResponse(status=HTTPStatus.NO_CONTENT)


def renew_connection() -> None:
    """Close the connection if it is broken; the next statement opens another one."""
    if not connection.in_atomic_block:
        close_old_connections()


def _seconds(error: Exception) -> int:
    if isinstance(error, LeaseHeld):
        return error.seconds_left
    return error.seconds if isinstance(error, TryLater) else 2


def _again(status: HTTPStatus, seconds: int, reason: str) -> HttpResponse:
    headers = {"Retry-After": str(seconds)} if seconds else {}
    return HttpResponse(reason[:200], status=status, content_type="text/plain", headers=headers)
