"""How a dead letter is kept, read back, requeued and purged."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final, Self
from uuid import UUID

import structlog
from django.db import DatabaseError, InterfaceError, transaction
from django.utils import timezone
from django_tasks import task_backends
from django_tasks.base import TaskResultStatus

from app.dead_letters.models import DeadLetter, State
from app.outbox import Deadline
from app.queues import QUEUE_BY_NAME, QUEUES
from app.tasking import CloudTask, CloudTasksBackend, HttpTask, QueueFailure, TaskClient, TaskExists, occurrence, submit

log = structlog.get_logger(__name__)

# A body is at most 10 kB here; a traceback is not what a dead letter is for, the log entry of the same trace has it.
_MAX_ERROR_LENGTH: Final = 2000
_BATCH: Final = 100


class NotRequeued(Exception):
    """The letter cannot be requeued. The message says why."""


@dataclass(frozen=True, kw_only=True)
class Letter:
    """What is known of a task when its last attempt failed: the same in the row and in the parked copy."""

    queue: str
    task_name: str
    route: str
    task_id: str
    attempts: int
    error_type: str
    error: str
    trace: str
    failed_at: str

    @classmethod
    def of(cls, task: CloudTask[Any, Any], id_: str, error: Exception, *, task_name: str, attempts: int) -> Self:
        return cls(
            queue=task.queue_name,
            task_name=task_name or f"{task.route}-{id_}",
            route=task.route,
            task_id=id_,
            attempts=attempts,
            error_type=f"{type(error).__module__}.{type(error).__qualname__}"[:200],
            error=str(error)[:_MAX_ERROR_LENGTH].replace("\x00", ""),
            trace=str(structlog.contextvars.get_contextvars().get("trace_id", ""))[:32],
            failed_at=timezone.now().isoformat(),
        )

    def parked(self, like: HttpTask) -> HttpTask:
        """The copy for the paused queue. It has the task's own address, so that resuming the queue would deliver it."""
        return HttpTask(
            queue=QUEUE_BY_NAME[self.queue].dead_letter_name,
            name=self.task_name,
            url=like.url,
            service_account=like.service_account,
            audience=like.audience,
            body=json.dumps({"dead_letter": asdict(self)}).encode(),
        )

    @classmethod
    def read(cls, parked: HttpTask) -> Self | None:
        """The letter in a parked copy; None when somebody else put the task there."""
        try:
            found = cls(**json.loads(parked.body)["dead_letter"])
            datetime.fromisoformat(found.failed_at)
            UUID(found.task_id)  # every task carries the id of its row
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        return found if found.queue in QUEUE_BY_NAME else None


def keep(letter: Letter, task: CloudTask[Any, Any]) -> bool:
    """Park a copy, write the row, bring the task's own row to its end. False when neither copy nor row could be kept.

    The copy comes first: the database is the likelier one to have failed, and the sweep reads the copy back.
    """
    is_parked = _park(letter, task)
    try:
        is_new = _write(letter, task, is_parked=is_parked)
    except Exception as error:
        log.exception("a dead letter has no row yet", exc_info=error, is_parked=is_parked)
        if is_parked:
            _count(letter)
        return is_parked
    if is_new:
        _count(letter)
    return True


def sweep(tasks: Iterable[CloudTask[Any, Any]], deadline: Deadline) -> dict[str, int]:
    """Read back parked copies that have no row, and delete those that were decided about, or were done after all."""
    task_by_route = {task.route: task for task in tasks}
    counts = {"read back": 0, "unparked": 0, "foreign": 0, "done since": 0}
    client = _client()
    if client is None:
        return counts
    for spec in QUEUES:
        parked = client.tasks_in(spec.dead_letter_name)
        while (batch := list(islice(parked, _BATCH))) and not deadline.is_over:
            _read_back(client, batch, task_by_route, counts)
    counts["unparked"] = _unpark(client, deadline)
    return counts


def _read_back(
    client: TaskClient, batch: list[HttpTask], task_by_route: dict[str, CloudTask[Any, Any]], counts: dict[str, int]
) -> None:
    found = [letter for letter in map(Letter.read, batch) if letter is not None and letter.route in task_by_route]
    counts["foreign"] += len(batch) - len(found)
    known = set(
        DeadLetter.objects.filter(task_name__in=[letter.task_name for letter in found]).values_list(
            "queue", "task_name"
        )
    )
    for letter in found:
        if (letter.queue, letter.task_name) in known:
            continue
        task = task_by_route[letter.route]
        if _is_done(task, letter.task_id):
            client.delete(QUEUE_BY_NAME[letter.queue].dead_letter_name, letter.task_name)
            counts["done since"] += 1
        else:
            counts["read back"] += _write(letter, task, is_parked=True)


def _is_done(task: CloudTask[Any, Any], task_id: str) -> bool:
    """Whether there is nothing left to do: the sweep had it tried again when the database was back, or it was deleted.

    A task without an outcome may have everything to do.
    """
    if task.outcome is None:
        return False
    outcome = task.outcome(task_id)
    return outcome is None or outcome.status is TaskResultStatus.SUCCESSFUL


