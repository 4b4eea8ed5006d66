"""Signatures as Standard Webhooks has them (standardwebhooks.com, 1.0.0): HMAC-SHA256 over id, timestamp and body."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Final

_PREFIX: Final = "whsec_"
_SECRET_BYTES: Final = 32


def new_secret() -> str:
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def headers(message_id: str, timestamp: int, body: bytes, secret_texts: Sequence[str]) -> dict[str, str]:
    """What goes with the body. Each secret signs: while one replaces another, the receiver may know either."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signature(message_id, timestamp, body, text) for text in secret_texts),
    }


def signature(message_id: str, timestamp: int, body: bytes, secret_text: str) -> str:
    key = base64.b64decode(secret_text.removeprefix(_PREFIX))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
