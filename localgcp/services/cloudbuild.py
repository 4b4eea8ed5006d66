"""Cloud Build: builds that make images of Dockerfiles. Triggers are kept, and nothing pulls them."""

import logging
import threading
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote
from weakref import WeakKeyDictionary

from localgcp import own_api
from localgcp.build import builder
from localgcp.build.dockerfile import BuildFailed
from localgcp.clock import seconds, timestamp
from localgcp.errors import Aborted, ApiError, FailedPrecondition, Internal, InvalidArgument, NotFound, PermissionDenied
from localgcp.generic import page
from localgcp.iam.acting import may_act_as
from localgcp.region import Region
from localgcp.service import Call, Service
from localgcp.store import Resource

BUILD_TYPE = "type.googleapis.com/google.devtools.cloudbuild.v1.Build"
METADATA_TYPE = "type.googleapis.com/google.devtools.cloudbuild.v1.BuildOperationMetadata"
DEFAULT_TIMEOUT = "600s"
UNFINISHED = ("PENDING", "QUEUED", "WORKING")
#: With an account of their own, builds say where their logs go ("Configure user-specified service accounts").
OWN_LOGS = ("CLOUD_LOGGING_ONLY", "NONE")

log = logging.getLogger(__name__)
service = Service("cloudbuild:v1")
for prefix in ("projects", "projects.locations"):
    service.permissions |= {
        f"{prefix}.builds.create": "cloudbuild.builds.create",
        f"{prefix}.builds.get": "cloudbuild.builds.get",
        f"{prefix}.builds.list": "cloudbuild.builds.list",
        f"{prefix}.builds.cancel": "cloudbuild.builds.update",
        f"{prefix}.builds.retry": "cloudbuild.builds.create",
        f"{prefix}.triggers.create": "cloudbuild.builds.create",
        f"{prefix}.triggers.get": "cloudbuild.builds.get",
        f"{prefix}.triggers.list": "cloudbuild.builds.list",
        f"{prefix}.triggers.patch": "cloudbuild.builds.update",
        f"{prefix}.triggers.delete": "cloudbuild.builds.update",
    }
service.permissions["projects.locations.operations.get"] = "cloudbuild.builds.get"

_workers: "WeakKeyDictionary[Region, ThreadPoolExecutor]" = WeakKeyDictionary()
_cancelled: set[str] = set()
_cancelled_lock = threading.Lock()


class BuildError(ApiError):
    status, code, default_reason, rpc_code = 400, "FAILED_PRECONDITION", "failedPrecondition", 9


class DeadlineExceeded(ApiError):
    status, code, default_reason, rpc_code = 504, "DEADLINE_EXCEEDED", "deadlineExceeded", 4


@service.on_start
async def start(region: Region) -> None:
    # One at a time: a build is work for the disk, and its log is easier to read alone.
    _workers[region] = ThreadPoolExecutor(max_workers=2, thread_name_prefix="build")
    await region.run_in_thread(_fail_interrupted, region)


@service.on_stop
async def stop(region: Region) -> None:
    _workers[region].shutdown(wait=False, cancel_futures=True)


@service.method("projects.builds.create", "projects.locations.builds.create")
def create_build(call: Call) -> Resource:
    body = {name: value for name, value in call.body.items() if value is not None}
    location = call.location or "global"
    builder.check_steps(body)
    if not set(body.get("source", {})) <= {"storageSource"}:
        raise InvalidArgument("build.source: localgcp fetches sources from Cloud Storage only: use storageSource")
    account = _account(call, body)
    identifier = str(uuid.uuid4())
    number = call.region.project_number(call.project)
    now = timestamp(call.region.clock.now())
    key = f"cloudbuild/projects/{call.project}/locations/{location}/builds/{identifier}"
    body |= {
        "id": identifier,
        "name": f"projects/{number}/locations/{location}/builds/{identifier}",
        "projectId": call.project,
        "status": "QUEUED",
        "createTime": now,
        "queueTtl": body.get("queueTtl", "3600s"),
        "timeout": body.get("timeout", DEFAULT_TIMEOUT),
        "serviceAccount": f"projects/{call.project}/serviceAccounts/{account}",
        "logUrl": f"{call.region.settings.api_url}/_localgcp/logs?project={call.project}"
        f"&filter=resource.labels.build_id={identifier}",
    }
    body.setdefault("options", {}).setdefault("logging", "LEGACY" if body.get("logsBucket") else "CLOUD_LOGGING_ONLY")
    name = _operation_name(body)
    with call.store.transaction():
        build = call.store.create(key, body)
        operation = call.store.put(
            f"cloudbuild/{name}", {"name": name, "done": False, "metadata": {"@type": METADATA_TYPE, "build": build}}
        )
    _workers[call.region].submit(_run, call.region, build, account)
    return operation


@service.method("projects.builds.get", "projects.locations.builds.get")
def get_build(call: Call) -> Resource:
    return _find(call)