def enqueue_requeued(tasks: Iterable[CloudTask[Any, Any]], deadline: Deadline) -> dict[str, int]:
    """Enqueue what was requeued and is not in its queue yet."""
    task_by_route = {task.route: task for task in tasks}
    done = 0
    # A minute for the requeue itself, which has usually done it by then.
    late = timezone.now() - timedelta(minutes=1)
    for row in DeadLetter.objects.filter(enqueue_at__lt=late).order_by("enqueue_at")[:_BATCH]:
        task = task_by_route.get(row.route)
        if task is not None and not deadline.is_over:
            _enqueue_row(row, task)
            done += 1
    return {"requeued": done}


def requeue(letter_id: int, tasks: Iterable[CloudTask[Any, Any]]) -> DeadLetter:
    """Have the task delivered again, from its first attempt.

    Raises: NotRequeued; DeadLetter.DoesNotExist.
    """
    task_by_route = {task.route: task for task in tasks}
    with transaction.atomic():
        row = DeadLetter.objects.select_for_update().get(pk=letter_id)
        if row.state != State.WAITING:
            raise NotRequeued(f"dead letter {letter_id} is {row.state} since {row.resolved_at}")
        task = task_by_route.get(row.route)
        if task is None:
            raise NotRequeued(f"dead letter {letter_id}: there is no task {row.route} in this release")
        row.requeue_occurrence = task.reopens(row.task_id) if task.reopens else f"requeue-{row.pk}"
        row.state, row.resolved_at = State.REQUEUED, timezone.now()
        row.enqueue_at = timezone.now()
        row.save(update_fields=["state", "resolved_at", "requeue_occurrence", "enqueue_at"])
    log.info("a dead letter is requeued", dead_letter_id=row.pk, queue=row.queue, route=row.route)
    try:
        _enqueue_row(row, task)
    except QueueFailure as failure:
        log.warning("the sweep will enqueue a requeued dead letter", dead_letter_id=row.pk, reason=str(failure))
    return row


def purge(letter_id: int) -> DeadLetter:
    """Decide that the task is not to be done. The row stays, and says so.

    Raises: NotRequeued; DeadLetter.DoesNotExist.
    """
    with transaction.atomic():
        row = DeadLetter.objects.select_for_update().get(pk=letter_id)
        if row.state != State.WAITING:
            raise NotRequeued(f"dead letter {letter_id} is {row.state} since {row.resolved_at}")
        row.state, row.resolved_at = State.PURGED, timezone.now()
        row.save(update_fields=["state", "resolved_at"])
    log.info("a dead letter is purged", dead_letter_id=row.pk, queue=row.queue, route=row.route)
    return row


def _count(letter: Letter) -> None:
    # The log-based metric counts entries by this message, and labels them by queue and route.
    log.error("dead letter", dead_letter=asdict(letter) | {"error": letter.error[:200]})


def _client() -> TaskClient | None:
    backend = task_backends["default"]
    return backend.client if isinstance(backend, CloudTasksBackend) else None


def _park(letter: Letter, task: CloudTask[Any, Any]) -> bool:
    backend = task_backends["default"]
    if not isinstance(backend, CloudTasksBackend):
        return False
    try:
        backend.client.create(letter.parked(like=backend.http_task(task, letter.task_id)))
    except TaskExists:
        return True  # the same last attempt, delivered twice
    except QueueFailure as failure:
        log.error("a dead letter could not be parked", reason=str(failure), queue=letter.queue, task=letter.task_name)
        return False
    return True


def _write(letter: Letter, task: CloudTask[Any, Any], *, is_parked: bool) -> bool:
    """The row, and the end of the task's own row, or neither. False when the row is there already."""
    with transaction.atomic():
        row, is_new = DeadLetter.objects.get_or_create(
            queue=letter.queue,
            task_name=letter.task_name,
            defaults={
                "route": letter.route,
                "task_id": letter.task_id,
                "attempts": letter.attempts,
                "error_type": letter.error_type,
                "error": letter.error,
                "trace": letter.trace,
                "failed_at": datetime.fromisoformat(letter.failed_at),
                "is_parked": is_parked,
            },
        )
        if is_parked and not row.is_parked and row.state == State.WAITING:
            DeadLetter.objects.filter(pk=row.pk).update(is_parked=True)
        if is_new and task.gives_up is not None:
            task.gives_up(letter.task_id, f"{letter.error_type}: {letter.error}")
    return is_new


def _unpark(client: TaskClient, deadline: Deadline) -> int:
    done = 0
    decided = DeadLetter.objects.filter(is_parked=True).exclude(state=State.WAITING)
    for row in decided.order_by("id")[:_BATCH]:
        if not deadline.is_over:
            client.delete(QUEUE_BY_NAME[row.queue].dead_letter_name, row.task_name)
            done += DeadLetter.objects.filter(pk=row.pk).update(is_parked=False)
    return done


def _enqueue_row(row: DeadLetter, task: CloudTask[Any, Any]) -> None:
    """Under a name of its own, so that doing it twice is doing it once."""
    submit(occurrence(task, row.requeue_occurrence), row.task_id)
    DeadLetter.objects.filter(pk=row.pk).update(enqueue_at=None)
    try:
        if _unpark_row(row):
            row.is_parked = False
    except (QueueFailure, DatabaseError, InterfaceError) as error:
        log.warning("the sweep will delete a parked copy", dead_letter_id=row.pk, reason=str(error)[:500])


def _unpark_row(row: DeadLetter) -> bool:
    client = _client()
    if client is None or not row.is_parked:
        return False
    client.delete(QUEUE_BY_NAME[row.queue].dead_letter_name, row.task_name)
    return bool(DeadLetter.objects.filter(pk=row.pk).update(is_parked=False))
