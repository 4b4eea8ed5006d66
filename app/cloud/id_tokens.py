"""Google's ID tokens: who calls, as a signature of Google's proves it."""

import threading
import time
from typing import Any, Final

import jwt
import requests
from jwt import PyJWK, PyJWKSet

ISSUER: Final = "https://accounts.google.com"
# Clocks of two machines of Google's differ by less.
_LEEWAY_SECONDS: Final = 10
# Google's keys may be cached for about six hours and are published a day before they sign.
_KEYS_LIVE_SECONDS: Final = 3600
# An unknown key id is asked about at most this often: tokens that strangers make up must not have us ask without end.
_UNKNOWN_KEY_SECONDS: Final = 10
_TIMEOUT_SECONDS: Final = 5


class InvalidToken(Exception):
    """The token proves nothing. The message says why, without the token."""


class KeysUnavailable(Exception):
    """Google's keys cannot be fetched, so nobody can tell whether the token is good. Try again."""


class Keys:
    """The keys that Google signs ID tokens with, by key id. One instance serves all threads."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._keys: dict[str, PyJWK] = {}
        self._fetched_at = float("-inf")

    def find(self, key_id: str) -> PyJWK | None:
        """Raises: KeysUnavailable."""
        key = self._keys.get(key_id)
        age = time.monotonic() - self._fetched_at
        if age > (_KEYS_LIVE_SECONDS if key else _UNKNOWN_KEY_SECONDS):
            self._fetch(age)
            key = self._keys.get(key_id)
        return key

    def _fetch(self, known_age: float) -> None:
        with self._lock:
            if time.monotonic() - self._fetched_at < known_age:
                return  # another thread has just done it
            try:
                answer = requests.get(self._url, timeout=_TIMEOUT_SECONDS)
                answer.raise_for_status()
                keys = PyJWKSet.from_dict(answer.json()).keys
            except (requests.RequestException, ValueError, jwt.PyJWTError) as error:
                raise KeysUnavailable(f"the keys at {self._url} cannot be read: {type(error).__name__}") from error
            self._keys = {key.key_id: key for key in keys if key.key_id}
            self._fetched_at = time.monotonic()


def verified_email(token: str, audience: str, keys: Keys) -> str:
    """The verified email of whom Google issued `token` to, for exactly this audience.

    Raises: InvalidToken; KeysUnavailable.
    """
    try:
        header = jwt.get_unverified_header(token)
        if header.get("alg") != "RS256":
            raise InvalidToken("the token is not signed with RS256")
        key = keys.find(str(header.get("kid", "")))
        if key is None:
            raise InvalidToken("the token is signed with a key that is not Google's")
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=["RS256"],
            audience=audience,
            issuer=ISSUER,
            leeway=_LEEWAY_SECONDS,
            options={"require": ["exp", "iat", "aud", "iss", "sub"], "strict_aud": True},
        )
    except jwt.ExpiredSignatureError:
        raise InvalidToken("the token has expired") from None
    except jwt.InvalidAudienceError:
        raise InvalidToken("the token is for another audience") from None
    except jwt.InvalidIssuerError:
        raise InvalidToken("the token is of another issuer") from None
    except jwt.InvalidSignatureError:
        raise InvalidToken("the token's signature is not the one of its key") from None
    except jwt.PyJWTError as error:
        raise InvalidToken(f"the token is not acceptable: {type(error).__name__}") from None
    if claims.get("email_verified") is not True or not isinstance(claims.get("email"), str):
        raise InvalidToken("the token has no verified email")
    return str(claims["email"])
