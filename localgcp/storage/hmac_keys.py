"""HMAC keys: a secret of a service account, for signatures of clients that cannot sign with RSA."""

import base64
import hashlib
import hmac
import secrets
import string
from collections.abc import Mapping
from typing import Any

from localgcp.clock import Clock
from localgcp.errors import InvalidArgument, NotFound, PreconditionFailed, ResourceExhausted
from localgcp.storage import times
from localgcp.storage.preconditions import MESSAGE
from localgcp.store import Resource, Store

MAX_KEYS = 10  # "Quotas and limits" of Cloud Storage: per service account, deleted ones not counted
STATES = ("ACTIVE", "INACTIVE")
ALPHABET = string.ascii_uppercase + string.digits


class HmacKeys:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def create(self, project: str, email: str) -> tuple[Resource, str]:
        """A key of an account, and its secret, which is told this once. Raises ResourceExhausted."""
        access_id = "GOOG1E" + "".join(secrets.choice(ALPHABET) for _ in range(55))
        secret = base64.b64encode(secrets.token_bytes(30)).decode()
        now = times.text(self._clock.now())
        with self._store.transaction():
            if len(self.list(project, email)) >= MAX_KEYS:
                raise ResourceExhausted(f"{email} has {MAX_KEYS} HMAC keys already, which is the most it can have.")
            key = {
                "kind": "storage#hmacKeyMetadata",
                "id": f"{project}/{access_id}",
                "accessId": access_id,
                "projectId": project,
                "serviceAccountEmail": email,
                "state": "ACTIVE",
                "timeCreated": now,
                "updated": now,
                "etag": _etag(),
                "_localgcp": {"secret": secret},
            }
            return self._store.create(_key(access_id), key), secret

    def get(self, project: str, access_id: str) -> Resource:
        """Raises NotFound."""
        found = self._store.find(_key(access_id))
        if found is None or found["projectId"] != project:
            raise NotFound(f"Access ID not found in project {project}.")
        return found

    def list(self, project: str, email: str | None = None, *, deleted: bool = False) -> list[Resource]:
        return [
            key
            for key in self._store.list("storage", "hmacKeys")
            if key["projectId"] == project
            and email in (None, key["serviceAccountEmail"])
            and (deleted or key["state"] != "DELETED")
        ]

    def update(self, project: str, access_id: str, body: Mapping[str, Any]) -> Resource:
        """Change the state. Raises NotFound, InvalidArgument, and PreconditionFailed for another's etag."""
        with self._store.transaction():
            key = self.get(project, access_id)
            if body.get("etag") not in (None, "", key["etag"]):
                raise PreconditionFailed(MESSAGE)
            if body.get("state") not in STATES:
                raise InvalidArgument(f"The state must be ACTIVE or INACTIVE, not {body.get('state')}.")
            if key["state"] == "DELETED":
                raise InvalidArgument("A deleted HMAC key cannot be changed.")
            return self._set_state(key, body["state"])

    def delete(self, project: str, access_id: str) -> None:
        """Raises NotFound, and InvalidArgument for a key that is active."""
        with self._store.transaction():
            key = self.get(project, access_id)
            if key["state"] == "ACTIVE":
                raise InvalidArgument("Cannot delete an active HMAC key: set its state to INACTIVE first.")
            self._set_state(key, "DELETED")

    def signer(self, access_id: str, scope: str, message: bytes, signature: bytes) -> str | None:
        """The account whose active key made this signature; None when no key did."""
        key = self._store.find(_key(access_id))
        if key is None or key["state"] != "ACTIVE":
            return None
        derived = b"GOOG4" + key["_localgcp"]["secret"].encode()
        for part in scope.split("/"):
            derived = hmac.digest(derived, part.encode(), hashlib.sha256)
        is_right = hmac.compare_digest(hmac.digest(derived, message, hashlib.sha256), signature)
        return str(key["serviceAccountEmail"]) if is_right else None

    def _set_state(self, key: Resource, state: str) -> Resource:
        changed = {**key, "state": state, "updated": times.text(self._clock.now()), "etag": _etag()}
        return self._store.put(key.key, changed)


def _key(access_id: str) -> str:
    return f"storage/hmacKeys/{access_id}"


def _etag() -> str:
    return base64.b64encode(secrets.token_bytes(6)).decode()
