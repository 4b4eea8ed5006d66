"""Leases on rows: at most one worker runs a job, and only that worker's result counts.

A lease is a token and an end, both columns of the row. The end is only a hint, by which another worker takes over what
a dead one held: a worker can outlive it. So results are written with `while_held`, in one statement that names the
token, and a worker whose lease was taken over writes nothing.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, ClassVar, Self, TypeVar

from django.db import DatabaseError, models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone


class LeaseHeld(Exception):
    """Another worker holds the row's lease. Come back when it has ended."""

    def __init__(self, what: str, until: datetime) -> None:
        super().__init__(f"{what} is leased until {until.isoformat(timespec='seconds')}")
        self.until = until

    @property
    def seconds_left(self) -> int:
        return max(1, int((self.until - timezone.now()).total_seconds()) + 1)


class RowGone(Exception):
    """The row does not exist. It was deleted after it was enqueued, and no later delivery will find it either."""


class LeaseLost(Exception):
    """Another worker took the row over, or it was cancelled. Nothing that this worker found may be written."""


class Leased(models.Model):
    """A row that workers lease. The model says when it is finished, and what a lease changes in it."""

    lease_token = models.UUIDField(null=True, editable=False)
    lease_expires_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        abstract = True

    @property
    def is_finished(self) -> bool:
        raise NotImplementedError

    on_lease: ClassVar[dict[str, Any]] = {}
    """Columns to set when a lease is taken."""

    on_release: ClassVar[dict[str, Any]] = {}
    """Columns to set when a lease is given back with the row unfinished."""

    def while_held(self, **columns: Any) -> None:
        """Write `columns`, if the lease is still this object's. Inside a transaction, the row stays locked to its end.

        Raises: LeaseLost.
        """
        held = type(self)._default_manager.filter(pk=self.pk, lease_token=self.lease_token)
        if self.lease_token is None or not held.update(**columns):
            raise LeaseLost(f"{self._meta.label} {self.pk}: the lease is another worker's, or nobody's")
        for name, value in columns.items():
            setattr(self, name, value)


_Row = TypeVar("_Row", bound=Leased)


class LeasedQuerySet(models.QuerySet[_Row]):
    def unfinished(self) -> Self:
        """Rows that a lease can be taken on. The database decides, in the statement that takes it."""
        raise NotImplementedError

    def lease(self, pk: Any, duration: timedelta) -> _Row:
        """The row, with a lease of this caller's; or the row as it is, when it is finished.

        Raises: LeaseHeld; RowGone.
        """
        token = uuid.uuid4()
        free = Q(lease_expires_at__isnull=True) | Q(lease_expires_at__lt=Now())
        # One statement: of two workers that ask at once, Postgres lets the second look again when the first is done.
        taken = (
            self.unfinished()
            .filter(free, pk=pk)
            .update(lease_token=token, lease_expires_at=Now() + duration, **self.model.on_lease)
        )
        row = self.filter(pk=pk).first()
        if row is None:
            raise RowGone(f"{self.model._meta.label} {pk} does not exist")
        if taken or row.is_finished:
            return row
        if row.lease_expires_at is None:  # given back between the two statements
            raise LeaseHeld(f"{self.model._meta.label} {pk}", timezone.now())
        raise LeaseHeld(f"{self.model._meta.label} {pk}", row.lease_expires_at)

    @contextmanager
    def leased(self, pk: Any, duration: timedelta) -> Iterator[_Row]:
        """The row under a lease, which ends with the block: at once when it fails, so that the next attempt may start.

        Ask `is_finished` first: a finished row comes without a lease.

        Raises: LeaseHeld; RowGone.
        """
        row = self.lease(pk, duration)
        if row.is_finished:
            yield row
            return
        token = row.lease_token
        try:
            yield row
        finally:
            if not row.is_finished:  # finishing it gave the lease back
                self._release(pk, token)

    def _release(self, pk: Any, token: uuid.UUID | None) -> None:
        try:
            held = self.unfinished().filter(pk=pk, lease_token=token)
            held.update(lease_token=None, lease_expires_at=None, **self.model.on_release)
        except DatabaseError:
            # What failed in the block is what the caller must hear about; this lease ends by itself.
            pass
