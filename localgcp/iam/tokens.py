"""Tokens: opaque access tokens, ID tokens, and the JWTs that accounts sign for themselves.

Access tokens are kept as hashes, so the database does not hold what a caller could use. All tokens follow the machine's
time and not the region's movable clock: their holders cache them by the time they know.
"""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from localgcp.errors import Unauthenticated
from localgcp.iam import accounts
from localgcp.iam.keys import ISSUER, Keys, SigningKey
from localgcp.iam.principal import ANONYMOUS, Principal
from localgcp.store import Store

ID_TOKEN_ISSUER = "https://accounts.google.com"  # noqa: S105 (an address)
LIFETIME_SECONDS = 3600

# A token that has this much of its life left is handed out again, as Google's metadata server does.
_REUSE_SECONDS = 300

_CLOCK_SKEW_SECONDS = 10

_TABLE = """
CREATE TABLE IF NOT EXISTS access_tokens (hash BLOB PRIMARY KEY, email TEXT NOT NULL, expires REAL NOT NULL);
CREATE INDEX IF NOT EXISTS access_tokens_expires ON access_tokens (expires);
"""

_REFUSAL = (
    "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid "
    "authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project."
)


class InvalidToken(Exception):
    """A JWT that proves nothing. Its text says why, and never holds the token."""


