"""Cloud Logging: entries are written, listed and followed; buckets, sinks and metrics are kept.

A sink exports nothing and a metric counts nothing here: both are stored as the program declared them.
"""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from localgcp import generic, logfilter
from localgcp.clock import timestamp
from localgcp.errors import ApiError, InvalidArgument, NotFound, PermissionDenied
from localgcp.generic import existing, message_type
from localgcp.region import Region
from localgcp.service import Call, Service
from localgcp.store import Resource

MAX_PAGE = 1000
MAX_ENTRY_BYTES = 256 * 1024  # "Quotas and limits" of Logging: the size of a log entry
DEFAULT_RETENTION_DAYS = 30
#: Every project has these two; `_Required` cannot be changed and keeps 400 days (Logging, "Log buckets").
BUILT_IN_BUCKETS = {"_Default": DEFAULT_RETENTION_DAYS, "_Required": 400}

service = Service("logging:v2")
service.allow("logging.buckets", "projects.locations.buckets", createAsync="logging.buckets.create")
service.allow("logging.sinks", "projects.sinks")
service.allow("logging.logMetrics", "projects.metrics")
service.allow("logging.exclusions", "projects.exclusions")
service.allow("logging.views", "projects.locations.buckets.views")
service.permissions |= {
    "projects.locations.buckets.updateAsync": "logging.buckets.update",
    "projects.locations.buckets.undelete": "logging.buckets.undelete",
    "projects.locations.operations.get": "logging.operations.get",
    "projects.locations.operations.list": "logging.operations.list",
    "projects.logs.list": "logging.logs.list",
    "projects.logs.delete": "logging.logs.delete",
    # The projects that an entry or a query is about stand in the body: the handlers check each of them.
    "entries.write": None,
    "entries.list": None,
}


@service.on_stop
async def close(region: Region) -> None:
    await region.run_in_thread(region.logs.close)


@service.method("entries.write")
def write(call: Call) -> dict[str, Any]:
    entries = []
    for entry in call.body.get("entries", ()):
        name = entry.get("logName") or call.body.get("logName", "")
        project, log_id = _log_name(call.region, name)
        call.check("logging.logEntries.create", f"cloudresourcemanager/projects/{project}")
        resource = entry.get("resource") or call.body.get("resource") or {"type": "global"}
        complete = {
            **entry,
            "resource": {**resource, "labels": {"project_id": project, **(resource.get("labels") or {})}},
            "labels": {**call.body.get("labels", {}), **entry.get("labels", {})},
        }
        if not complete["labels"]:
            del complete["labels"]
        size = len(json.dumps(complete))
        if size > MAX_ENTRY_BYTES:
            raise InvalidArgument(f"Log entry with size {size / 1024:.1f}K exceeds maximum size of 256.0K")
        entries.append((project, log_id, complete))
    if call.body.get("dryRun"):
        return {}
    for project, log_id, complete in entries:
        call.region.logs.write_entry(project, log_id, complete)
    call.region.logs.flush()
    return {}


@service.method("entries.list")
def list_entries(call: Call) -> dict[str, Any]:
    names = call.body.get("resourceNames") or []
    if not names:
        raise InvalidArgument("Must specify at least one resource name")
    projects = []
    for name in names:
        words = name.split("/")
        if len(words) < 2 or words[0] != "projects":
            raise InvalidArgument(f"resource name {name!r} is not understood here: use projects/<project>")
        project = call.region.project_id(words[1])
        call.check("logging.logEntries.list", f"cloudresourcemanager/projects/{project}")
        projects.append(project)
    order = call.body.get("orderBy", "timestamp asc").split()
    if order[0] != "timestamp" or order[1:] not in ([], ["asc"], ["desc"]):
        raise InvalidArgument("orderBy must be 'timestamp asc' or 'timestamp desc'")
    size = min(int(call.body.get("pageSize") or 50), MAX_PAGE)
    found = list(
        call.region.logs.query(
            projects,
            call.body.get("filter", ""),
            newest_first=order[1:] == ["desc"],
            limit=size,
            after=_position(call.body.get("pageToken")),
        )
    )
    answer: dict[str, Any] = {"entries": [entry for _, entry in found]} if found else {}
    if len(found) == size:
        answer["nextPageToken"] = base64.urlsafe_b64encode(json.dumps(found[-1][0]).encode()).decode()
    return answer


