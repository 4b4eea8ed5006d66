"""`Queue.httpTarget`: what a queue puts in the place of its tasks' own target, at each dispatch."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

from localgcp.errors import InvalidArgument

WHERE = "Queue.httpTarget"


def check_http_target(target: Mapping[str, Any]) -> None:
    """Raises InvalidArgument. Who may act as its account is asked elsewhere."""
    override = target.get("uriOverride", {})
    if "host" in override and not override["host"]:
        raise InvalidArgument(f"{WHERE}.uriOverride.host must not be empty.")
    if not 0 <= int(override.get("port", 0)) <= 65535:
        raise InvalidArgument(f"{WHERE}.uriOverride.port must be from 0 to 65535, got {override['port']}.")
    for kind, beside in (("oidcToken", "audience"), ("oauthToken", "scope")):
        if kind in target and not (target[kind].get("serviceAccountEmail") and target[kind].get(beside)):
            raise InvalidArgument(f"{WHERE}.{kind} must have both serviceAccountEmail and {beside}.")


def overridden(request: Mapping[str, Any], target: Mapping[str, Any]) -> dict[str, Any]:
    """The task's `httpRequest` as it is sent: what the queue's `httpTarget` says comes before what the task says."""
    sent = dict(request)
    if "uriOverride" in target:
        sent["url"] = _url(urlsplit(request["url"]), target["uriOverride"])
    if target.get("httpMethod", "HTTP_METHOD_UNSPECIFIED") != "HTTP_METHOD_UNSPECIFIED":
        sent["httpMethod"] = target["httpMethod"]
    replaced = {entry["header"]["key"]: entry["header"].get("value", "") for entry in headers_of(target)}
    names = {name.lower() for name in replaced}
    kept = {name: value for name, value in request.get("headers", {}).items() if name.lower() not in names}
    sent["headers"] = kept | replaced
    tokens = {kind: target[kind] for kind in ("oidcToken", "oauthToken") if kind in target}
    if tokens:
        sent = {name: value for name, value in sent.items() if name not in ("oidcToken", "oauthToken")} | tokens
    return sent


def headers_of(target: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [entry for entry in target.get("headerOverrides", []) if entry.get("header", {}).get("key")]


def _url(url: SplitResult, override: Mapping[str, Any]) -> str:
    only_missing = override.get("uriOverrideEnforceMode") == "IF_NOT_EXISTS"
    scheme, host, port = url.scheme, url.hostname or "", url.port
    path, query = url.path, url.query
    if not only_missing:
        scheme = override.get("scheme", "SCHEME_UNSPECIFIED").lower().replace("scheme_unspecified", scheme)
        host = override.get("host", host)
    if "port" in override and not (only_missing and port is not None):
        port = int(override["port"]) or None
    if "pathOverride" in override and not (only_missing and path.strip("/")):
        path = override["pathOverride"].get("path", "")
    if "queryOverride" in override and not (only_missing and query):
        query = override["queryOverride"].get("queryParams", "")
    if path and not path.startswith("/"):
        path = f"/{path}"
    shown = f"[{host}]" if ":" in host else host
    return urlunsplit((scheme, shown if port is None else f"{shown}:{port}", path, query, ""))
