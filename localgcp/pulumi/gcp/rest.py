"""Calls to Google's REST APIs: credentials, retries, errors in the real provider's words, long-running operations."""

import json
import os
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception
from tenacity.wait import wait_exponential_jitter

from localgcp.pulumi.gcp.endpoints import Endpoints
from localgcp.pulumi.provider import ProviderError

#: For the `x-goog-request-id` of creating calls: the same creation asked for again carries the same id.
_NAMESPACE = uuid.UUID("5b1c3f0e-6c1d-4c58-9d64-8b8f5f0c2a11")
_RETRIED_STATUS = frozenset({429, 502, 503, 504})
#: google.rpc.Code -> HTTP.
_STATUS_OF_CODE = {3: 400, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 14: 503, 16: 401}
_FIRST_POLL_SECONDS = 0.1
_LONGEST_POLL_SECONDS = 2.0


class RestError(ProviderError):
    """An API's refusal."""

    def __init__(self, status: int, message: str, reason: str = "") -> None:
        super().__init__(f"googleapi: Error {status}: {message}" + (f", {reason}" if reason else ""))
        self.status = status
        self.reason = reason


class OperationFailed(RestError):
    """A long-running operation that ended in an error. `status` is the HTTP status that means the same."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(_STATUS_OF_CODE.get(code, 500), message)
        self.args = (f"Error code {code}, message: {message}",)


class Unreachable(ProviderError):
    """No answer came, also not after several attempts. Whether the call took effect is not known."""


class Timeout(ProviderError):
    """An operation was still running when the time was over."""


def request_id(*parts: str) -> str:
    """A stable id of one creation."""
    return str(uuid.uuid5(_NAMESPACE, "\n".join(parts)))


def error_of(response: httpx.Response) -> RestError:
    """An error answer, in the words of Google's Go client."""
    try:
        error = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        return RestError(response.status_code, response.text[:500] or response.reason_phrase)
    if not isinstance(error, Mapping):
        return RestError(response.status_code, str(error))
    errors = error.get("errors") or [{}]
    reason = str(errors[0].get("reason", "")) if isinstance(errors[0], Mapping) else ""
    return RestError(response.status_code, str(error.get("message", response.reason_phrase)), reason)


class Rest:
    """One connection pool for all resources. Safe to use from several threads."""

    def __init__(
        self,
        *,
        endpoints: Endpoints,
        attempts_seconds: float = 30.0,
        poll_seconds: float | None = None,
        access_token: str = "",
    ) -> None:
        self.endpoints = endpoints
        self._attempts_seconds = attempts_seconds
        self._longest_poll = poll_seconds if poll_seconds is not None else _LONGEST_POLL_SECONDS
        self._http = httpx.Client(
            timeout=httpx.Timeout(120.0, connect=10.0),
            limits=httpx.Limits(max_connections=32, max_keepalive_connections=16),
            headers={"User-Agent": "localgcp-pulumi-gcp"},
        )
        self._credentials = _Credentials(access_token)
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Make calls under way give up at their next pause."""
        self._cancelled.set()

    def token(self) -> str:
        """The access token of the calls."""
        return self._credentials.token()

    def close(self) -> None:
        self._http.close()

    def call(
        self,
        method: str,
        api: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        request_id: str = "",
        content: bytes | None = None,
        content_type: str = "",
        deadline: float | None = None,
    ) -> dict[str, Any]:
        """One call; its JSON answer, `{}` when there is none. RestError for anything but 2xx."""
        headers = {"Authorization": f"Bearer {self.token()}"}
        if request_id:
            headers["x-goog-request-id"] = request_id
        if content is not None:
            headers["Content-Type"] = content_type
        elif body is not None:
            content = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        request = self._http.build_request(
            method, self.endpoints[api] + path, params=query or None, headers=headers, content=content
        )
        # A write that may have taken effect is repeated only when its repetition is harmless.
        repeatable = method in ("GET", "PUT", "DELETE", "PATCH") or bool(request_id)
        stop_after = self._attempts_seconds
        if deadline is not None:
            stop_after = max(0.0, min(stop_after, deadline - time.monotonic()))
        started = time.monotonic()

        def is_over(_: RetryCallState) -> bool:
            return self._cancelled.is_set() or time.monotonic() - started >= stop_after

        try:
            for attempt in Retrying(
                retry=retry_if_exception(lambda error: _is_passing(error, repeatable=repeatable)),
                stop=is_over,
                wait=wait_exponential_jitter(multiplier=0.2, max=5.0, jitter=0.2),
                sleep=self._pause,
                reraise=True,
            ):
                with attempt:
                    response = self._http.send(request)
                    if not response.is_success:
                        raise error_of(response)
                    return _json(response)
        except httpx.TransportError as error:
            raise Unreachable(f"{method} {request.url}: {str(error) or type(error).__name__}") from error
        raise AssertionError("unreachable")

    def pause(self, deadline: float | None) -> None:
        """Wait a little; Timeout when the deadline has passed or the user has cancelled."""
        self._pause(min(0.25, self._longest_poll))
        if self._cancelled.is_set():
            raise Timeout("cancelled")
        if deadline is not None and time.monotonic() > deadline:
            raise Timeout("still unfinished after the time allowed for it")

    def _pause(self, seconds: float) -> None:
        self._cancelled.wait(seconds)

    def finish(
        self, api: str, answer: dict[str, Any], *, project: str = "", deadline: float | None = None
    ) -> dict[str, Any]:
        """Wait for the operation that `answer` is; its final form. An answer that is none comes back as it is."""
        path = _operation_path(api, answer, project)
        pause = _FIRST_POLL_SECONDS
        while path is not None and not _is_done(answer):
            if self._cancelled.is_set():
                raise Timeout(f"cancelled while waiting for the operation {answer.get('name')}")
            if deadline is not None and time.monotonic() > deadline:
                raise Timeout(f"the operation {answer.get('name')} is still running after the time allowed for it")
            self._pause(min(pause, self._longest_poll))
            pause *= 1.5
            answer = self.call("GET", "serviceusage" if api.startswith("serviceusage") else api, path)
        if path is not None and answer.get("error"):
            raise _operation_error(answer)
        return answer


def _is_passing(error: BaseException, *, repeatable: bool) -> bool:
    """Whether another attempt may help, and may be made."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
        return True
    if isinstance(error, httpx.TransportError):
        return repeatable
    if not isinstance(error, RestError):
        return False
    # Cloud SQL does one thing at a time with an instance, and refuses the rest before it begins.
    is_busy = error.reason == "operationInProgress"
    return is_busy or (error.status in _RETRIED_STATUS and (repeatable or error.status != 504))


