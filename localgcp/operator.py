"""The operator's side of a region: credentials, and calls that need them. Imports little: shells wait for it."""

import base64
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from localgcp.process import ProcessError, Running

_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
# A proxy that the environment names is for other hosts than this one.
_loopback = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"

# A token printed into a shell should outlast what is done there.
_MINIMUM_LEFT_SECONDS = 2 * 3600


def credentials_path(data_dir: Path) -> Path:
    return data_dir.absolute() / "credentials" / "operator.json"


def access_token(data_dir: Path, running: Running) -> str:
    """A token of the operator's account: the last one while it is good for hours, else a new one."""
    cache = credentials_path(data_dir).with_name("token.json")
    try:
        known = json.loads(cache.read_text())
        if known["expires"] - time.time() > _MINIMUM_LEFT_SECONDS and _is_known(running, str(known["access_token"])):
            return str(known["access_token"])
    except (FileNotFoundError, ValueError, KeyError):
        pass
    answer = _new_token(data_dir, running)
    partial = cache.with_suffix(".partial")
    partial.touch(mode=0o600)
    partial.write_text(
        json.dumps({"access_token": answer["access_token"], "expires": time.time() + answer["expires_in"]})
    )
    partial.replace(cache)
    return str(answer["access_token"])


def get(data_dir: Path, running: Running, path: str) -> Any:
    """What the region answers, as JSON. Raises ProcessError."""
    with open_(data_dir, running, path) as response:
        return json.load(response)


def open_(data_dir: Path, running: Running, path: str) -> Any:
    """The answer as a stream. Raises ProcessError."""
    token = access_token(data_dir, running)
    request = urllib.request.Request(running.url + path, headers={"Authorization": f"Bearer {token}"})  # noqa: S310
    try:
        return _loopback.open(request)
    except urllib.error.HTTPError as error:
        raise ProcessError(f"{path} answered {error.code}: {_message(error.read())}") from None
    except OSError as error:
        raise ProcessError(f"{running.url} does not answer ({error})") from None


def _new_token(data_dir: Path, running: Running) -> dict[str, Any]:
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding

    try:
        credentials = json.loads(credentials_path(data_dir).read_text())
    except FileNotFoundError:
        raise ProcessError(f"{credentials_path(data_dir)} does not exist: restart localgcp, which writes it") from None
    now = int(time.time())
    header = {"alg": "RS256", "typ": "JWT", "kid": credentials["private_key_id"]}
    claims = {
        "iss": credentials["client_email"],
        "scope": _SCOPE,
        "aud": credentials["token_uri"],
        "iat": now,
        "exp": now + 600,
    }
    message = b".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
    key: Any = serialization.load_pem_private_key(credentials["private_key"].encode(), password=None)
    assertion = message + b"." + _base64url(key.sign(message, padding.PKCS1v15(), hashes.SHA256()))
    form = urllib.parse.urlencode({"grant_type": _JWT_BEARER, "assertion": assertion.decode()}).encode()
    try:
        with _loopback.open(f"{running.url}/token", form) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except urllib.error.HTTPError as error:
        raise ProcessError(f"the token endpoint refused the operator's key: {_message(error.read())}") from None
    except OSError as error:
        raise ProcessError(f"{running.url} does not answer ({error})") from None


def _is_known(running: Running, token: str) -> bool:
    """A token of before a reset is not one any more."""
    form = urllib.parse.urlencode({"access_token": token}).encode()
    try:
        with _loopback.open(f"{running.url}/tokeninfo", form):
            return True
    except OSError:
        return False


def _base64url(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def _message(body: bytes) -> str:
    text = body.decode("utf-8", "replace").strip()
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return text[:500]
