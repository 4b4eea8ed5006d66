"""How a callback is signed: HMAC-SHA256 over method, path, time, nonce and the hash of the body. Free of Django.

The nonce is part of what is signed and is accepted once, so that every attempt of a client that tries again is signed
anew. Headers: `Validibot-Key-Id`, `Validibot-Timestamp` (seconds since 1970), `Validibot-Nonce`, `Validibot-Signature`
(64 hexadecimal digits).
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Self

WINDOW: Final = timedelta(minutes=5)
MIN_KEY_BYTES: Final = 32
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{16,128}")
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")


class Unauthentic(Exception):
    """The callback proves nothing. The message says why, for the log; the caller need not know."""


@dataclass(frozen=True)
class Keyring:
    """Keys by id, the newest first. Two are valid while one replaces the other."""

    keys: Mapping[str, bytes]

    @classmethod
    def parse(cls, text: str) -> Self:
        """`id1:base64,id0:base64`. Raises: ValueError, which never quotes a key."""
        keys: dict[str, bytes] = {}
        for number, entry in enumerate(filter(None, (part.strip() for part in text.split(","))), start=1):
            key_id, _, encoded = entry.partition(":")
            try:
                key = base64.b64decode(encoded, validate=True)
            except binascii.Error:
                raise ValueError(f"callback key {number} is not <id>:<base64>") from None
            if not _KEY_ID.fullmatch(key_id) or len(key) < MIN_KEY_BYTES:
                raise ValueError(f"callback key {number} needs an id, a colon and {MIN_KEY_BYTES} bytes as base64")
            if key_id in keys:
                raise ValueError(f"callback key {number} has the id of another one")
            keys[key_id] = key
        return cls(keys)

    @property
    def newest(self) -> str:
        return next(iter(self.keys))


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a request claims; `Keyring` says whether it is so."""

    key_id: str
    timestamp: str
    nonce: str
    digest: str

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self:
        return cls(
            key_id=headers.get("Validibot-Key-Id", ""),
            timestamp=headers.get("Validibot-Timestamp", ""),
            nonce=headers.get("Validibot-Nonce", ""),
            digest=headers.get("Validibot-Signature", ""),
        )

    def headers(self) -> dict[str, str]:
        return {
            "Validibot-Key-Id": self.key_id,
            "Validibot-Timestamp": self.timestamp,
            "Validibot-Nonce": self.nonce,
            "Validibot-Signature": self.digest,
        }

    def verify(self, keyring: Keyring, method: str, path: str, body: bytes, now: datetime) -> None:
        """Raises: Unauthentic."""
        key = keyring.keys.get(self.key_id)
        if key is None:
            raise Unauthentic(f"the key {self.key_id[:64]!r} is unknown")
        if not _NONCE.fullmatch(self.nonce):
            raise Unauthentic("the nonce is not 16 to 128 letters, digits, hyphens and underscores")
        if not _TIMESTAMP.fullmatch(self.timestamp):
            raise Unauthentic("the timestamp is not a number of seconds")
        age, allowed = now.timestamp() - int(self.timestamp), WINDOW.total_seconds()
        if abs(age) > allowed:
            raise Unauthentic(f"the timestamp is {age:.0f} seconds old; {allowed:.0f} are allowed")
        expected = _digest(key, method, path, self.timestamp, self.nonce, body)
        if not hmac.compare_digest(expected.encode(), self.digest.encode("utf-8", "replace")):
            raise Unauthentic("the signature is not the one of this method, path, time, nonce and body")


def sign(keyring: Keyring, method: str, path: str, body: bytes, now: datetime, *, key_id: str = "") -> Signature:
    """A fresh signature, for one attempt."""
    key_id = key_id or keyring.newest
    timestamp, nonce = str(int(now.timestamp())), secrets.token_urlsafe(24)
    digest = _digest(keyring.keys[key_id], method, path, timestamp, nonce, body)
    return Signature(key_id=key_id, timestamp=timestamp, nonce=nonce, digest=digest)


def _digest(key: bytes, method: str, path: str, timestamp: str, nonce: str, body: bytes) -> str:
    # None of the parts can contain a line break: the path comes from a request line.
    parts = (method.upper(), path, timestamp, nonce, hashlib.sha256(body).hexdigest())
    return hmac.new(key, "\n".join(parts).encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()
