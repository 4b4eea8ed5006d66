"""`Idempotency-Key`: a request that is sent again is answered with what it made the first time.

The key and what the request makes are committed together, in the transaction that calls `Slot.complete`: after a crash
there are both or neither.
"""

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils import timezone

from app.idempotency.models import IdempotencyKey
from app.web.problems import FieldError, Problem

KEPT: Final = timedelta(hours=24)
# As long as a request can take (the web service's timeout): a key whose request died is free again after this.
_HELD: Final = timedelta(seconds=300)
_MAX_LENGTH: Final = 255


@dataclass(kw_only=True)
class Slot:
    """The place of one request. Without a key, it keeps nothing."""

    row: IdempotencyKey | None = None
    is_replay: bool = False
    is_complete: bool = False

    @property
    def status(self) -> int | None:
        return self.row.status if self.row else None

    @property
    def resource_id(self) -> str:
        return self.row.resource_id if self.row else ""

    def complete(self, status: int, resource_id: str) -> None:
        """Say what the request made. Call it in the transaction that makes it."""
        if self.row is not None:
            mine = IdempotencyKey.objects.filter(pk=self.row.pk, token=self.row.token, status__isnull=True)
            if not mine.update(status=status, resource_id=resource_id):
                raise _in_use(1)  # the first request took too long, and a second one took its place
        self.is_complete = True


@contextmanager
def once(request: HttpRequest, organization_id: int, body: bytes) -> Iterator[Slot]:
    """The slot of this request. One that fails gives its key back: what was refused may be corrected and sent again.

    Raises: Problem 409 while the first request with the key is at work, 422 when it was another request.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None:
        yield Slot()
        return
    if not key or len(key) > _MAX_LENGTH or not key.isprintable():
        raise _unacceptable()
    slot = _claim(organization_id, key, _fingerprint(request, body))
    try:
        yield slot
    finally:
        if not slot.is_replay and not slot.is_complete and slot.row is not None:
            IdempotencyKey.objects.filter(pk=slot.row.pk, token=slot.row.token, status__isnull=True).delete()


def _fingerprint(request: HttpRequest, body: bytes) -> str:
    content_type = request.headers.get("Content-Type", "")
    boundary = (request.content_params or {}).get("boundary", "")
    if request.content_type == "multipart/form-data" and boundary:
        # Most libraries draw another boundary for each attempt; what it separates stays the same.
        content_type = request.content_type
        body = body.replace(f"--{boundary}".encode(), b"--")
    head = f"{request.method} {request.path} {content_type}\n"
    return hashlib.sha256(head.encode("utf-8", "surrogateescape") + body).hexdigest()


def _claim(organization_id: int, key: str, fingerprint: str) -> Slot:
    now = timezone.now()
    with transaction.atomic():
        # Of two first requests at once, one waits here for the other's commit, and then finds its row.
        row, is_new = IdempotencyKey.objects.get_or_create(
            organization_id=organization_id,
            key=key,
            defaults={
                "request_sha256": fingerprint,
                "token": uuid.uuid4(),
                "held_until": now + _HELD,
                "expires_at": now + KEPT,
            },
        )
        if is_new:
            return Slot(row=row)
        token = uuid.uuid4()
        dead = Q(expires_at__lt=Now()) | Q(status__isnull=True, held_until__lt=Now())
        if IdempotencyKey.objects.filter(dead, pk=row.pk).update(
            request_sha256=fingerprint,
            token=token,
            held_until=now + _HELD,
            expires_at=now + KEPT,
            status=None,
            resource_id="",
        ):
            row.token, row.status = token, None
            return Slot(row=row)
    if row.request_sha256 != fingerprint:
        raise Problem(
            "idempotency-key-reused",
            "The idempotency key belongs to another request",
            status=422,
            detail="the key was used within 24 hours for a request with another body or address",
            errors=[FieldError(field="Idempotency-Key", message="belongs to another request", remedy="use a new key")],
        )
    if row.status is None:
        raise _in_use(max(1, int((row.held_until - now).total_seconds())))
    return Slot(row=row, is_replay=True)


def _in_use(seconds: int) -> Problem:
    return Problem(
        "idempotency-key-in-use",
        "The first request with this key is still at work",
        status=409,
        detail="wait for its answer, or send the request again with the same key in a moment",
        headers={"Retry-After": str(min(seconds, 2))},
    )


def _unacceptable() -> Problem:
    return Problem(
        "invalid-request",
        "The request is not valid",
        status=422,
        detail=f"the Idempotency-Key must have 1 to {_MAX_LENGTH} printable characters",
        errors=[FieldError(field="Idempotency-Key", message="is not acceptable", remedy="send a random UUID")],
    )