def _json(response: httpx.Response) -> dict[str, Any]:
    if not response.content:
        return {}
    answer = response.json()
    return answer if isinstance(answer, dict) else {}


def _operation_path(api: str, answer: Mapping[str, Any], project: str) -> str | None:
    """Where an operation is asked for; None when the answer is none."""
    kind, name = str(answer.get("kind", "")), str(answer.get("name", ""))
    if kind == "compute#operation":
        region = str(answer.get("region", "")).rpartition("/")[2]
        scope = f"regions/{region}" if region else "global"
        return f"projects/{project}/{scope}/operations/{name}"
    if kind == "sql#operation":
        return f"projects/{project}/operations/{name}"
    if name.startswith("operations/") or "/operations/" in name:
        return name
    return None


def _is_done(answer: Mapping[str, Any]) -> bool:
    return bool(answer.get("done")) or answer.get("status") == "DONE"


def _operation_error(answer: Mapping[str, Any]) -> RestError:
    error = answer["error"]
    errors = error.get("errors")
    if errors:
        message = "; ".join(str(each.get("message") or each.get("code")) for each in errors)
        return RestError(int(answer.get("httpErrorStatusCode", 400)), message, str(errors[0].get("code", "")))
    return OperationFailed(int(error.get("code", 2)), str(error.get("message", "")))


class _Credentials:
    """An access token: the configured one, else `GOOGLE_OAUTH_ACCESS_TOKEN`, else from the default credentials."""

    def __init__(self, access_token: str) -> None:
        self._configured = access_token
        self._lock = threading.Lock()
        self._found: Any = None

    def token(self) -> str:
        if fixed := self._configured or os.environ.get("GOOGLE_OAUTH_ACCESS_TOKEN"):
            return fixed
        import google.auth
        import google.auth.exceptions
        import google.auth.transport.requests

        with self._lock:
            try:
                if self._found is None:
                    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
                    self._found, _ = google.auth.default(scopes=scopes)
                if not self._found.valid:
                    self._found.refresh(google.auth.transport.requests.Request())
            except google.auth.exceptions.GoogleAuthError as error:
                raise ProviderError(
                    f"no credentials: {error} Set GOOGLE_OAUTH_ACCESS_TOKEN, or load `python -m localgcp env`."
                ) from error
            return str(self._found.token)
