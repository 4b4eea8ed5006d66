"""Which requests were made already: one row for each `Idempotency-Key` of an organisation."""

from typing import ClassVar

from django.db import models
from django.utils import timezone

from app.organizations.models import Organization


class IdempotencyKey(models.Model):
    """A key that an organisation used. Without a status, its request is still at work, until `held_until`."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=255)
    request_sha256 = models.CharField(max_length=64)
    token = models.UUIDField()
    held_until = models.DateTimeField()
    status = models.PositiveSmallIntegerField(null=True)
    resource_id = models.CharField(max_length=200, blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["organization", "key"], name="idempotencykey_is_used_once"),
        ]

    def __str__(self) -> str:
        return f"{self.key} of {self.organization_id}"