@service.method("projects.builds.list", "projects.locations.builds.list")
def list_builds(call: Call) -> dict[str, Any]:
    prefix = f"cloudbuild/projects/{call.project}/locations/"
    if call.location is not None:
        prefix += f"{call.location}/"
    found = [build for build in call.store.scan(prefix) if build.key.split("/")[-2] == "builds"]
    return page(call, found[::-1])


@service.method("projects.builds.cancel", "projects.locations.builds.cancel")
def cancel_build(call: Call) -> Resource:
    build = _find(call)
    if build["status"] not in UNFINISHED:
        raise FailedPrecondition("Cannot cancel a build that has already completed.")
    with _cancelled_lock:
        _cancelled.add(build.key)
    return _finish(call.region, build.key, "CANCELLED", Aborted("Build was cancelled"))


@service.method("projects.triggers.create", "projects.locations.triggers.create")
def create_trigger(call: Call) -> Resource:
    identifier = str(uuid.uuid4())
    location = call.location or "global"
    name = f"projects/{call.project}/locations/{location}/triggers/{identifier}"
    body = {field: value for field, value in call.body.items() if value is not None}
    stamps = {"id": identifier, "createTime": timestamp(call.region.clock.now()), "resourceName": name}
    return call.store.create(f"cloudbuild/{name}", {**body, **stamps})


@service.method("projects.locations.triggers.patch", "projects.triggers.patch")
def patch_trigger(call: Call) -> Resource:
    current = _trigger(call)
    body = {field: value for field, value in call.body.items() if value not in (None, {})}
    kept = {field: current[field] for field in ("id", "createTime", "resourceName")}
    return call.store.put(current.key, {**body, **kept})


@service.method("projects.locations.triggers.get", "projects.triggers.get")
def get_trigger(call: Call) -> Resource:
    return _trigger(call)


@service.method("projects.locations.triggers.list", "projects.triggers.list")
def list_triggers(call: Call) -> dict[str, Any]:
    parent = f"cloudbuild/projects/{call.project}/locations/{call.location or 'global'}"
    return page(call, call.store.list(parent, "triggers"))


@service.method("projects.locations.triggers.delete", "projects.triggers.delete")
def delete_trigger(call: Call) -> dict[str, Any]:
    call.store.delete(_trigger(call).key)
    return {}


def _trigger(call: Call) -> Resource:
    """By its id or by its name: Cloud Build takes both."""
    identifier = call.named.rpartition("/")[2]
    parent = f"cloudbuild/projects/{call.project}/locations/{call.location or 'global'}"
    for trigger in call.store.list(parent, "triggers"):
        if identifier in (trigger["id"], trigger.get("name")):
            return trigger
    raise NotFound("Requested entity was not found.")


def _account(call: Call, body: Mapping[str, Any]) -> str:
    """The account the build runs as. Raises PermissionDenied when the caller may not act as it."""
    given = body.get("serviceAccount", "")
    if not given:
        return f"{call.region.project_number(call.project)}-compute@developer.gserviceaccount.com"
    email = str(given).rpartition("/")[2]
    if not may_act_as(call, email):
        raise PermissionDenied(
            f"caller does not have permission to act as service account {given} (or it may not exist)"
        )
    options = body.get("options", {})
    if not (body.get("logsBucket") or options.get("logging") in OWN_LOGS or options.get("defaultLogsBucketBehavior")):
        raise InvalidArgument(
            "if 'build.service_account' is specified, the build must either (a) specify 'build.logs_bucket', (b) use"
            " the REGIONAL_USER_OWNED_BUCKET build.options.default_logs_bucket_behavior option, or (c) use either"
            " CLOUD_LOGGING_ONLY / NONE logging options"
        )
    return email


def _find(call: Call) -> Resource:
    """A build by its id alone, wherever it ran: the older paths name no location."""
    identifier = call.params.get("id") or call.named.rpartition("/")[2]
    parent = f"cloudbuild/projects/{call.project}/locations/{call.location or 'global'}"
    found = call.store.find(f"{parent}/builds/{identifier}")
    if found is None:
        for build in call.store.scan(f"cloudbuild/projects/{call.project}/locations/"):
            if build.key.endswith(f"/builds/{identifier}"):
                return build
        raise NotFound("Requested entity was not found.")
    return found


def _operation_name(build: Mapping[str, Any]) -> str:
    """The operation of a build: they share their id."""
    location = build["name"].split("/")[3]
    return f"projects/{build['projectId']}/locations/{location}/operations/{build['id']}"


