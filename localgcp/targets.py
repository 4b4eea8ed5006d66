"""HTTP targets: what Cloud Tasks and Cloud Scheduler call, and the tokens that they call with."""

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import httpx

from localgcp.errors import InvalidArgument, PermissionDenied
from localgcp.iam import accounts
from localgcp.iam.acting import may_act_as
from localgcp.run.http1 import ConnectionFailed, TimedOut
from localgcp.tasks.policy import MAX_RETENTION_SECONDS

if TYPE_CHECKING:
    from localgcp.region import Region
    from localgcp.service import Call

# `HttpRequest.url`: the longest URL after encoding.
MAX_URL_LENGTH = 2083
METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
# A name, or an IPv6 address.
HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")
# `HttpRequest.headers`: names and values together.
MAX_HEADERS_BYTES = 80 * 1024
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
# What the sender sets by itself, whatever a target says.
RESERVED_HEADERS = ("host", "content-length", "user-agent", "transfer-encoding", "connection")
RESERVED_PREFIXES = ("x-google-", "x-appengine-", "x-cloudtasks-", "x-cloudscheduler")
# google.rpc.Code, as far as an attempt can end with it, and the HTTP statuses that stand for one of them.
CODES = {
    "CANCELLED": 1,
    "UNKNOWN": 2,
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "ABORTED": 10,
    "OUT_OF_RANGE": 11,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "UNAUTHENTICATED": 16,
}
CODE_NAMES_BY_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    416: "OUT_OF_RANGE",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
# Connection establishment counts towards the deadline, but a target that refuses must be told apart quickly.
CONNECT_SECONDS = 10.0


class NoResponse(Exception):
    """The target did not answer; the text says why. The attempt counts as failed, without a response."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    headers: Mapping[str, str]

    @property
    def is_success(self) -> bool:
        return 200 <= self.status <= 299

    def retry_after_seconds(self) -> float:
        """What `Retry-After` asks for, as seconds or as a date; 0 when it is absent or unreadable.

        At most the time that a task is kept: what a target asks for may be beyond any date.
        """
        value = self.headers.get("retry-after", "").strip()
        try:
            if value.isascii() and value.isdigit():
                wait = float(value)
            else:
                wait = parsedate_to_datetime(value).timestamp() - time.time() if value else 0.0
        except (ValueError, OverflowError):
            return 0.0
        return min(max(0.0, wait), MAX_RETENTION_SECONDS)


class Caller:
    """Calls targets. Services of this region are reached inside it, as internal traffic; everything else by HTTP."""

    def __init__(self, region: "Region") -> None:
        self._region = region
        self._client = httpx.AsyncClient(
            # Each call has its own deadline.
            timeout=None,  # noqa: S113
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=100),
            trust_env=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def call(
        self, *, method: str, url: str, headers: Mapping[str, str], body: bytes, deadline_seconds: float
    ) -> Answer:
        """Raises NoResponse when no answer came within the deadline, which is for the whole of it."""
        url = encoded(url)
        if self._region.run.handles(url):
            return await self._call_service(method, url, headers, body, deadline_seconds)
        try:
            async with asyncio.timeout(deadline_seconds):
                answer = await self._client.request(
                    method,
                    self._reachable(url),
                    headers=dict(headers),
                    content=body,
                    timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
                )
        except (TimeoutError, httpx.TimeoutException):
            raise NoResponse("DEADLINE_EXCEEDED") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NoResponse(f"UNAVAILABLE: {type(error).__name__}") from None
        return Answer(status=answer.status_code, headers=answer.headers)

    async def _call_service(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, deadline_seconds: float
    ) -> Answer:
        async def exchange() -> Answer:
            response = await self._region.run.request(url, method=method, headers=headers, body=body)
            while await response.body.read():
                pass
            names = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            return Answer(status=response.status, headers=names)

        try:
            return await asyncio.wait_for(exchange(), deadline_seconds)
        except TimeoutError:
            raise NoResponse("DEADLINE_EXCEEDED") from None
        except (ConnectionFailed, TimedOut) as error:
            raise NoResponse(f"UNAVAILABLE: {type(error).__name__}") from None

    def _reachable(self, url: str) -> str:
        """`https://run.googleapis.com/v2/…` is this region's own API: a task may run a Cloud Run job."""
        parts = urlsplit(url)
        api, _, domain = parts.netloc.partition(".")
        if domain != "googleapis.com" or api not in self._region.services:
            return url
        query = f"?{parts.query}" if parts.query else ""
        return f"{self._region.settings.api_url}/{api}{parts.path}{query}"

    async def authorization(self, target: Mapping[str, Any], url: str) -> dict[str, str]:
        """The `Authorization` header that a target's `oidcToken` or `oauthToken` asks for, minted at this moment.

        Raises NoResponse when the account was deleted or disabled since: nobody can be called in its name.
        """
        kind = next((kind for kind in ("oidcToken", "oauthToken") if kind in target), None)
        if kind is None:
            return {}
        spec = target[kind]
        email = spec["serviceAccountEmail"]
        if not await self._region.run_in_thread(accounts.is_usable, self._region.store, email):
            raise NoResponse(f"PERMISSION_DENIED: {email} does not exist or is disabled")
        tokens = self._region.tokens
        if kind == "oidcToken":
            token = await self._region.run_in_thread(tokens.id_token, email, spec.get("audience") or url)
        else:
            token = await self._region.run_in_thread(tokens.access_token, email)
        return {"Authorization": f"Bearer {token}"}


