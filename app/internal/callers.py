"""Every internal endpoint names its callers. A list without a name cannot be written, and an endpoint without a list
cannot be reached.
"""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, Final

import structlog
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from app.cloud.id_tokens import InvalidToken, Keys, KeysUnavailable, verified_email
from app.settings import env
from app.web.problems import Problem

_View = Callable[..., HttpResponseBase]
_CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}


@cache
def google_keys() -> Keys:
    return Keys(f"{env.oauth2_endpoint.removesuffix('/')}/v3/certs")


class Callers:
    """The service accounts that may call an endpoint, by email.

    `Callers()` and `Callers("")` raise ImproperlyConfigured: an open endpoint cannot start.
    """

    def __init__(self, *emails: str) -> None:
        if not emails or not all(emails) or not env.worker_url:
            raise ImproperlyConfigured(
                "an internal endpoint has no caller: set VALIDIBOT_TASKS_SERVICE_ACCOUNT, "
                "VALIDIBOT_SCHEDULER_SERVICE_ACCOUNT and VALIDIBOT_WORKER_URL"
            )
        self.emails = frozenset(emails)

    def identify(self, request: HttpRequest) -> str:
        """The caller's email. Raises: Problem 401, 403, or 503 when nobody can tell."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise _refusal(401, "the request has no token")
        try:
            email = verified_email(token.strip(), env.worker_url, google_keys())
        except InvalidToken as error:
            raise _refusal(401, str(error)) from None
        except KeysUnavailable as error:
            raise _refusal(503, str(error)) from None
        if email not in self.emails:
            raise _refusal(403, f"{email} is not a caller of this endpoint")
        return email

    def __call__(self, view: _View) -> _View:
        """Decorate a view: it runs for these callers only."""

        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            try:
                caller = self.identify(request)
            except Problem as problem:
                # Into the one line that the request log writes; the caller learns no more than the status says.
                structlog.contextvars.bind_contextvars(refused=problem.detail)
                problem.detail = "the caller is not accepted"
                return problem.response(request)
            structlog.contextvars.bind_contextvars(caller=caller)
            return view(request, *args, **kwargs)

        guarded.callers = self  # type: ignore[attr-defined]  # for the test that no endpoint goes without
        return guarded


def _refusal(status: int, detail: str) -> Problem:
    if status == 401:
        return Problem(
            "unauthenticated", "The request is not authenticated", status=401, detail=detail, headers=_CHALLENGE
        )
    if status == 403:
        return Problem("forbidden", "The request is refused", status=403, detail=detail)
    return Problem("busy", "The caller cannot be checked", status=503, detail=detail, headers={"Retry-After": "5"})