def _run(region: Region, build: Resource, account: str) -> None:
    lines: list[str] = []
    resource = {
        "type": "build",
        "labels": {"project_id": build["projectId"], "build_id": build["id"], "build_trigger_id": ""},
    }

    def tell(line: str) -> None:
        lines.append(line)
        if build["options"].get("logging") != "NONE":
            region.logs.write(build["projectId"], "cloudbuild", resource, severity="INFO", text=line)

    def is_cancelled() -> bool:
        with _cancelled_lock:
            return build.key in _cancelled

    running = builder.Build(
        project=build["projectId"],
        account=account,
        substitutions=_substitutions(region, build),
        log=tell,
        is_cancelled=is_cancelled,
        now=lambda: timestamp(region.clock.now()),
        timeout_seconds=seconds(build["timeout"]),
        steps=[dict(step) for step in build["steps"]],
    )
    if is_cancelled():
        return
    _update(region, build.key, {"status": "WORKING", "startTime": timestamp(region.clock.now())})
    tell(f'starting build "{build["id"]}"')
    try:
        builder.run(region, build, running)
    except builder.Cancelled:
        tell("CANCELLED")
        _update(region, build.key, _progress(running))
    except builder.TimedOut:
        tell("TIMEOUT")
        _keep_log(region, build, account, lines)
        late = DeadlineExceeded(f"Build exceeded its timeout of {build['timeout']}")
        _finish(region, build.key, "TIMEOUT", late, _progress(running))
    except BuildFailed as failed:
        tell(f"ERROR: {failed}")
        tell("ERROR")
        _keep_log(region, build, account, lines)
        error = BuildError(f"Build failed; check build logs for details: {failed}")
        info = {"type": builder.FAILURES[running.phase], "detail": error.message}
        _finish(region, build.key, "FAILURE", error, {**_progress(running), "failureInfo": info})
    except Exception as fault:
        log.exception("build %s", build["id"])
        tell(f"INTERNAL ERROR: {type(fault).__name__}: {fault}")
        _finish(region, build.key, "INTERNAL_ERROR", Internal(f"{type(fault).__name__}: {fault}"), _progress(running))
    else:
        tell("DONE")
        _keep_log(region, build, account, lines)
        _finish(region, build.key, "SUCCESS", None, {**_progress(running), "results": _results(running)})
    finally:
        region.logs.flush()
        with _cancelled_lock:
            _cancelled.discard(build.key)


def _keep_log(region: Region, build: Mapping[str, Any], account: str, lines: Sequence[str]) -> None:
    """The whole log as an object of the bucket that the build names, written as its account."""
    bucket = str(build.get("logsBucket", "")).removeprefix("gs://").strip("/")
    if not bucket:
        return
    bucket, _, prefix = bucket.partition("/")
    name = quote(f"{prefix}/log-{build['id']}.txt".lstrip("/"), safe="")
    path = f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}"
    text = "".join(f"{line}\n" for line in lines)
    status, _ = own_api.post(region, path, account, text)
    if status >= 300:
        region.logs.write(
            build["projectId"],
            "cloudbuild",
            {"type": "build", "labels": {"project_id": build["projectId"], "build_id": build["id"]}},
            severity="ERROR",
            text=f"the log could not be written to gs://{bucket}: HTTP {status}",
        )


def _results(build: builder.Build) -> dict[str, Any]:
    images = list(build.pushed.values())
    # No step's image is fetched, so none has a digest.
    results: dict[str, Any] = {"buildStepImages": [""] * len(build.steps), "buildStepOutputs": [""] * len(build.steps)}
    return results | ({"images": images} if images else {})


def _progress(build: builder.Build) -> dict[str, Any]:
    """What a build says, when it has ended, of how far it came."""
    for step in build.steps:
        step.setdefault("status", "QUEUED")
    progress: dict[str, Any] = {"steps": build.steps, "timing": build.timing}
    if build.source:
        progress["sourceProvenance"] = {"resolvedStorageSource": build.source}
    return progress


def _substitutions(region: Region, build: Mapping[str, Any]) -> dict[str, str]:
    return {
        "PROJECT_ID": build["projectId"],
        "PROJECT_NUMBER": region.project_number(build["projectId"]),
        "BUILD_ID": build["id"],
        "LOCATION": build["name"].split("/")[3],
        **build.get("substitutions", {}),
    }


def _update(region: Region, key: str, changes: Mapping[str, Any]) -> Resource:
    """Write the build, and what its operation shows of it."""
    with region.store.transaction():
        build = region.store.put(key, {**region.store.get(key), **changes})
        name = _operation_name(build)
        operation = region.store.get(f"cloudbuild/{name}")
        operation["metadata"] = {"@type": METADATA_TYPE, "build": build}
        region.store.put(operation.key, operation)
    return build


def _finish(
    region: Region, key: str, status: str, error: ApiError | None, outcome: Mapping[str, Any] | None = None
) -> Resource:
    with region.store.transaction():
        current = region.store.get(key)
        if current["status"] not in UNFINISHED:
            return current
        changes: dict[str, Any] = {"status": status, "finishTime": timestamp(region.clock.now()), **(outcome or {})}
        if error is not None:
            changes["statusDetail"] = error.message
        build = _update(region, key, changes)
        operation = region.store.get(f"cloudbuild/{_operation_name(build)}")
        operation["done"] = True
        if error is None:
            operation["response"] = {"@type": BUILD_TYPE, **build}
        else:
            operation["error"] = error.to_status()
        region.store.put(operation.key, operation)
    return build


def _fail_interrupted(region: Region) -> None:
    for build in region.store.scan("cloudbuild/projects/"):
        if build.key.split("/")[-2] == "builds" and build.get("status") in UNFINISHED:
            interrupted = Aborted("The build was interrupted by a restart of localgcp. Submit it again.")
            _finish(region, build.key, "INTERNAL_ERROR", interrupted)
