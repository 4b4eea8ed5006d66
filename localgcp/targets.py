"""HTTP targets: what Cloud Tasks and Cloud Scheduler call, and the tokens that they call with."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from localgcp.errors import InvalidArgument, PermissionDenied
from localgcp.iam.acting import may_act_as
from localgcp.run.http1 import ConnectionFailed, TimedOut

if TYPE_CHECKING:
    from localgcp.region import Region
    from localgcp.service import Call

# `HttpRequest.url`: the longest URL after encoding.
MAX_URL_LENGTH = 2083
METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
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
        """What `Retry-After` asks for, as seconds or as a date; 0 when it is absent or unreadable."""
        value = self.headers.get("retry-after", "").strip()
        if value.isdigit():
            return float(value)
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time.time()) if value else 0.0
        except ValueError:
            return 0.0


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
        """Raises NoResponse when no answer came within the deadline."""
        if self._region.run.handles(url):
            return await self._call_service(method, url, headers, body, deadline_seconds)
        try:
            answer = await self._client.request(
                method,
                self._reachable(url),
                headers=dict(headers),
                content=body,
                timeout=httpx.Timeout(deadline_seconds, connect=min(CONNECT_SECONDS, deadline_seconds)),
            )
        except httpx.TimeoutException:
            raise NoResponse("DEADLINE_EXCEEDED") from None
        except httpx.HTTPError as error:
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
        """The `Authorization` header that a target's `oidcToken` or `oauthToken` asks for, minted at this moment."""
        tokens = self._region.tokens
        if "oidcToken" in target:
            spec = target["oidcToken"]
            token = await self._region.run_in_thread(
                tokens.id_token, spec["serviceAccountEmail"], spec.get("audience") or url
            )
            return {"Authorization": f"Bearer {token}"}
        if "oauthToken" in target:
            token = await self._region.run_in_thread(tokens.access_token, target["oauthToken"]["serviceAccountEmail"])
            return {"Authorization": f"Bearer {token}"}
        return {}


def check_target(call: "Call", target: Mapping[str, Any], where: str, uri_field: str) -> None:
    """Raises InvalidArgument for a target that could never be called, PermissionDenied without `actAs`."""
    url = target.get(uri_field, "")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidArgument(
            f'{where}.{uri_field} must begin with "http://" or "https://" and name a host, got "{url}".'
        )
    if len(url) > MAX_URL_LENGTH:
        raise InvalidArgument(f"{where}.{uri_field} must be at most {MAX_URL_LENGTH} characters, got {len(url)}.")
    if target.get("body") and target.get("httpMethod", "POST") not in METHODS_WITH_BODY:
        raise InvalidArgument(f"{where}.body is allowed only if the HTTP method is POST, PUT, or PATCH.")
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
