"""How long receipts are kept."""

from datetime import timedelta
from typing import Final

from app.callbacks.models import CallbackReceipt
from app.outbox import Deadline, delete_older

# Much longer than a signature is valid: within it, a nonce is never forgotten.
KEPT: Final = timedelta(days=30)


def purge(deadline: Deadline) -> dict[str, int]:
    return {"receipts": delete_older(CallbackReceipt, "received_at", KEPT, deadline)}
