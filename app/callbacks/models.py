"""Receipts: which callbacks were accepted, and what they were answered."""

from typing import ClassVar

from django.db import models
from django.utils import timezone


class CallbackReceipt(models.Model):
    """One accepted callback. A nonce is accepted once; what was reported before is answered as before."""

    nonce = models.CharField(max_length=200, unique=True)
    kind = models.CharField(max_length=40)
    target = models.UUIDField()
    body_sha256 = models.CharField(max_length=64)
    signed_by = models.CharField(max_length=200, help_text="The key's id, or the service account.")
    answer = models.JSONField()
    received_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [
            models.Index(fields=["kind", "target", "body_sha256"], name="callbackreceipt_same"),
            models.Index(fields=["received_at"], name="callbackreceipt_received"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.target}"