class Tokens:
    """Issues and checks tokens. Raises Unauthenticated where a caller's token is not good."""

    def __init__(self, store: Store, api_url: str) -> None:
        self._store = store
        self.api_url = api_url
        self.keys = Keys(store)
        self._known: dict[bytes, tuple[str, float]] = {}
        self._reusable: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()
        store.define(_TABLE)

    # Access tokens

    def access_token(self, email: str, lifetime: float = LIFETIME_SECONDS) -> str:
        """An opaque token of less than 100 bytes, good for `lifetime` seconds, also after a restart."""
        token = "ya29.l." + secrets.token_urlsafe(32)
        now = self._now()
        with self._store.transaction() as tx:
            tx.execute("DELETE FROM access_tokens WHERE expires < ?", (now,))
            tx.execute("INSERT INTO access_tokens VALUES (?, ?, ?)", (_hash(token), email, now + lifetime))
        return token

    def shared_access_token(self, email: str) -> tuple[str, int]:
        """A token and the seconds it has left. One token serves many calls, until its end is near."""
        with self._lock:
            now = self._now()
            token, expires = self._reusable.get(email, ("", 0.0))
            if expires - now < _REUSE_SECONDS:
                token, expires = self.access_token(email), now + LIFETIME_SECONDS
                self._reusable[email] = (token, expires)
            return token, int(expires - now)

    def lookup(self, token: str) -> tuple[str, float] | None:
        """Whose access token this is and the seconds it has left; None for one that is unknown or has ended."""
        key = _hash(token)
        known = self._known.get(key)
        if known is None:
            row = self._store.row("SELECT email, expires FROM access_tokens WHERE hash = ?", (key,))
            if row is None:
                return None
            known = (row["email"], row["expires"])
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[key] = known
        email, expires = known
        left = expires - self._now()
        return (email, left) if left > 0 else None

    def revoke(self, token: str) -> bool:
        with self._store.transaction() as tx:
            found = tx.execute("DELETE FROM access_tokens WHERE hash = ?", (_hash(token),)).rowcount > 0
        self._known.pop(_hash(token), None)
        return found

    def revoke_all(self, email: str) -> None:
        with self._store.transaction() as tx:
            tx.execute("DELETE FROM access_tokens WHERE email = ?", (email,))
        self._known.clear()
        with self._lock:
            self._reusable.pop(email, None)

    # Callers

    def principal(self, bearer: str | None) -> Principal:
        """Who presents `bearer` (an access token, or a JWT that an account signed for this API). None is nobody.

        Raises:
            Unauthenticated: the token is unknown, expired or forged, or its account is disabled or deleted.
        """
        if not bearer:
            return ANONYMOUS
        if bearer.count(".") == 2 and not bearer.startswith("ya29."):
            try:
                email = self.verify_assertion(bearer)["iss"]
            except InvalidToken:
                raise _invalid_credentials() from None
        else:
            found = self.lookup(bearer)
            if found is None:
                raise _invalid_credentials()
            email = found[0]
        if not accounts.is_usable(self._store, email):
            raise Unauthenticated(
                _REFUSAL,
                details=[_error_info("ACCOUNT_STATE_INVALID", {"email": email})],
            )
        return Principal(email=email)

    def principal_of_id_token(self, token: str, is_audience: Callable[[str], bool]) -> Principal:
        """Who presents this ID token to a service that is the audience. Raises Unauthenticated."""
        try:
            claims = self.read_id_token(token)
        except InvalidToken:
            raise _invalid_credentials() from None
        if not is_audience(str(claims.get("aud", ""))):
            raise _invalid_credentials()
        email = str(claims.get("email", ""))
        if not claims.get("email_verified") or not accounts.is_usable(self._store, email):
            raise _invalid_credentials()
        return Principal(email=email)

    # JSON Web Tokens

    def id_token(
        self, email: str, audience: str, *, extra: Mapping[str, Any] | None = None, include_email: bool = True
    ) -> str:
        """An RS256 token that says `email` calls `audience`, with Google's claims. Good for an hour."""
        now = int(time.time())
        subject = accounts.unique_id(self._store, email)
        claims: dict[str, Any] = {"aud": audience, "azp": subject, "exp": now + LIFETIME_SECONDS, "iat": now}
        claims |= {"iss": ID_TOKEN_ISSUER, "sub": subject}
        if include_email:
            claims |= {"email": email, "email_verified": True}
        return self.sign_jwt(self.keys.own(ISSUER), json.dumps(claims | dict(extra or {})))

    def read_id_token(self, token: str) -> dict[str, Any]:
        """The claims of an ID token that this region issued, whoever it is for. Raises InvalidToken."""
        claims = self._verify(token, lambda header, _: self._issuer_key(header))
        if claims.get("iss") != ID_TOKEN_ISSUER:
            raise InvalidToken("the token is not of this issuer")
        return claims

    def verify_assertion(self, token: str) -> dict[str, Any]:
        """The claims of a JWT that a service account signed with a key of its own. Raises InvalidToken."""
        claims = self._verify(token, self._account_key)
        if claims.get("sub", claims["iss"]) != claims["iss"]:
            raise InvalidToken("domain-wide delegation (another `sub` than `iss`) is not supported")
        if claims["exp"] - claims["iat"] > LIFETIME_SECONDS:
            raise InvalidToken(f"the token lives longer than {LIFETIME_SECONDS} seconds")
        audience = claims.get("aud")
        if audience is not None and not self._is_own_audience(str(audience)):
            raise InvalidToken(f"the token is for another audience: {audience}")
        return claims

    def sign_jwt(self, key: SigningKey, payload: str) -> str:
        """`payload` must be a JSON object; it is signed as it stands."""
        header = json.dumps({"alg": "RS256", "kid": key.key_id, "typ": "JWT"})
        message = _base64url(header.encode()) + b"." + _base64url(payload.encode())
        return (message + b"." + _base64url(key.sign(message))).decode()

    def issuer_keys(self) -> list[SigningKey]:
        """The keys that ID tokens are signed with: there is always at least one."""
        self.keys.own(ISSUER)
        return self.keys.list(ISSUER)

    def verify_signature(self, email: str, message: bytes, signature: bytes) -> bool:
        """Whether any key of the account, its own or the one that signBlob uses, made this signature."""
        return any(not key.disabled and key.verifies(message, signature) for key in self.keys.list(email))

    def credentials_file(self, email: str, key: SigningKey, private_key: str) -> dict[str, str]:
        """What Google hands out as the JSON key file of a service account."""
        _, _, domain = email.partition("@")
        return {
            "type": "service_account",
            "project_id": domain.removesuffix(accounts.OWN_DOMAIN),
            "private_key_id": key.key_id,
            "private_key": private_key,
            "client_email": email,
            "client_id": accounts.unique_id(self._store, email),
            "auth_uri": f"{self.api_url}/o/oauth2/auth",
            "token_uri": f"{self.api_url}/token",
            "auth_provider_x509_cert_url": f"{self.api_url}/oauth2/v1/certs",
            "client_x509_cert_url": f"{self.api_url}/robot/v1/metadata/x509/{email}",
            "universe_domain": "googleapis.com",
        }

    def _verify(
        self, token: str, find_key: Callable[[dict[str, Any], dict[str, Any]], SigningKey | None]
    ) -> dict[str, Any]:
        header, claims, message, signature = _parse(token)
        # Only RS256: accepting what the header asks for would accept `none`, and a public key as an HMAC secret.
        if header.get("alg") != "RS256":
            raise InvalidToken(f"the token must be signed with RS256, not {header.get('alg')}")
        key = find_key(header, claims)
        if key is None or key.disabled or not key.verifies(message, signature):
            raise InvalidToken("the signature is not of a known key")
        now = time.time()
        issued, expires = claims.get("iat"), claims.get("exp")
        if not isinstance(issued, int | float) or not isinstance(expires, int | float):
            raise InvalidToken("the token must have `iat` and `exp`")
        if issued > now + _CLOCK_SKEW_SECONDS:
            raise InvalidToken("the token is issued in the future")
        if expires < now - _CLOCK_SKEW_SECONDS or key.valid_before < now:
            raise InvalidToken("the token has expired")
        return claims

    def _issuer_key(self, header: dict[str, Any]) -> SigningKey | None:
        key = self.keys.own(ISSUER)
        return key if header.get("kid") in (None, key.key_id) else None

    def _account_key(self, header: dict[str, Any], claims: dict[str, Any]) -> SigningKey | None:
        key = self.keys.find(str(header.get("kid")))
        # The key must be the claimed account's own, or one account could speak for every other.
        return key if key is not None and key.owner == claims.get("iss") and key.owner != ISSUER else None

    def _is_own_audience(self, audience: str) -> bool:
        return audience.startswith((self.api_url, "https://oauth2.googleapis.com/")) or (
            audience.startswith("https://") and audience.split("/")[2].endswith(".googleapis.com")
        )

    def _now(self) -> float:
        return time.time()


def _parse(token: str) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    try:
        message, _, signature = token.encode("ascii").rpartition(b".")
        header_part, payload_part = message.split(b".")
        header = json.loads(_from_base64url(header_part))
        claims = json.loads(_from_base64url(payload_part))
        raw_signature = _from_base64url(signature)
    except ValueError:
        raise InvalidToken("this is not a signed JWT") from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise InvalidToken("this is not a signed JWT")
    return header, claims, message, raw_signature


def _base64url(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def _from_base64url(text: bytes) -> bytes:
    return base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))


def _hash(token: str) -> bytes:
    # The token is 256 random bits: a slow hash would protect nothing more.
    return hashlib.sha256(token.encode()).digest()


def _error_info(reason: str, metadata: dict[str, str]) -> dict[str, Any]:
    return {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": "googleapis.com",
        "metadata": metadata,
    }


def _invalid_credentials() -> Unauthenticated:
    return Unauthenticated(_REFUSAL, details=[_error_info("ACCESS_TOKEN_TYPE_UNSUPPORTED", {})])
