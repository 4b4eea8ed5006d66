"""One process, every API: routing, authentication, authorisation, validation, and answers in Google's form."""

import asyncio
import inspect
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from localgcp import cross_origin, discovery, generic, locations, partial
from localgcp.apis import APIS, Api
from localgcp.discovery import Document, Method
from localgcp.errors import ApiError, Internal, InvalidArgument, NotFound, PermissionDenied, Unauthenticated
from localgcp.iam.principal import Principal
from localgcp.region import Region
from localgcp.service import Call, Service
from localgcp.store import creating_request_id
from localgcp.validation import Validator, parsed

# A create or addVersion body. Larger ones are uploads, which have paths of their own.
MAX_BODY_BYTES = 32 * 1024 * 1024
# Of a query that comes in a body.
MAX_QUERY_BYTES = 1024 * 1024
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
#: A path of an API in a version that is not served, and no object of Cloud Storage's XML API.
API_PATH = re.compile(rf"/(?:{'|'.join(api.name for api in APIS)})/(?:\w+/)?v\d+\w*/")
log = logging.getLogger(__name__)


class Server:
    """The ASGI application of a region."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self._prefixes = sorted(
            ((prefix, api, document) for api in APIS for prefix, document in api.documents.items()),
            key=lambda entry: len(entry[0]),
            reverse=True,
        )
        mounts: dict[str, ASGIApp] = {"/_localgcp/faults": region.faults.asgi}
        mounts |= {prefix: app for service in region.services.values() for prefix, app in service.mounts.items()}
        self._mounts = sorted(mounts.items(), key=lambda entry: len(entry[0]), reverse=True)
        self._validators: dict[str, Validator] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        scope["region"] = self.region
        app = self._app_for(scope)
        if isinstance(app, Endpoint) and scope["method"] == "POST":
            # Only of an API: to a service the header may mean something else.
            scope, receive = await _overridden(scope, receive)
        await app(scope, receive, send)

    def _app_for(self, scope: Scope) -> ASGIApp:
        host = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1")
        if host.rpartition(":")[0] not in LOOPBACK_HOSTS and host not in LOOPBACK_HOSTS and host.endswith(".run.app"):
            return self.region.run
        path = scope["path"]
        for prefix, app in self._mounts:
            if len(prefix) > 1 and (path == prefix or path.startswith(prefix.rstrip("/") + "/")):
                return app
        raw_path = scope["raw_path"].decode("ascii").partition("?")[0]
        for prefix, api, document in self._prefixes:
            if raw_path.startswith(prefix):
                return Endpoint(self, api, document, raw_path[len(prefix) :])
        if API_PATH.match(path):
            return _not_found
        return dict(self._mounts).get("/", _not_found)

    def validator(self, api: Api, document: Document) -> Validator:
        name = f"{document.name}:{document.version}"
        if name not in self._validators:
            self._validators[name] = Validator(document, api.undocumented, legacy=api.legacy)
        return self._validators[name]

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.region.start()
        except Exception as error:
            log.exception("the region did not start")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.region.stop()
        await send({"type": "lifespan.shutdown.complete"})


class Endpoint:
    """One request to one API."""

    def __init__(self, server: Server, api: Api, document: str, tail: str) -> None:
        self._server = server
        self._api = api
        self._document = document
        self._tail = tail

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        faults = self._server.region.faults
        origin = request.headers.get("origin") if self._api.any_origin else None
        if origin is not None and request.method == "OPTIONS":
            wanted = request.headers.get("access-control-request-headers", "")
            await Response(headers=cross_origin.open_to(origin, wanted))(scope, receive, send)
            return
        try:
            await faults.before(self._api.name)
            response = await self._answer(request)
            if faults.hit("drop-response", self._api.name):
                # Done, but the client never learns it: the connection breaks off before the answer's only byte.
                await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
                return
        except ApiError as error:
            challenge = {"www-authenticate": 'Bearer realm="https://accounts.google.com/"'}
            headers = challenge if isinstance(error, Unauthenticated) else None
            response = JSONResponse(error.to_json(), status_code=error.status, headers=headers)
        except Exception:
            log.exception("%s %s", request.method, request.url.path)
            response = JSONResponse(
                Internal("Internal error encountered. The log of localgcp has the cause.").to_json(), status_code=500
            )
        response.headers.update(cross_origin.open_to(origin))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        region = self._server.region
        document = await asyncio.to_thread(discovery.load, self._document)
        method, relative_path = self._route(request, document)
        principal = await self._principal(request)
        async with _body(request, method) as body:
            call = await region.run_in_thread(self._call, request, document, method, relative_path, principal, body)
            repeated = await region.run_in_thread(self._repeated, call)
            if repeated is not None:
                return repeated
            handler = call.service.handlers.get(method.id, generic.answer)
            if inspect.iscoroutinefunction(handler):
                result = await handler(call)
            else:
                result = await region.run_in_thread(_handled, handler, call)
        return _response(result, call)

    def _route(self, request: Request, document: Document) -> tuple[Method, str]:
        """The method and the path relative to the version, still percent-encoded."""
        version = _version_path(document)
        tail = self._tail.rstrip("/") or self._tail
        method = document.route(request.method, version + tail)
        if method is None:
            if document.knows_path(version + tail):
                raise NotFound(f"{request.method} is not served at {request.url.path}")
            raise NotFound(f"The requested URL {request.url.path} was not found on this server.")
        return method, tail

    async def _principal(self, request: Request) -> Principal:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        bearer = token if scheme.lower() == "bearer" else request.query_params.get("access_token")
        return await self._server.region.run_in_thread(self._server.region.tokens.principal, bearer)

    def _call(
        self, request: Request, document: Document, method: Method, relative_path: str, principal: Principal, body: Any
    ) -> Call:
        region = self._server.region
        service = region.services[self._api.name]
        parameters = method.path_parameters(_version_path(document) + relative_path)
        validator = self._server.validator(self._api, document)
        query = validator.query(method, parse_qsl(request.url.query, keep_blank_values=True))
        if method.takes_full_names:
            parameters = {name: region.with_project_ids(value) for name, value in parameters.items()}
        if "project" in parameters:
            parameters["project"] = region.project_id(parameters["project"])
        call = Call(
            region=region,
            service=service,
            method=method,
            params=parameters,
            query=query,
            body={},
            principal=principal,
            request=request,
            relative_path=_named_by_ids(region, relative_path),
            generic=generic.answer,
        )
        if call.location is not None and self._api.name != "storage":
            locations.check(call.location, self._api.name, f"projects/{call.project}")
        self._authorise(call, service)
        fields = _selected_fields(call)
        if fields and method.response_schema is not None:
            partial.check(fields, document.schemas[method.response_schema], document.schemas)
        call.body = validator.body(method, body)
        return call

    def _authorise(self, call: Call, service: Service) -> None:
        if call.method.id not in service.permissions:
            raise PermissionDenied(
                f"Permission denied: localgcp knows no permission for {service.api.name}.{call.method.id},"
                " and a method without one is denied to everybody.",
                reason="forbidden",
            )
        permission = service.permissions[call.method.id]
        if permission is not None:
            call.check(permission)

    def _repeated(self, call: Call) -> Response | None:
        """The answer to a create that a client repeats because it never saw the first answer."""
        request_id = _request_id(call)
        if request_id is None:
            return None
        created = call.store.created_by_request(request_id)
        if created is None:
            return None
        if call.method.response_schema and "Operation" in call.method.response_schema:
            return _response(
                call.operation(target=created.key, response={"@type": generic.message_type(call), **created}),
                call,
            )
        return _response(created, call)


def _handled(handler: Any, call: Call) -> Any:
    token = creating_request_id.set(_request_id(call))
    try:
        return handler(call)
    finally:
        creating_request_id.reset(token)


def _request_id(call: Call) -> str | None:
    """The id under which a creating request may be repeated."""
    if call.method.http_method != "POST":
        return None
    given = call.query.get("requestId") or call.request.headers.get("x-goog-request-id")
    return f"{call.principal.email} {call.method.id} {given}" if given else None


def _response(result: Any, call: Call) -> Response:
    if isinstance(result, Response):
        return result
    if result is None:
        return Response(status_code=204)
    fields = _selected_fields(call)
    body = {name: value for name, value in result.items() if name != "_localgcp"}
    return JSONResponse(partial.select(body, fields) if fields else body)


def _selected_fields(call: Call) -> str | None:
    return call.query.get("fields") or call.query.get("$fields") or call.request.headers.get("x-goog-fieldmask")


async def _overridden(scope: Scope, receive: Receive) -> tuple[Scope, Receive]:
    """The request that a client means who cannot send it: one whose query is too long for an address comes as a POST.

    `google-api-python-client` does this to every GET of more than 2,048 characters.
    """
    headers = {name: value for name, value in scope["headers"] if name in (b"x-http-method-override", b"content-type")}
    method = headers.get(b"x-http-method-override", b"").decode("latin-1").upper()
    if not method:
        return scope, receive
    query = scope["query_string"]
    if headers.get(b"content-type", b"").startswith(b"application/x-www-form-urlencoded"):
        body = bytearray()
        async for chunk in Request(scope, receive).stream():
            body += chunk
            if len(body) > MAX_QUERY_BYTES:
                break
        query = b"&".join(part for part in (query, bytes(body[:MAX_QUERY_BYTES])) if part)
        receive = _nothing
    return {**scope, "method": method, "query_string": query}, receive


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


@asynccontextmanager
async def _body(request: Request, method: Method) -> AsyncIterator[Any]:
    """The JSON body; None for a method that takes none or is called without."""
    if method.request_schema is None or request.method in ("GET", "DELETE"):
        yield None
        return
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise InvalidArgument(f"Request payload size exceeds the limit: {MAX_BODY_BYTES} bytes.")
    if not content.strip():
        yield None
        return
    yield parsed(content)


def _version_path(document: Document) -> str:
    """What precedes a resource's name in the paths of a document: `v2/`, `sql/v1beta4/`, `dns/v1/`, or nothing."""
    if document.service_path:
        return ""
    first = next(iter(document.methods.values())).path
    return first[: first.index(document.version) + len(document.version)] + "/"


def _named_by_ids(region: Region, raw_path: str) -> str:
    """The decoded path with project ids for numbers, where a path begins with its project: an object's may hold one."""
    path = unquote(raw_path)
    return region.with_project_ids(path) if not path.startswith("b/") else path


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    error = NotFound(f"The requested URL {scope['path']} was not found on this server.")
    await JSONResponse(error.to_json(), status_code=404)(scope, receive, send)
