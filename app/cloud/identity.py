"""The workload's own identity: Application Default Credentials, passed on explicitly.

Explicitly, because Google's storage client takes anonymous credentials by itself when its endpoint is overridden.
"""

import threading
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final

import google.auth
import google.auth.credentials
from google.auth.transport.requests import Request

CLOUD_PLATFORM: Final = "https://www.googleapis.com/auth/cloud-platform"
SQL_LOGIN: Final = "https://www.googleapis.com/auth/sqlservice.login"
# A login takes a moment, and the token must be good at its end. Google hands out tokens with at least five minutes.
_REMAINING: Final = timedelta(minutes=2)


@cache
def credentials(scope: str = CLOUD_PLATFORM) -> google.auth.credentials.Credentials:
    """The workload's credentials. They refresh themselves; nothing is asked of Google before they are used."""
    found, _ = google.auth.default(scopes=[scope])
    return found


class LoginToken:
    """The access token that a database login takes as its password. One instance serves all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def current(self) -> str:
        """A token that is good for at least two minutes."""
        with self._lock:
            held = credentials(SQL_LOGIN)
            if (
                not held.token
                or held.expiry is None
                or held.expiry - _REMAINING < datetime.now(UTC).replace(tzinfo=None)
            ):
                held.refresh(Request())
            return str(held.token)

    def forget(self) -> None:
        """The database refused the token: ask for another one next time."""
        with self._lock:
            credentials(SQL_LOGIN).token = None


login_token: Final = LoginToken()