@service.method("projects.logs.list")
def list_logs(call: Call) -> dict[str, Any]:
    names = call.region.logs.log_names(call.project)
    return {"logNames": names} if names else {}


@service.method("projects.logs.delete")
def delete_log(call: Call) -> dict[str, Any]:
    project, log_id = _log_name(call.region, call.named)
    if not call.region.logs.delete_log(project, f"projects/{project}/logs/{quote(log_id, safe='')}"):
        raise NotFound(f"Log {log_id} does not exist")
    return {}


@service.method("projects.locations.buckets.get")
def get_bucket(call: Call) -> Resource:
    return _bucket(call)


@service.method("projects.locations.buckets.list")
def list_buckets(call: Call) -> dict[str, Any]:
    if call.location in ("global", "-"):
        for identifier in BUILT_IN_BUCKETS:
            _built_in_bucket(call, f"logging/projects/{call.project}/locations/global/buckets/{identifier}")
    return generic.page(call, generic.listed(call))


@service.method("projects.locations.buckets.patch")
def patch_bucket(call: Call) -> Any:
    if call.named.endswith("/buckets/_Required"):
        raise InvalidArgument("Buckets with id _Required cannot be modified")
    _bucket(call)
    return call.proceed()


@service.method("projects.locations.buckets.create", "projects.locations.buckets.createAsync")
def create_bucket(call: Call) -> Any:
    identifier = call.query.get("bucketId")
    if not identifier:
        raise InvalidArgument("bucketId is required", location="bucketId")
    now = timestamp(call.region.clock.now())
    parent = call.key.partition(":")[0].removesuffix("/buckets")
    name = f"{parent.partition('/')[2]}/buckets/{identifier}"
    body = {key: value for key, value in call.body.items() if value is not None} | {
        "name": name,
        "retentionDays": call.body.get("retentionDays") or DEFAULT_RETENTION_DAYS,
        "createTime": now,
        "updateTime": now,
        "lifecycleState": "ACTIVE",
    }
    bucket = call.store.create(f"logging/{name}", body)
    if call.method.verb == "create":
        return bucket
    return call.operation(target=bucket.key, response={"@type": message_type(call), **bucket})


@service.method("projects.locations.buckets.updateAsync")
def update_bucket(call: Call) -> dict[str, Any]:
    with call.store.transaction():
        bucket = _bucket(call)
        fields = [name.strip() for name in str(call.query.get("updateMask", "")).split(",")] if call.query else []
        changes = {name: value for name, value in call.body.items() if not any(fields) or name in fields}
        body = {**bucket, **changes, "name": bucket["name"], "updateTime": timestamp(call.region.clock.now())}
        bucket = call.store.put(bucket.key, body)
    return call.operation(target=bucket.key, response={"@type": message_type(call), **bucket})


@service.method("projects.sinks.create")
def create_sink(call: Call) -> Resource:
    number = call.region.project_number(call.project)
    name = _named_in_body(call)
    return call.store.create(
        f"{call.key}/sinks/{name}",
        {
            **call.body,
            **_stamps(call),
            "writerIdentity": f"serviceAccount:service-{number}@gcp-sa-logging.iam.gserviceaccount.com",
            "resourceName": f"projects/{call.project}/sinks/{name}",
        },
    )


@service.method("projects.metrics.create")
def create_metric(call: Call) -> Resource:
    name = _named_in_body(call)
    return call.store.create(f"{call.key}/metrics/{name}", {**_metric(call, name), **_stamps(call)})


@service.method("projects.metrics.update")
def update_metric(call: Call) -> Resource:
    """PUT creates a metric that does not exist, as its method says."""
    name = call.named.partition("/metrics/")[2]
    current = call.store.find(call.key)
    stamps = _stamps(call) | ({"createTime": current["createTime"]} if current else {})
    return call.store.put(call.key, {**_metric(call, name), **stamps})