def check_target(call: "Call", target: Mapping[str, Any], where: str, uri_field: str) -> None:
    """Raises InvalidArgument for a target that could never be called, PermissionDenied without `actAs`."""
    url = target.get(uri_field, "")
    if not _is_callable(url):
        raise InvalidArgument(
            f'{where}.{uri_field} must begin with "http://" or "https://" and name a host, got "{url}".'
        )
    if (length := len(encoded(url))) > MAX_URL_LENGTH:
        raise InvalidArgument(f"{where}.{uri_field} must be at most {MAX_URL_LENGTH} characters, got {length}.")
    if target.get("body") and target.get("httpMethod", "POST") not in METHODS_WITH_BODY:
        raise InvalidArgument(f"{where}.body is allowed only if the HTTP method is POST, PUT, or PATCH.")
    check_headers(target.get("headers", {}), where)
    check_tokens(call, target, where)


def check_headers(headers: Mapping[str, str], where: str) -> None:
    """Raises InvalidArgument naming a header that no request could carry."""
    for name, value in headers.items():
        if not HEADER_NAME.fullmatch(name):
            raise InvalidArgument(f'{where}.headers: "{name[:100]}" cannot be the name of a header.')
        if not HEADER_VALUE.fullmatch(value):
            raise InvalidArgument(f'{where}.headers: the value of "{name[:100]}" must be printable ASCII.')
    size = sum(len(name) + len(value) for name, value in headers.items())
    if size >= MAX_HEADERS_BYTES:
        raise InvalidArgument(f"{where}.headers must be less than {MAX_HEADERS_BYTES // 1024}KB, got {size} bytes.")


def check_tokens(call: "Call", target: Mapping[str, Any], where: str) -> None:
    """Raises InvalidArgument for a token of nobody, PermissionDenied when the caller may not act as its account."""
    if "oidcToken" in target and "oauthToken" in target:
        raise InvalidArgument(f"{where}: oidcToken and oauthToken exclude each other.")
    for kind in ("oidcToken", "oauthToken"):
        if kind not in target:
            continue
        email = target[kind].get("serviceAccountEmail", "")
        if not email:
            raise InvalidArgument(f"{where}.{kind}.serviceAccountEmail is required.")
        if not may_act_as(call, email):
            raise PermissionDenied(
                'The principal (user or service account) lacks IAM permission "iam.serviceAccounts.actAs" for the'
                f' resource "{email}" (or the resource may not exist).'
            )


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Those of a target's own headers that are sent; the sender sets or computes the others."""
    return {
        name.title() if name.lower() == "content-type" else name: value
        for name, value in headers.items()
        if name.lower() not in RESERVED_HEADERS and not name.lower().startswith(RESERVED_PREFIXES)
    }


def rpc_status(answer: Answer | None, reason: str) -> dict[str, Any]:
    """The google.rpc.Status of an attempt, by the code that its answer or the lack of one maps to."""
    if answer is None:
        name = reason.partition(":")[0]
        return {"code": CODES.get(name, CODES["UNAVAILABLE"]), "message": reason}
    default = "INTERNAL" if answer.status >= 500 else "FAILED_PRECONDITION" if answer.status >= 400 else "UNKNOWN"
    name = CODE_NAMES_BY_STATUS.get(answer.status, default)
    return {"code": CODES[name], "message": f"{name}({CODES[name]}): HTTP status code {answer.status}"}


def encoded(url: str) -> str:
    """The URL as a request carries it. What is percent-encoded already stays so."""
    return quote(url, safe="%/:=&?~#+!$,;'@()*[]")


def _is_callable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and HOST.fullmatch(parts.hostname or "") is not None and port != 0
