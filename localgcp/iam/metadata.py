"""The metadata server of every workload.

A workload finds it under a path that nobody else knows, and the path makes the identity: `GCE_METADATA_HOST` is
`127.0.0.1:<port>/workloads/<secret>`. Registrations end with the process, as the workloads do.
"""

import json
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from localgcp.iam import accounts

if TYPE_CHECKING:
    from localgcp.region import Region

PREFIX = "/workloads"
SCOPES = ("https://www.googleapis.com/auth/cloud-platform", "https://www.googleapis.com/auth/userinfo.email")

_FLAVOR = {"Metadata-Flavor": "Google", "Server": "Metadata Server for Serverless"}


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Who asks: the identity, and the place that a workload is told it runs in."""

    email: str
    project: str
    location: str
    instance_id: str


class Metadata:
    def __init__(self, region: "Region") -> None:
        self._region = region
        self._workloads: dict[str, Workload] = {}

    def register(self, email: str, project: str, location: str, instance_id: str) -> str:
        """The value of `GCE_METADATA_HOST` for a workload that runs as `email`."""
        secret = secrets.token_urlsafe(24)
        self._workloads[secret] = Workload(email=email, project=project, location=location, instance_id=instance_id)
        return f"127.0.0.1:{self._region.settings.port}{PREFIX}/{secret}"

    def unregister(self, host: str) -> None:
        """Forget a workload that has ended. Harmless when it is forgotten already."""
        self._workloads.pop(host.rpartition("/")[2], None)

    def find(self, secret: str) -> Workload | None:
        return self._workloads.get(secret)


async def metadata_app(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI: everything below `/workloads`."""
    request = Request(scope, receive)
    region: Region = scope["region"]
    _, _, tail = scope["path"].partition(PREFIX + "/")
    secret, _, path = tail.partition("/")
    workload = region.metadata.find(secret)
    if workload is None:
        response: Response = PlainTextResponse("Not Found\n", status_code=404)
    elif request.headers.get("x-forwarded-for"):
        # A workload that forwards its visitors' requests must not become their way to its identity.
        response = PlainTextResponse("Forbidden\n", status_code=403, headers=_FLAVOR)
    elif not path.strip("/"):
        response = PlainTextResponse("computeMetadata/\n", headers=_FLAVOR)
    elif request.headers.get("metadata-flavor") != "Google":
        response = PlainTextResponse(
            "Your client does not have permission to get URL /" + path + " from this server. "
            "Missing Metadata-Flavor:Google header.\n",
            status_code=403,
            headers=_FLAVOR,
        )
    else:
        response = await region.run_in_thread(_answer, region, workload, path, request)
    await response(scope, receive, send)


def _answer(region: "Region", workload: Workload, path: str, request: Request) -> Response:
    if (match := re.fullmatch(r"computeMetadata/v1/(.*)", path)) is None:
        return _not_found(path)
    words = [word for word in match[1].split("/") if word]
    if words[:2] == ["instance", "service-accounts"] and len(words) == 4 and words[3] in ("token", "identity"):
        if words[2] not in ("default", workload.email):
            return _not_found(path)
        return _token(region, workload) if words[3] == "token" else _identity(region, workload, request)
    found = _tree(region, workload)
    for word in words:
        if not isinstance(found, dict) or word not in found:
            return _not_found(path)
        found = found[word]
    return _rendered(found, recursive=request.query_params.get("recursive", "").lower() == "true", request=request)


def _tree(region: "Region", workload: Workload) -> Any:
    number = region.project_number(workload.project)
    account = {"aliases": ["default"], "email": workload.email, "scopes": list(SCOPES)}
    return {
        "instance": {
            "id": workload.instance_id,
            "region": f"projects/{number}/regions/{workload.location}",
            "zone": f"projects/{number}/zones/{workload.location}-1",
            "service-accounts": {"default": account, workload.email: account},
        },
        "project": {"project-id": workload.project, "numeric-project-id": number},
        "universe": {"universe-domain": "googleapis.com"},
    }


def _rendered(found: Any, *, recursive: bool, request: Request) -> Response:
    if isinstance(found, dict):
        if recursive:
            return JSONResponse(_camel(found), headers=_FLAVOR)
        names = "".join(f"{name}/\n" if isinstance(value, dict) else f"{name}\n" for name, value in found.items())
        return PlainTextResponse(names, headers=_FLAVOR, media_type="application/text")
    as_json = recursive or request.query_params.get("alt") == "json"
    if as_json:
        return JSONResponse(found, headers=_FLAVOR)
    text = "".join(f"{line}\n" for line in found) if isinstance(found, list) else str(found)
    return PlainTextResponse(text, headers=_FLAVOR, media_type="application/text")


def _token(region: "Region", workload: Workload) -> Response:
    if not accounts.is_usable(region.store, workload.email):
        return PlainTextResponse(f"Service account {workload.email} does not exist or is disabled.\n", 404, _FLAVOR)
    token, left = region.tokens.shared_access_token(workload.email)
    return JSONResponse({"access_token": token, "expires_in": left, "token_type": "Bearer"}, headers=_FLAVOR)


def _identity(region: "Region", workload: Workload, request: Request) -> Response:
    audience = request.query_params.get("audience")
    if not audience:
        return PlainTextResponse("non-empty audience parameter required\n", status_code=400, headers=_FLAVOR)
    if not accounts.is_usable(region.store, workload.email):
        return PlainTextResponse(f"Service account {workload.email} does not exist or is disabled.\n", 404, _FLAVOR)
    # Cloud Run's metadata server puts the address into every ID token, whatever the format.
    token = region.tokens.id_token(workload.email, audience)
    return PlainTextResponse(token, headers=_FLAVOR, media_type="text/html")


def _camel(value: Any) -> Any:
    """The recursive form names its fields in camel case: `serviceAccounts`, `projectId`."""
    if not isinstance(value, dict):
        return value
    return {
        name if "@" in name else re.sub(r"-([a-z])", lambda match: match[1].upper(), name): _camel(inner)
        for name, inner in value.items()
    }


def _not_found(path: str) -> Response:
    return PlainTextResponse(json.dumps({"error": f"{path} was not found"}) + "\n", status_code=404, headers=_FLAVOR)
