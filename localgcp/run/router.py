"""The way of a request to an instance: which service, who may, which revision, which instance, and what is noted of it.

The hot path reads nothing from disk: deployments are snapshots, replaced whole when a service changes.
"""

import asyncio
import functools
import json
import logging
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from html import escape
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.types import Receive, Scope, Send

from localgcp.errors import ApiError, Unavailable
from localgcp.iam.principal import ANONYMOUS
from localgcp.run.fleet import Fleet, NoInstance
from localgcp.run.http1 import (
    HOP_BY_HOP,
    ConnectionFailed,
    Headers,
    Request,
    Response,
    TimedOut,
    Timer,
    Whole,
    serve_asgi,
)
from localgcp.run.program import StartFailed

if TYPE_CHECKING:
    from localgcp.region import Region

INVOKE = "run.routes.invoke"
MAX_REQUEST_BYTES = 32 * 1024 * 1024  # "Cloud Run quotas and limits": the size of a request over HTTP/1

log = logging.getLogger(__name__)


class Origin(Enum):
    """Where a request comes from, as ingress settings see it."""

    INTERNET = "internet"
    LOAD_BALANCER = "load balancer"
    #: Cloud Tasks, Cloud Scheduler and the project's own network.
    INTERNAL = "internal"


ALLOWED_ORIGINS = {
    "INGRESS_TRAFFIC_ALL": frozenset(Origin),
    "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER": frozenset({Origin.LOAD_BALANCER, Origin.INTERNAL}),
    "INGRESS_TRAFFIC_INTERNAL_ONLY": frozenset({Origin.INTERNAL}),
    "INGRESS_TRAFFIC_NONE": frozenset(),
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """A revision that gets a share of the traffic."""

    fleet: Fleet
    revision: str
    timeout_seconds: float
    percent: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Deployment:
    """A service as requests see it."""

    key: str
    project: str
    location: str
    service: str
    ingress: str
    invoker_disabled: bool
    #: Without a path: `https://web-123.australia-southeast1.run.app`.
    addresses: tuple[str, ...]
    custom_audiences: tuple[str, ...]
    targets: tuple[Target, ...]
    tags: Mapping[str, Target] = field(default_factory=dict)

    def is_audience(self, audience: str) -> bool:
        """Whether a token for `audience` is one for this service: a custom one as it is, an address with any path.

        Cloud Tasks and Scheduler fill in the address that they call. What has a query is refused there, too
        (googleapis/python-tasks, issue 137).
        """
        parts = urlsplit(audience)
        is_plain = not parts.query and not parts.fragment
        return audience in self.custom_audiences or (is_plain and f"{parts.scheme}://{parts.netloc}" in self.addresses)


class Router:
    def __init__(self, region: "Region") -> None:
        self._region = region
        self._deployments: dict[str, Deployment] = {}
        #: Host name -> the service's key and the tag that the name chooses.
        self._hosts: dict[str, tuple[str, str | None]] = {}

    # What is deployed

    def deploy(self, deployment: Deployment, hosts: Sequence[str]) -> None:
        self.forget(deployment.key)
        self._deployments[deployment.key] = deployment
        for host in hosts:
            self._hosts[host] = (deployment.key, None)
            for tag in deployment.tags:
                self._hosts[f"{tag}---{host}"] = (deployment.key, tag)

    def forget(self, key: str) -> None:
        self._deployments.pop(key, None)
        for host in [host for host, (owner, _) in self._hosts.items() if owner == key]:
            del self._hosts[host]

    def deployment(self, key: str) -> Deployment | None:
        return self._deployments.get(key)

    def handles(self, url: str) -> bool:
        """Whether a URL, or a host, is one of this region's services."""
        return _host(url) in self._hosts

    # Requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: a request to the API's own port whose Host is a service."""
        await serve_asgi(self.handle_by_host, scope, receive, send)

    async def handle_by_host(self, request: Request) -> Response:
        host = (request.header(b"host") or b"").decode("latin-1")
        return await self._to_host(request, host, Origin.INTERNET)

    async def request(
        self, url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Response:
        """A request from inside of the region (Cloud Tasks, Cloud Scheduler). The caller reads the answer's body."""
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        given = [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
        given = [(name, value) for name, value in given if name != b"host"]
        request = Request(method.encode(), target.encode(), [(b"host", parts.netloc.encode()), *given], Whole(body))
        return await self._to_host(request, parts.netloc, Origin.INTERNAL)

    async def handle(self, request: Request, key: str, origin: Origin, tag: str | None = None) -> Response:
        """Answer for the service of that key; whatever goes wrong is an answer, too."""
        deployment = self._deployments.get(key)
        if deployment is None:
            return not_found(request)
        began = time.monotonic()
        faulty = await self._struck(f"run/{deployment.service}")
        if faulty is not None:
            return faulty
        response, revision = await self._answer(request, deployment, origin, tag)
        self._note(request, response, deployment, revision, began)
        if self._region.faults.hit("drop-response", f"run/{deployment.service}"):
            # The work is done; who asked for it never learns.
            response.abort()
            raise ConnectionFailed("the response was dropped on request")
        return response

    async def _struck(self, target: str) -> Response | None:
        """The answer of a fault that was asked for; None when the request may pass."""
        faults = self._region.faults
        if faults.hit("refuse", target):
            raise ConnectionFailed("the connection was refused on request")
        try:
            await faults.before(target)
        except Unavailable as error:
            return unavailable(error.message)
        return None

    async def _to_host(self, request: Request, host: str, origin: Origin) -> Response:
        found = self._hosts.get(_host(host))
        if found is None:
            return not_found(request)
        key, tag = found
        return await self.handle(request, key, origin, tag)

    async def _answer(
        self, request: Request, deployment: Deployment, origin: Origin, tag: str | None
    ) -> tuple[Response, str]:
        target = deployment.tags.get(tag) if tag is not None else _chosen(deployment.targets)
        revision = target.revision if target is not None else ""
        if origin not in ALLOWED_ORIGINS.get(deployment.ingress, frozenset()):
            # Google hides what may not be reached from here.
            return not_found(request), revision
        if not deployment.invoker_disabled:
            refusal = await self._refusal(request, deployment)
            if refusal is not None:
                return refusal, revision
        if target is None:
            return unavailable("Service Unavailable"), revision
        if int(request.header(b"content-length") or 0) > MAX_REQUEST_BYTES:
            return too_large(), revision
        return await self._to_instance(request, target), revision

    async def _refusal(self, request: Request, deployment: Deployment) -> Response | None:
        """Why the caller may not invoke the service; None when it may."""
        region = self._region
        # Not in a thread: a public service is asked this by every request, and it is answered in microseconds.
        if region.iam.allows(ANONYMOUS, INVOKE, deployment.key):
            return None
        token = request.header(b"x-serverless-authorization") or request.header(b"authorization") or b""
        scheme, _, bearer = token.decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not bearer:
            return forbidden(request)
        try:
            principal = region.tokens.principal_of_id_token(bearer, deployment.is_audience)
        except ApiError:
            return unauthorized(request)
        if not await region.run_in_thread(region.iam.allows, principal, INVOKE, deployment.key):
            return forbidden(request)
        return None

    async def _to_instance(self, request: Request, target: Target) -> Response:
        fleet = target.fleet
        timer = Timer(target.timeout_seconds)
        current = asyncio.current_task()
        if current is not None:
            timer.on_expiry(lambda: _cancel(current))
        try:
            instance = await fleet.acquire()
        except NoInstance:
            timer.cancel()
            return Response.page(429, "Rate exceeded.", content_type=b"text/plain")
        except StartFailed:
            timer.cancel()
            return unavailable("Service Unavailable")
        except asyncio.CancelledError:
            timer.cancel()
            if not timer.expired or current is None:
                raise
            current.uncancel()
            return gateway_timeout()

        def done() -> None:
            timer.cancel()
            fleet.release(instance)

        try:
            response = await instance.pool.request(request, forwarded_headers(request), timer)
        except TimedOut:
            done()
            return gateway_timeout()
        except ConnectionFailed as error:
            done()
            log.info("an instance of %s gave no answer: %s", fleet.name, error)
            return unavailable(
                "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
            )
        except BaseException:
            done()
            raise
        response.when_ended(done)
        response.headers = [
            (name, value) for name, value in response.headers if name not in HOP_BY_HOP and name != b"server"
        ]
        response.headers.append((b"server", b"Google Frontend"))
        trace = request.header(b"x-cloud-trace-context")
        if trace is not None:
            response.headers.append((b"x-cloud-trace-context", trace))
        return response

    def _note(self, request: Request, response: Response, deployment: Deployment, revision: str, began: float) -> None:
        """An entry in the request log, written with the next batch."""
        host = (request.header(b"host") or b"").decode("latin-1")
        trace = (request.header(b"x-cloud-trace-context") or b"").partition(b"/")[0].decode("latin-1")
        status = response.status
        severity = "ERROR" if status >= 500 else "WARNING" if status >= 400 else "INFO"
        url = f"https://{host}{request.target.decode('latin-1')}"
        members = (
            f'"resource": {_resource_json(deployment, revision)}, "severity": "{severity}", "httpRequest":'
            f' {{"requestMethod": {quoted(request.method.decode("latin-1"))}, "requestUrl": {quoted(url)},'
            f' "status": {status},'
            f' "responseSize": {quoted((response.header(b"content-length") or b"0").decode("latin-1"))},'
            f' "userAgent": {quoted((request.header(b"user-agent") or b"").decode("latin-1"))},'
            f' "remoteIp": {quoted(request.client)}, "protocol": "HTTP/1.1",'
            f' "latency": "{time.monotonic() - began:.6f}s"}}'
        )
        if trace:
            members += f', "trace": {quoted(f"projects/{deployment.project}/traces/{trace}")}'
        self._region.logs.write_members(deployment.project, "run.googleapis.com/requests", members)


@functools.lru_cache(maxsize=256)
def _resource_json(deployment: Deployment, revision: str) -> str:
    return json.dumps(service_resource(deployment, revision))


def service_resource(deployment: Deployment, revision: str) -> dict[str, Any]:
    return revision_resource(deployment.project, deployment.location, deployment.service, revision)


def revision_resource(project: str, location: str, service: str, revision: str) -> dict[str, Any]:
    return {
        "type": "cloud_run_revision",
        "labels": {
            "project_id": project,
            "location": location,
            "service_name": service,
            "configuration_name": service,
            "revision_name": revision,
        },
    }


def forwarded_headers(request: Request) -> Headers:
    """The headers that the container sees: end to end ones, and who asked, how, under which trace."""
    headers: Headers = []
    forwarded_for = request.client.encode()
    trace = parent = None
    for name, value in request.headers:
        if name == b"x-forwarded-for":
            forwarded_for = value + b", " + forwarded_for
        elif name == b"x-cloud-trace-context":
            trace = value
        elif name == b"x-serverless-authorization":
            # Cloud Run, "Authenticating service-to-service": the signature is removed, so that it cannot be replayed.
            value = value.rpartition(b".")[0] + b".SIGNATURE_REMOVED_BY_GOOGLE"
            headers.append((name, value))
        elif name not in HOP_BY_HOP and name not in (b"x-forwarded-proto", b"forwarded", b"expect"):
            if name == b"traceparent":
                parent = value
            headers.append((name, value))
    if trace is None:
        words = parent.split(b"-") if parent is not None else []
        # Ids that must differ, not secrets: no system call for each request.
        identifier = words[1] if len(words) == 4 else b"%032x" % random.getrandbits(128)
        span = b"%d" % (int(words[2], 16) if len(words) == 4 else random.getrandbits(63))
        trace = identifier + b"/" + span + b";o=1"
        request.headers.append((b"x-cloud-trace-context", trace))
    if parent is None:
        identifier, _, rest = trace.partition(b"/")
        number = rest.partition(b";")[0]
        span = b"%016x" % (int(number) if number.isdigit() else random.getrandbits(63))
        headers.append((b"traceparent", b"00-" + identifier + b"-" + span + b"-01"))
    scheme = request.scheme.encode()
    headers += (
        (b"x-cloud-trace-context", trace),
        (b"x-forwarded-for", forwarded_for),
        (b"x-forwarded-proto", scheme),
        (b"forwarded", b'for="' + request.client.encode() + b'";proto=' + scheme),
    )
    return headers


def not_found(request: Request) -> Response:
    return _error_page(
        404,
        "Error: Page not found",
        f"The requested URL <code>{escape(request.path)}</code> was not found on this server.",
    )


def forbidden(request: Request) -> Response:
    return _error_page(
        403,
        "Error: Forbidden",
        f"Your client does not have permission to get URL <code>{escape(request.path)}</code> from this server.",
    )


def unauthorized(request: Request) -> Response:
    page = _error_page(
        401,
        "Error: Unauthorized",
        f"Your client does not have permission to the requested URL <code>{escape(request.path)}</code>.",
    )
    page.headers.append((b"www-authenticate", b'Bearer error="invalid_token"'))
    return page


def too_large() -> Response:
    return _error_page(413, "Error: Request Entity Too Large", "Your client issued a request that was too large.")


def unavailable(text: str) -> Response:
    return Response.page(503, text, content_type=b"text/plain")


def gateway_timeout() -> Response:
    return Response.page(504, "upstream request timeout", content_type=b"text/plain")


def _error_page(status: int, title: str, text: str) -> Response:
    return Response.page(
        status,
        f'<html><head>\n<meta http-equiv="content-type" content="text/html;charset=utf-8">\n<title>{status} {title[7:]}'
        f"</title>\n</head>\n<body text=#000000 bgcolor=#ffffff>\n<h1>{title}</h1>\n<h2>{text}</h2>\n<h2></h2>\n"
        "</body></html>\n",
    )


def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()


def _chosen(targets: Sequence[Target]) -> Target | None:
    if len(targets) == 1:
        return targets[0]
    if not targets:
        return None
    return random.choices(targets, [target.percent for target in targets])[0]  # noqa: S311 (a share, not a secret)


def _host(text: str) -> str:
    host = urlsplit(text).netloc if "//" in text else text
    return host.partition(":")[0].lower()
