"""Rows that a task works on: each is its own outbox, so that nothing is lost between its commit and the queue.

A row is committed as PENDING and its task is enqueued on commit. A task that was not enqueued, or that the queue lost,
is found by the sweep: `sweep_at` says when somebody has to look. A worker that died is found by the reaper, by the end
of its lease. Both look through partial indexes that hold only the rows they look for, and take rows in bounded batches
that nobody else holds.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Final, Self, TypeVar

import structlog
from django.db import connection, models
from django.db.models import F, Q
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from app.leases import Leased, LeasedQuerySet
from app.tasking import CloudTask, QueueFailure, Submission, occurrence, submit

log = structlog.get_logger(__name__)

PENDING: Final = "PENDING"
RUNNING: Final = "RUNNING"
UNFINISHED: Final = (PENDING, RUNNING)
FIRST_SWEEP: Final = timedelta(minutes=1)
"""After this long, a row that nobody began is looked after."""

BATCH: Final = 200
# A worker that dies takes one attempt with it, and no queue ever hears about it. A row that kills its worker this often
# is given up.
MAX_ATTEMPTS: Final = 15


@dataclass(frozen=True)
class Deadline:
    """Until when a schedule goes on. What is left then is left to the next time."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        return cls(time.monotonic() + seconds)

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.at


class OutboxRow(Leased):
    """A model with a `state`, in which PENDING waits for a task and RUNNING is leased by a worker."""

    state: Any
    attempts = models.PositiveSmallIntegerField(
        default=0, help_text="How often a worker began, also those that died before they could say so."
    )
    generation = models.PositiveSmallIntegerField(
        default=0, help_text="Which task is the row's: a new one when the queue lost the one before."
    )
    sweep_at = models.DateTimeField(null=True, editable=False)
    sweeps = models.PositiveSmallIntegerField(default=0)

    on_lease: ClassVar[dict[str, Any]] = {
        "state": RUNNING,
        "attempts": F("attempts") + 1,
        "started_at": Coalesce("started_at", Now()),
        "sweep_at": None,
    }
    on_release: ClassVar[dict[str, Any]] = {"state": PENDING, "sweep_at": Now() + FIRST_SWEEP}
    NOT_LEASED: ClassVar[dict[str, Any]] = {"lease_token": None, "lease_expires_at": None, "sweep_at": None}
    """Columns of a row that is finished."""

    class Meta:
        abstract = True

    @property
    def is_finished(self) -> bool:
        return self.state not in UNFINISHED

    @property
    def occurrence(self) -> str:
        """Which of its tasks the row waits for; see `app.tasking.occurrence`."""
        return str(self.generation) if self.generation else ""

    def wait_again(self) -> None:
        """Of a locked row that is not leased: wait for a task of a new generation, as if nothing had been tried."""
        self.state, self.generation = PENDING, self.generation + 1
        self.attempts, self.sweeps, self.sweep_at = 0, 0, timezone.now() + FIRST_SWEEP


_Row = TypeVar("_Row", bound=OutboxRow)


class OutboxQuerySet(LeasedQuerySet[_Row]):
    def unfinished(self) -> Self:
        return self.filter(state__in=UNFINISHED)


def indexes(prefix: str) -> list[models.Index]:
    """What the sweep and the reaper look through, for a model's Meta."""
    return [
        models.Index(fields=["sweep_at"], condition=Q(state=PENDING), name=f"{prefix}_to_sweep"),
        models.Index(fields=["lease_expires_at"], condition=Q(state=RUNNING), name=f"{prefix}_to_reap"),
    ]


def constraints(prefix: str) -> list[models.CheckConstraint]:
    """A row that waits is looked after, one that runs has a lease, and no other row has either."""
    return [
        models.CheckConstraint(
            condition=Q(state=PENDING, sweep_at__isnull=False) | ~Q(state=PENDING) & Q(sweep_at__isnull=True),
            name=f"{prefix}_swept_iff_pending",
        ),
        models.CheckConstraint(
            condition=Q(state=RUNNING, lease_token__isnull=False, lease_expires_at__isnull=False)
            | ~Q(state=RUNNING) & Q(lease_token__isnull=True, lease_expires_at__isnull=True),
            name=f"{prefix}_leased_iff_running",
        ),
    ]


