"""RSA keys: those of the issuer, which signs ID tokens, and those of service accounts.

Keys are made at run time and live in the region's database. Of a user-managed key only the public half is kept, as
Google does; a system-managed key, with which an account signs through the IAM Credentials API, is kept whole.
"""

import base64
import secrets
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from localgcp.store import Store

#: Owner of the keys that sign ID tokens. No account's address.
ISSUER = "accounts.google.com"

USER_MANAGED = "USER_MANAGED"
SYSTEM_MANAGED = "SYSTEM_MANAGED"
GOOGLE_PROVIDED = "GOOGLE_PROVIDED"
USER_PROVIDED = "USER_PROVIDED"

_TABLE = """
CREATE TABLE IF NOT EXISTS signing_keys (
    key_id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    key_type TEXT NOT NULL,
    origin TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    certificate TEXT NOT NULL,
    private_key TEXT,
    valid_after REAL NOT NULL,
    valid_before REAL NOT NULL,
    disabled INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS signing_keys_owner ON signing_keys (owner);
"""

# What Google writes as the end of a key that does not expire.
_NEVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class SigningKey:
    key_id: str
    owner: str
    key_type: str
    origin: str
    algorithm: str
    #: PEM of a self-signed X.509 certificate: the form in which Google publishes public keys.
    certificate: str
    private_key: str | None
    valid_after: float
    valid_before: float
    disabled: bool

    @property
    def public_key(self) -> rsa.RSAPublicKey:
        key = x509.load_pem_x509_certificate(self.certificate.encode()).public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            raise TypeError(f"key {self.key_id} is not an RSA key")
        return key

    @property
    def public_key_pem(self) -> str:
        return self.public_key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode()

    def to_jwk(self) -> dict[str, Any]:
        numbers = self.public_key.public_numbers()
        return {
            "kid": self.key_id,
            "kty": "RSA",
            "alg": "RS256",
            "use": "sig",
            "n": _base64url_integer(numbers.n),
            "e": _base64url_integer(numbers.e),
        }

    def sign(self, message: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 over SHA-256. Raises ValueError for a key whose private half was given away."""
        return self._private_key.sign(message, padding.PKCS1v15(), hashes.SHA256())

    # Read once: that tests whether its factors are primes, and takes 36 ms to a signature's 0.3. Each delivery signs.
    @cached_property
    def _private_key(self) -> rsa.RSAPrivateKey:
        if self.private_key is None:
            raise ValueError(f"the private half of key {self.key_id} is not here")
        key = serialization.load_pem_private_key(self.private_key.encode(), password=None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError(f"key {self.key_id} is not an RSA key")
        return key

    def verifies(self, message: bytes, signature: bytes) -> bool:
        try:
            self.public_key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return False
        return True


class Keys:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._making = threading.Lock()
        self._own: dict[str, SigningKey] = {}
        store.define(_TABLE)

    def own(self, owner: str) -> SigningKey:
        """The key that the region itself signs with for `owner`; made when it is first needed."""
        if (known := self._own.get(owner)) is not None:
            return known
        with self._making:
            row = self._store.row(
                "SELECT * FROM signing_keys WHERE owner = ? AND key_type = ? ORDER BY valid_after DESC",
                (owner, SYSTEM_MANAGED),
            )
            key = _from_row(row) if row else self._make(owner, SYSTEM_MANAGED, bits=2048)[0]
            self._own[owner] = key
            return key

    def create(self, owner: str, *, bits: int = 2048) -> tuple[SigningKey, str]:
        """A user-managed key and, for this once, its private half as PKCS#8 PEM."""
        key, private_key = self._make(owner, USER_MANAGED, bits=bits)
        return key, private_key

    def upload(self, owner: str, certificate: str) -> SigningKey:
        """A key whose private half never was here. Raises ValueError when `certificate` is no RSA certificate."""
        loaded = x509.load_pem_x509_certificate(certificate.encode())
        public = loaded.public_key()
        if not isinstance(public, rsa.RSAPublicKey) or public.key_size < 2048:
            raise ValueError("the certificate must hold an RSA key of at least 2048 bits")
        key = SigningKey(
            key_id=secrets.token_hex(20),
            owner=owner,
            key_type=USER_MANAGED,
            origin=USER_PROVIDED,
            algorithm=f"KEY_ALG_RSA_{public.key_size}",
            certificate=certificate,
            private_key=None,
            valid_after=loaded.not_valid_before_utc.timestamp(),
            valid_before=loaded.not_valid_after_utc.timestamp(),
            disabled=False,
        )
        self._insert(key)
        return key

    def find(self, key_id: str) -> SigningKey | None:
        row = self._store.row("SELECT * FROM signing_keys WHERE key_id = ?", (key_id,))
        return _from_row(row) if row else None

    def list(self, owner: str) -> list[SigningKey]:
        rows = self._store.rows("SELECT * FROM signing_keys WHERE owner = ? ORDER BY valid_after, key_id", (owner,))
        return [_from_row(row) for row in rows]

    def set_disabled(self, key_id: str, disabled: bool) -> None:
        with self._store.transaction() as tx:
            tx.execute("UPDATE signing_keys SET disabled = ? WHERE key_id = ?", (int(disabled), key_id))

    def delete(self, key_id: str) -> None:
        with self._store.transaction() as tx:
            tx.execute("DELETE FROM signing_keys WHERE key_id = ?", (key_id,))

    def rename_owner(self, old: str, new: str) -> None:
        with self._store.transaction() as tx:
            tx.execute("UPDATE signing_keys SET owner = ? WHERE owner = ?", (new, old))
        self._own.pop(old, None)

    def delete_all(self, owner: str) -> None:
        with self._store.transaction() as tx:
            tx.execute("DELETE FROM signing_keys WHERE owner = ?", (owner,))
        self._own.pop(owner, None)

    def _make(self, owner: str, key_type: str, *, bits: int) -> tuple[SigningKey, str]:
        private = rsa.generate_private_key(public_exponent=65537, key_size=bits)
        private_key = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        # One minute back: a peer whose clock is a little behind must not find the key not yet valid.
        start = datetime.now(UTC) - timedelta(minutes=1)
        key = SigningKey(
            key_id=secrets.token_hex(20),
            owner=owner,
            key_type=key_type,
            origin=GOOGLE_PROVIDED,
            algorithm=f"KEY_ALG_RSA_{bits}",
            certificate=_self_signed(private, owner, start),
            private_key=private_key if key_type == SYSTEM_MANAGED else None,
            valid_after=start.timestamp(),
            valid_before=_NEVER.timestamp(),
            disabled=False,
        )
        self._insert(key)
        return key, private_key

    def _insert(self, key: SigningKey) -> None:
        with self._store.transaction() as tx:
            tx.execute(
                "INSERT INTO signing_keys (key_id, owner, key_type, origin, algorithm, certificate, private_key,"
                " valid_after, valid_before, disabled) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    key.key_id,
                    key.owner,
                    key.key_type,
                    key.origin,
                    key.algorithm,
                    key.certificate,
                    key.private_key,
                    key.valid_after,
                    key.valid_before,
                    int(key.disabled),
                ),
            )


def _self_signed(private: rsa.RSAPrivateKey, owner: str, start: datetime) -> str:
    # A common name holds at most 64 characters, an account's address may hold more.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, owner[:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(_NEVER)
        .sign(private, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _base64url_integer(number: int) -> str:
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _from_row(row: Any) -> SigningKey:
    return SigningKey(
        key_id=row["key_id"],
        owner=row["owner"],
        key_type=row["key_type"],
        origin=row["origin"],
        algorithm=row["algorithm"],
        certificate=row["certificate"],
        private_key=row["private_key"],
        valid_after=row["valid_after"],
        valid_before=row["valid_before"],
        disabled=bool(row["disabled"]),
    )