async def follow(scope: Scope, receive: Receive, send: Send) -> None:
    """`GET /_localgcp/logs`: entries as lines of JSON. `follow=1` goes on for ever; `project`, `filter`, `limit`."""
    region: Region = scope["region"]
    request = Request(scope, receive)
    try:
        response = await _lines(region, request)
    except ApiError as error:
        response = JSONResponse(error.to_json(), status_code=error.status)
    await response(scope, receive, send)


service.mount("/_localgcp/logs", follow)


async def _lines(region: Region, request: Request) -> Response:
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ") or None
    principal = await region.run_in_thread(region.tokens.principal, bearer)
    projects = [region.project_id(name) for name in request.query_params.getlist("project")]
    for project in projects:
        region.iam.check(principal, "logging.logEntries.list", f"cloudresourcemanager/projects/{project}")
    if not projects and not principal.is_operator:
        raise PermissionDenied("Only the operator may read the logs of every project: name one with ?project=")
    expression = request.query_params.get("filter", "")
    logfilter.parse(expression)
    limit = int(request.query_params.get("limit", "100"))

    async def lines() -> AsyncIterator[bytes]:
        recent = await region.run_in_thread(
            lambda: list(region.logs.query(projects, expression, newest_first=True, limit=limit))
        )
        follower = region.logs.follow(projects, expression)
        for _, entry in reversed(recent):
            yield json.dumps(entry).encode() + b"\n"
        if request.query_params.get("follow") in ("1", "true"):
            async for entry in follower:
                yield json.dumps(entry).encode() + b"\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


def _log_name(region: Region, name: str) -> tuple[str, str]:
    """`projects/p/logs/run.googleapis.com%2Fstdout` -> ("p", "run.googleapis.com/stdout")."""
    words = name.split("/", 3)
    if len(words) != 4 or words[0] != "projects" or words[2] != "logs" or not words[3]:
        raise InvalidArgument(f"logName {name!r} is not projects/<project>/logs/<log id>")
    return region.project_id(words[1]), unquote(words[3])


def _position(token: str | None) -> tuple[str, int] | None:
    if not token:
        return None
    try:
        moment, seq = json.loads(base64.urlsafe_b64decode(token.encode()))
    except ValueError:
        raise InvalidArgument("page_token is not one that this list answered") from None
    return str(moment), int(seq)


def _bucket(call: Call) -> Resource:
    if call.location == "global" and call.named.rpartition("/")[2] in BUILT_IN_BUCKETS:
        return _built_in_bucket(call, call.key)
    return existing(call)


def _built_in_bucket(call: Call, key: str) -> Resource:
    """A bucket that every project has, stored when it is first asked for."""
    now = timestamp(call.region.clock.now())
    with call.store.transaction():
        return call.store.find(key) or call.store.create(
            key,
            {
                "name": key.partition("/")[2],
                "createTime": now,
                "updateTime": now,
                "retentionDays": BUILT_IN_BUCKETS[key.rpartition("/")[2]],
                "lifecycleState": "ACTIVE",
            },
        )


def _named_in_body(call: Call) -> str:
    name = call.body.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidArgument("name is required", location="name")
    return name


def _metric(call: Call, name: str) -> dict[str, Any]:
    """A metric's filter is checked as Google does; its descriptor gets the names that follow from its own."""
    logfilter.parse(call.body.get("filter") or "")
    kind = f"logging.googleapis.com/user/{name}"
    descriptor = {"metricKind": "DELTA", "valueType": "INT64", **(call.body.get("metricDescriptor") or {})}
    descriptor |= {"type": kind, "name": f"projects/{call.project}/metricDescriptors/{kind}"}
    body = {key: value for key, value in call.body.items() if value is not None}
    return {**body, "name": name, "metricDescriptor": descriptor, "version": "V2"}


def _stamps(call: Call) -> dict[str, str]:
    now = timestamp(call.region.clock.now())
    return {"createTime": now, "updateTime": now}
