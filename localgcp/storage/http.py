"""What every HTTP face of Cloud Storage needs: who calls, which query, and answers for what is refused."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from localgcp import cross_origin, discovery
from localgcp.apis import BY_NAME
from localgcp.errors import ApiError, Internal, InvalidArgument
from localgcp.iam.principal import Principal
from localgcp.storage.cloud_storage import CloudStorage, of
from localgcp.storage.ranges import RangeNotSatisfiable
from localgcp.validation import Validator, parsed

log = logging.getLogger(__name__)

Answer = Callable[[Request, CloudStorage], Awaitable[Response]]


def served(answer: Answer) -> ASGIApp:
    """An ASGI application of the JSON API: refusals become Google's JSON, any origin may read the answers."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response: Response
        try:
            if request.method == "OPTIONS":
                response = Response(status_code=200)
            else:
                response = await answer(request, of(scope["region"]))
        except ClientDisconnect:
            return
        except ApiError as error:
            response = refusal(error)
        except Exception:
            log.exception("%s %s", request.method, request.url.path)
            response = refusal(Internal("Internal error encountered. The log of localgcp has the cause."))
        wanted = request.headers.get("access-control-request-headers", "")
        response.headers.update(cross_origin.open_to(request.headers.get("origin"), wanted))
        await response(scope, receive, send)

    return app


def refusal(error: ApiError) -> Response:
    if error.status == 304:
        return Response(status_code=304)
    headers = {}
    if isinstance(error, RangeNotSatisfiable):
        headers["Content-Range"] = f"bytes */{error.size}"
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="https://accounts.google.com/"'
    return JSONResponse(error.to_json(), status_code=error.status, headers=headers)


async def principal_of(request: Request, storage: CloudStorage) -> Principal:
    """Raises Unauthenticated for a token that is no good; without one it is nobody in particular."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else request.query_params.get("access_token")
    return await storage.region.run_in_thread(storage.region.tokens.principal, bearer)


def object_metadata(body: Any) -> dict[str, Any]:
    """The body of an upload, checked against the schema of objects."""
    document = discovery.load("storage:v1")
    validator = Validator(document, BY_NAME["storage"].undocumented, legacy=True)
    return validator.body(document.methods["objects.insert"], body)


async def json_body(request: Request, *, max_bytes: int = 1024 * 1024) -> Any:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > max_bytes:
            raise InvalidArgument(f"Request payload size exceeds the limit: {max_bytes} bytes.")
    if not content.strip():
        return None
    return parsed(content)
