"""Customer-supplied encryption keys: whoever reads an object that was written with a key must send the same key.

Only the key's hash is kept, as at Google. Contents are not encrypted with it.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from localgcp.errors import InvalidArgument

if TYPE_CHECKING:
    from localgcp.storage.objects import StoredObject
    from localgcp.storage.uploads import Upload

HEADERS = "x-goog-encryption-"
SOURCE_HEADERS = "x-goog-copy-source-encryption-"
ALGORITHM = "AES256"
KEY_BYTES = 32


def supplied(headers: Mapping[str, str], prefix: str = HEADERS) -> str | None:
    """The SHA-256, in base64, of the key that a request carries; None without one. Raises InvalidArgument."""
    algorithm = headers.get(f"{prefix}algorithm")
    text = headers.get(f"{prefix}key")
    if algorithm is None and text is None:
        return None
    if algorithm != ALGORITHM:
        raise InvalidArgument(
            f"Missing or unsupported encryption algorithm: '{algorithm}', the only one is {ALGORITHM}.",
            reason="customerEncryptionAlgorithmIsInvalid",
        )
    try:
        key = base64.b64decode(text or "", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise InvalidArgument(
            "Missing a Base64 encoded 256-bit encryption key, or it cannot be read.",
            reason="customerEncryptionKeyFormatIsInvalid",
        )
    digest = base64.b64encode(hashlib.sha256(key).digest()).decode()
    if headers.get(f"{prefix}key-sha256") not in (None, digest):
        raise InvalidArgument(
            "The SHA256 of the encryption key is not the one that was sent with it.",
            reason="customerEncryptionKeySha256IsInvalid",
        )
    return digest


def described(key: str | None) -> dict[str, dict[str, str]]:
    """What an object's properties say of the key that it was written with."""
    return {} if key is None else {"customerEncryption": {"encryptionAlgorithm": ALGORITHM, "keySha256": key}}


def key_of(described: "StoredObject | Upload") -> str | None:
    """The SHA-256, in base64, of the key that an object or an upload began with."""
    encryption: Mapping[str, str] | None = described.properties.get("customerEncryption")
    return None if encryption is None else encryption["keySha256"]


def check(found: "StoredObject", key: str | None) -> None:
    """Raises InvalidArgument when the content cannot be read with `key`, or needs none."""
    check_key(key_of(found), key)


def check_key(wanted: str | None, key: str | None) -> None:
    if wanted == key:
        return
    if wanted is None:
        raise InvalidArgument(
            "The target object is not encrypted by a customer-supplied encryption key.",
            reason="resourceNotEncryptedWithCustomerEncryptionKey",
        )
    if key is None:
        raise InvalidArgument(
            "The target object is encrypted by a customer-supplied encryption key.",
            reason="resourceIsEncryptedWithCustomerEncryptionKey",
        )
    raise InvalidArgument("The provided encryption key is incorrect.", reason="customerEncryptionKeyIsIncorrect")
