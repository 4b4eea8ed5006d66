"""Google's REST APIs, for the few things that the program does and Pulumi's provider cannot: upload, build, run a job.

Used inside dynamic resources, which run in a process of their own. Addresses come from the variables that Pulumi's
provider reads too, and are Google's own without them.
"""

import os
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import google.auth
import google.auth.transport.requests
import httpx

from infra.failures import Failure

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
ENDPOINTS = {
    "cloudbuild": ("GOOGLE_CLOUD_BUILD_CUSTOM_ENDPOINT", "https://cloudbuild.googleapis.com/v1/"),
    "logging": ("GOOGLE_LOGGING_CUSTOM_ENDPOINT", "https://logging.googleapis.com/v2/"),
    "run": ("GOOGLE_CLOUD_RUN_V2_CUSTOM_ENDPOINT", "https://run.googleapis.com/v2/"),
    "storage": ("GOOGLE_STORAGE_CUSTOM_ENDPOINT", "https://storage.googleapis.com/storage/v1/"),
}
RETRIED = {429, 502, 503, 504}
ATTEMPTS = 6

Answer = TypeVar("Answer")


class RequestRefused(Failure):
    """Google's answer, in its own words."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Unreachable(Failure):
    """No answer came, also not after several attempts."""


class TookTooLong(Failure):
    """What was waited for did not happen in the time given. It may still happen."""


def endpoint(api: str) -> str:
    variable, default = ENDPOINTS[api]
    return os.environ.get(variable) or default


class BearerToken(httpx.Auth):
    """The token that Pulumi's provider would use: given outright, or from application default credentials."""

    def __init__(self) -> None:
        self.given = os.environ.get("GOOGLE_OAUTH_ACCESS_TOKEN")
        self.credentials: Any = None if self.given else google.auth.default(scopes=[SCOPE])[0]

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        token = self.given
        if token is None:
            if not self.credentials.valid:
                self.credentials.refresh(google.auth.transport.requests.Request())
            token = self.credentials.token
        request.headers["Authorization"] = f"Bearer {token}"
        yield request


@dataclass
class Google:
    """`call` asks one of ENDPOINTS; a passing failure is tried again, a refusal is raised with Google's message."""

    client: httpx.Client

    @classmethod
    def connect(cls) -> "Google":
        return cls(httpx.Client(auth=BearerToken(), timeout=httpx.Timeout(60, connect=10)))

    def call(self, method: str, url: str, **request: Any) -> dict[str, Any]:
        """Raises:
        RequestRefused: an answer of 400 or more that another try would not change.
        Unreachable: no answer at all.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = self.client.request(method, url, **request)
            except httpx.TransportError as error:
                if attempt == ATTEMPTS:
                    raise Unreachable(f"{method} {url}: {str(error) or type(error).__name__}") from None
            else:
                if answer.status_code not in RETRIED or attempt == ATTEMPTS:
                    return body_of(answer)
            time.sleep(min(0.25 * 2**attempt, 8))
        raise AssertionError("unreachable: the last attempt returns or raises")

    def upload(self, bucket: str, name: str, data: bytes) -> str:
        """The generation of the object, which is written only if there is none: its name says what is in it."""
        url = endpoint("storage").replace("/storage/v1/", "/upload/storage/v1/") + f"b/{bucket}/o"
        query = {"uploadType": "media", "name": name, "ifGenerationMatch": "0"}
        try:
            return str(self.call("POST", url, params=query, content=data)["generation"])
        except RequestRefused as error:
            if error.status != httpx.codes.PRECONDITION_FAILED:
                raise
        url = (
            f"{endpoint('storage')}b/{bucket}/o/{httpx.URL(path=f'/{name}').raw_path.decode()[1:].replace('/', '%2F')}"
        )
        return str(self.call("GET", url)["generation"])

    def last_log_lines(self, project: str, filter_: str, count: int = 25) -> list[str]:
        """Oldest first; empty when the log cannot be read, because it is only ever wanted beside a failure."""
        body = {
            "resourceNames": [f"projects/{project}"],
            "filter": filter_,
            "orderBy": "timestamp desc",
            "pageSize": count,
        }
        try:
            entries = self.call("POST", f"{endpoint('logging')}entries:list", json=body).get("entries", [])
        except (RequestRefused, Unreachable):
            return []
        return [text_of(entry) for entry in reversed(entries)]


def body_of(answer: httpx.Response) -> dict[str, Any]:
    try:
        body: dict[str, Any] = answer.json() if answer.content else {}
    except ValueError:
        body = {}
    if answer.is_success:
        return body
    said = body.get("error")
    message = said.get("message") if isinstance(said, dict) else answer.text[:500]
    raise RequestRefused(
        f"{answer.request.method} {answer.request.url}: {answer.status_code} {message}", answer.status_code
    )


def text_of(entry: dict[str, Any]) -> str:
    payload = entry.get("jsonPayload")
    if not isinstance(payload, dict):
        return str(entry.get("textPayload", ""))
    return str(payload.get("message") or payload)


def wait_for(ask: Callable[[], Answer | None], what: str, timeout_seconds: float) -> Answer:
    """Ask until there is an answer: often at first, every five seconds later.

    Raises:
        TookTooLong: there was none in time.
    """
    deadline = time.monotonic() + timeout_seconds
    pause = 0.25
    while True:
        answer = ask()
        if answer is not None:
            return answer
        if time.monotonic() > deadline:
            raise TookTooLong(f"{what} did not end within {timeout_seconds:.0f} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 5)