# One statement: rows that another sweep looks at are passed over, and none is looked at twice within its pause, which
# doubles from one minute to sixteen. An array, because Postgres would read the whole table to join it with a batch that
# it takes for a large part of it. The table's name is the model's.
SWEEP: Final = """
    UPDATE {table} AS job
    SET sweeps = least(job.sweeps + 1, 1000),
        sweep_at = now() + interval '1 minute' * power(2, least(job.sweeps, 4))
    WHERE id = ANY(ARRAY(
        SELECT id FROM {table}
        WHERE state = 'PENDING' AND sweep_at <= now()
        ORDER BY sweep_at
        LIMIT %s
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING job.id, job.generation
"""
REAP: Final = """
    UPDATE {table} AS job
    SET state = 'PENDING', lease_token = NULL, lease_expires_at = NULL, sweep_at = now()
    WHERE id = ANY(ARRAY(
        SELECT id FROM {table}
        WHERE state = 'RUNNING' AND lease_expires_at < now()
        ORDER BY lease_expires_at
        LIMIT %s
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING job.id, job.attempts
"""


def sweep(model: type[OutboxRow], task: CloudTask[Any, Any], deadline: Deadline) -> dict[str, int]:
    """Enqueue rows that nobody has picked up, under the name that they have. A queue that holds them says so."""
    counts = {"enqueued": 0, "waiting": 0, "enqueued anew": 0}
    while not deadline.is_over:
        due = _rows(SWEEP, model)
        for at, (pk, generation) in enumerate(due):
            try:
                counts[_enqueue(model, task, pk, generation)] += 1
            except QueueFailure as failure:
                log.warning("the sweep stops: nothing can be enqueued", reason=str(failure), rows=len(due) - at)
                # Not these rows' fault: their pause does not grow.
                left = _pending(model).filter(pk__in=[pk for pk, _ in due[at:]])
                left.update(sweep_at=Now() + FIRST_SWEEP, sweeps=F("sweeps") - 1)
                raise
        if len(due) < BATCH:
            break
    return counts


def _enqueue(model: type[OutboxRow], task: CloudTask[Any, Any], pk: Any, generation: int) -> str:
    found = submit(occurrence(task, str(generation) if generation else ""), str(pk))
    if found is Submission.CREATED:
        return "enqueued"
    if found is Submission.WAITING:
        return "waiting"
    # The queue has had this task and has it no longer, and yet nobody has begun, or somebody has died: its attempts
    # are used up, or it was purged. Its name stays taken for hours, so the row goes on under another one.
    lost = _pending(model).filter(pk=pk, generation=generation)
    if not lost.update(generation=F("generation") + 1):
        return "waiting"  # somebody has just begun
    submit(occurrence(task, str(generation + 1)), str(pk))
    return "enqueued anew"


def _pending(model: Any) -> models.QuerySet[Any]:
    found: models.QuerySet[Any] = model._default_manager.filter(state=PENDING)
    return found


def reap(model: type[OutboxRow], deadline: Deadline, give_up: Callable[[Any, int], None]) -> dict[str, int]:
    """Have rows whose worker died wait again; the sweep enqueues them. `give_up` ends one that killed too many."""
    counts = {"reaped": 0, "given up": 0}
    while not deadline.is_over:
        dead = _rows(REAP, model)
        for pk, attempts in dead:
            log.warning("a worker died, or lost its database", row=f"{model._meta.label} {pk}", attempts=attempts)
            if attempts >= MAX_ATTEMPTS:
                give_up(pk, attempts)
                counts["given up"] += 1
        counts["reaped"] += len(dead)
        if len(dead) < BATCH:
            break
    return counts


def _rows(statement: str, model: type[OutboxRow]) -> list[tuple[Any, int]]:
    with connection.cursor() as cursor:
        cursor.execute(statement.format(table=model._meta.db_table), [BATCH])
        return list(cursor.fetchall())


# The primary keys first, through the index on the column, and rows that somebody else deletes are passed over.
DELETE: Final = """
    DELETE FROM {table}
    WHERE {key} = ANY(ARRAY(
        SELECT {key} FROM {table} WHERE {column} < %s ORDER BY {column} LIMIT %s FOR UPDATE SKIP LOCKED
    ))
"""


def delete_older(model: type[models.Model], column: str, age: timedelta, deadline: Deadline) -> int:
    """Delete rows whose `column`, which must be indexed, lies longer back than `age`. Returns how many."""
    statement = DELETE.format(table=model._meta.db_table, key=model._meta.pk.column, column=column)
    deleted = 0
    while not deadline.is_over:
        with connection.cursor() as cursor:
            cursor.execute(statement, [timezone.now() - age, BATCH * 5])
            deleted += cursor.rowcount
            if cursor.rowcount < BATCH * 5:
                break
    return deleted
