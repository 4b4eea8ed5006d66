"""Middleware: the request log with its trace, health, content security policy, problem documents."""

import json
import re
import secrets
import time
from collections.abc import Callable
from typing import Final

import structlog
from django.db import DatabaseError, InterfaceError, OperationalError, connection
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string

from app.web.problems import CONTENT_TYPE, of_status

_View = Callable[[HttpRequest], HttpResponseBase]
log = structlog.get_logger("app.request")

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_CLOUD_TRACE = re.compile(r"([0-9a-fA-F]{32})(?:/(\d{1,20}))?(?:;o=(\d))?")
_MACHINES: Final = ("/api/", "/callbacks/")  # who asks there reads problem documents, not pages
_PROBES: Final = {"/healthz", "/readyz"}
_POLICY: Final = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


def trace_of(request: HttpRequest) -> dict[str, object]:
    """The caller's trace (W3C first, then Google's older header), or a new one."""
    if match := _TRACEPARENT.fullmatch(request.headers.get("traceparent", "")):
        return {"trace_id": match[1], "span_id": match[2], "trace_sampled": bool(int(match[3], 16) & 1)}
    if match := _CLOUD_TRACE.fullmatch(request.headers.get("X-Cloud-Trace-Context", "")):
        span = f"{int(match[2]) % 2**64:016x}" if match[2] else ""
        return {"trace_id": match[1].lower(), "span_id": span, "trace_sampled": match[3] == "1"}
    return {"trace_id": secrets.token_hex(16)}


def request_log(get_response: _View) -> _View:
    def middleware(request: HttpRequest) -> HttpResponseBase:
        started = time.monotonic()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(**trace_of(request))
        response = get_response(request)
        if request.path.startswith(_MACHINES) and response.status_code >= 400:
            response = _as_problem(request, response)
        if request.path in _PROBES and response.status_code < 400:
            return response
        is_notable = response.status_code == 429 or "refused" in structlog.contextvars.get_contextvars()
        write = log.error if response.status_code >= 500 else log.warning if is_notable else log.info
        write(
            f"{request.method} {request.path} {response.status_code}",
            httpRequest={
                "requestMethod": request.method,
                # Without the query: an address may be signed, and a signature is a secret.
                "requestUrl": request.path,
                "requestSize": request.META.get("CONTENT_LENGTH") or "0",
                "status": response.status_code,
                "responseSize": str(len(response.content)) if isinstance(response, HttpResponse) else "",
                "userAgent": request.headers.get("User-Agent", "")[:200],
                "remoteIp": request.headers.get("X-Forwarded-For", request.META.get("REMOTE_ADDR", ""))[:200],
                "latency": f"{time.monotonic() - started:.6f}s",
            },
        )
        return response

    return middleware


def _as_problem(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    if response.headers.get("Content-Type", "").startswith(CONTENT_TYPE):
        return response
    kept = {name: response.headers[name] for name in ("Allow", "Retry-After") if name in response.headers}
    return of_status(response.status_code, kept).response(request)


def health(get_response: _View) -> _View:
    """`/healthz`: the process answers. `/readyz`: its database does too, with the tables and rights it needs."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if request.path == "/healthz":
            return _health(200, {"status": "ok"})
        if request.path == "/readyz":
            reason = _database_failure()
            if reason:
                return _health(503, {"status": "unavailable", "failed": {"database": reason}})
            return _health(200, {"status": "ok"})
        return get_response(request)

    return middleware


def _health(status: int, body: dict[str, object]) -> HttpResponse:
    return HttpResponse(
        json.dumps(body), status=status, content_type="application/json", headers={"Cache-Control": "no-store"}
    )


def _database_failure() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM organizations_organization LIMIT 1")
        return ""
    except Exception as error:
        log.error("the database is not ready", reason=str(error)[:500])
        return _reason(error)
    finally:
        connection.close()


def _reason(error: Exception) -> str:
    """What failed, in words that name no host, user or address."""
    text = str(error)
    for needle, reason in (
        ("authentication failed", "the login was refused"),
        ("does not exist", "the database or its tables do not exist: has the migrate job run?"),
        ("permission denied", "a row privilege is missing: has the migrate job run?"),
        ("too many", "there are too many connections"),
    ):
        if needle in text:
            return reason
    return "no connection" if isinstance(error, DatabaseError) else "the login token could not be fetched"


def content_security_policy(get_response: _View) -> _View:
    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        response.headers.setdefault("Content-Security-Policy", _POLICY)
        return response

    return middleware


class PagesWithoutDatabase:
    """503 where a page finds the database away, as the API answers by itself: it is not the page that is broken."""

    def __init__(self, get_response: _View) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not isinstance(error, OperationalError | InterfaceError):
            return None
        log.error("the database failed", reason=str(error)[:500])
        return HttpResponse(render_to_string("web/unavailable.html"), status=503, headers={"Retry-After": "5"})
