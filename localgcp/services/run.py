"""Cloud Run v2: services with revisions and traffic, jobs with executions and tasks.

Revisions are made, never changed: every change of a service's template makes one, and it gets traffic when its first
instance has answered its startup probe. Until then, and if that never happens, the one before keeps what it has.
"""

from collections.abc import Mapping
from typing import Any

from localgcp.clock import timestamp
from localgcp.errors import Aborted, ApiError, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from localgcp.fieldmask import apply_mask, parse_mask
from localgcp.generic import existing, listed, page, resource_schema
from localgcp.iam.acting import may_act_as
from localgcp.operations import Work
from localgcp.region import Region
from localgcp.run import jobs, resources
from localgcp.run.program import StartFailed
from localgcp.run.runtime import Runtime, runtime_of
from localgcp.service import Call, Service
from localgcp.store import Resource
from localgcp.validation import without_nulls

SERVICE_TYPE = "type.googleapis.com/google.cloud.run.v2.Service"
JOB_TYPE = "type.googleapis.com/google.cloud.run.v2.Job"
REVISION_TYPE = "type.googleapis.com/google.cloud.run.v2.Revision"
#: Fields of a service that only the server writes.
SERVER_FIELDS = (
    "name", "uid", "generation", "createTime", "updateTime", "creator", "lastModifier", "etag", "reconciling",
    "observedGeneration", "terminalCondition", "conditions", "trafficStatuses", "uri", "urls",
    "latestReadyRevision", "latestCreatedRevision",
)  # fmt: skip
#: Fields of a template that a revision does not take over as they are.
TEMPLATE_ONLY = ("revision", "healthCheckDisabled")

service = Service("run:v2")
service.allow("run.services", "projects.locations.services")
service.allow("run.revisions", "projects.locations.services.revisions")
service.allow("run.jobs", "projects.locations.jobs", run="run.jobs.run")
service.allow("run.executions", "projects.locations.jobs.executions", cancel="run.executions.cancel")
service.allow("run.tasks", "projects.locations.jobs.executions.tasks")
service.allow("run.operations", "projects.locations.operations", wait="run.operations.get")


@service.on_start
async def start(region: Region) -> None:
    runtime = Runtime(region)
    await region.run_in_thread(_fail_interrupted, region)
    await runtime.start()
    await region.run_in_thread(jobs.fail_interrupted, region)
    jobs.open_runner(region)


@service.on_stop
async def stop(region: Region) -> None:
    await jobs.close_runner(region)
    await runtime_of(region).stop()


# Services


@service.method("projects.locations.services.create")
def create_service(call: Call) -> dict[str, Any]:
    name = call.query.get("serviceId") or call.body.get("name", "").rpartition("/")[2]
    if not name:
        raise InvalidArgument("The service ID is required: set service_id", location="serviceId")
    resources.check_name(name, "Service")
    return _create_service(call, f"{call.key}/services/{name}", call.body)


def _create_service(call: Call, key: str, given: Mapping[str, Any]) -> dict[str, Any]:
    region = call.region
    _, _, project, _, location, _, name = key.split("/")
    body = resources.service_body(region, project, _own_fields(given))
    _check_account(call, body["template"]["serviceAccount"])
    resources.check_traffic(body["traffic"], [body["template"].get("revision", "")])
    hosts = resources.addresses(region, project, location, name)
    now = timestamp(region.clock.now())
    body |= {
        "name": key.partition("/")[2],
        **resources.stamps(region, call.principal.email),
        "uri": f"https://{hosts[0]}",
        "urls": [f"https://{host}" for host in hosts],
        "etag": resources.new_etag(),
        "reconciling": True,
        "terminalCondition": resources.condition("Ready", now, pending=True),
        "conditions": [],
    }
    if call.query.get("validateOnly"):
        return _operation(call, Resource(key, body), SERVICE_TYPE, "CREATE")
    with call.store.transaction():
        created = call.store.create(key, body)
        revision = _new_revision(call, created)
        created = call.store.put(key, {**body, "latestCreatedRevision": revision["name"]})
    return _roll_out(call, created, revision)


@service.method("projects.locations.services.patch")
def patch_service(call: Call) -> dict[str, Any]:
    with call.store.transaction():
        current = call.store.find(call.key)
        if current is not None:
            changed, revision = _change_service(call, current)
    if current is None:
        if not call.query.get("allowMissing"):
            raise NotFound(f"Resource '{call.named}' was not found")
        # With allowMissing a create needs the permission of one.
        call.check("run.services.create", call.key.rpartition("/services/")[0])
        return _create_service(call, call.key, call.body)
    if call.query.get("validateOnly"):
        return _operation(call, changed, SERVICE_TYPE, "UPDATE")
    return _roll_out(call, changed, revision)


def _change_service(call: Call, current: Resource) -> tuple[Resource, Resource | None]:
    """The service as asked for, stored, with its new revision if the template changed."""
    region = call.region
    _, _, project, *_ = current.key.split("/")
    _check_etag(call, current, call.body.get("etag"))
    mask = call.query.get("updateMask")
    given = _own_fields(call.body)
    if mask and mask != "*":
        schema = resource_schema(call)
        given = apply_mask(_own_fields(current), given, parse_mask(mask, schema, call.method.request_schema or ""))
    body = resources.service_body(region, project, given)
    if body["template"]["serviceAccount"] != current["template"]["serviceAccount"]:
        _check_account(call, body["template"]["serviceAccount"])
    known = [revision.key.rpartition("/")[2] for revision in call.store.list(current.key, "revisions")]
    resources.check_traffic(body["traffic"], [*known, body["template"].get("revision", "")])
    now = timestamp(region.clock.now())
    kept = {field: current[field] for field in SERVER_FIELDS if field in current}
    changed = Resource(
        current.key,
        body
        | kept
        | {
            "generation": str(int(current["generation"]) + 1),
            "updateTime": now,
            "lastModifier": call.principal.email or "",
            "etag": resources.new_etag(),
            "reconciling": True,
            "terminalCondition": resources.condition("Ready", now, pending=True),
        },
    )
    if call.query.get("validateOnly"):
        return changed, None
    revision: Resource | None = None
    if body["template"] != current["template"]:
        revision = _new_revision(call, changed)
        changed["latestCreatedRevision"] = revision["name"]
    elif current["terminalCondition"]["state"] == "CONDITION_FAILED":
        # Nothing of the template changed, but what it needs may have: a binding, a secret, an image.
        revision = call.store.find(f"run/{current['latestCreatedRevision']}")
    call.store.put(changed.key, changed)
    return changed, revision


@service.method("projects.locations.services.delete")
def delete_service(call: Call) -> dict[str, Any]:
    current = existing(call)
    _check_etag(call, current, call.query.get("etag"))
    if call.query.get("validateOnly"):
        return _operation(call, current, SERVICE_TYPE, "DELETE")
    call.store.delete(current.key)
    runtime = runtime_of(call.region)

    def work() -> dict[str, Any]:
        with runtime.lock(current.key):
            runtime.wait(runtime.remove(current.key))
        return {"@type": SERVICE_TYPE, **current, "deleteTime": timestamp(call.region.clock.now())}

    return _operation(call, current, SERVICE_TYPE, "DELETE", work)


@service.method("projects.locations.services.revisions.list", "projects.locations.jobs.executions.list")
def list_newest_first(call: Call) -> dict[str, Any]:
    """Revisions and executions are "sorted by creation time, descending" (their methods in the reference)."""
    return page(call, listed(call)[::-1])


@service.method("projects.locations.services.revisions.delete")
def delete_revision(call: Call) -> dict[str, Any]:
    with call.store.transaction():
        revision = existing(call)
        _check_etag(call, revision, call.query.get("etag"))
        parent = call.store.get(call.key.rpartition("/revisions/")[0])
        name = revision.key.rpartition("/")[2]
        latest = parent.get("latestCreatedRevision", "").rpartition("/")[2]
        serving = {target.get("revision", "").rpartition("/")[2] or latest for target in parent["traffic"]}
        if name == latest or name in serving:
            raise FailedPrecondition(
                f"Revision {name} cannot be deleted: it is the latest created one or it serves traffic."
            )
        if not call.query.get("validateOnly"):
            call.store.delete(revision.key)
            revision["deleteTime"] = timestamp(call.region.clock.now())

    def work() -> dict[str, Any]:
        if "deleteTime" in revision:
            runtime = runtime_of(call.region)
            runtime.wait(runtime.remove_revision(revision.key))
        return {"@type": REVISION_TYPE, **revision}

    return _operation(call, revision, REVISION_TYPE, "DELETE", work)


def _roll_out(call: Call, body: Resource, revision: Resource | None) -> dict[str, Any]:
    region = call.region
    runtime = runtime_of(region)

    def work() -> dict[str, Any]:
        with runtime.lock(body.key):
            error, reason = _start_revision(region, runtime, revision) if revision is not None else (None, None)
            done = _settle(region, body.key, revision, error, reason)
            if done is None:
                raise NotFound(f"Resource '{body['name']}' was deleted before it was ready")
            runtime.wait(runtime.deploy(done))
        if error is not None:
            raise error
        return {"@type": SERVICE_TYPE, **done}

    kind = "CREATE" if body["generation"] == "1" else "UPDATE"
    return _operation(call, body, SERVICE_TYPE, kind, work)


def _start_revision(
    region: Region, runtime: Runtime, revision: Resource
) -> tuple[ApiError | None, Mapping[str, str] | None]:
    """Pin the image, start the first instance; what went wrong, in Google's words and word, when something did."""
    name = revision.key.rpartition("/")[2]
    try:
        pinned = region.store.put(revision.key, resources.pinned(region, revision))
    except NotFound as missing:
        message = f"Revision '{name}' is not ready and cannot serve traffic. {missing.message}"
        return NotFound(message), {"reason": "CONTAINER_MISSING"}
    try:
        runtime.wait(runtime.try_out(pinned))
    except StartFailed as failed:
        message = (
            f"Revision '{name}' is not ready and cannot serve traffic. {failed}\n\nLogs URL:"
            f" {region.settings.api_url}/_localgcp/logs?project={revision.key.split('/')[2]}"
            f"&filter=resource.labels.revision_name={name}"
        )
        return FailedPrecondition(message), failed.reason
    return None, None


def _settle(
    region: Region,
    key: str,
    revision: Resource | None,
    error: ApiError | None,
    reason: Mapping[str, str] | None = None,
) -> Resource | None:
    """Write down how a roll-out ended. None when the service is gone meanwhile."""
    now = timestamp(region.clock.now())
    message = error.message if error is not None else None
    with region.store.transaction():
        current = region.store.find(key)
        if current is None:
            return None
        if revision is not None:
            stored = region.store.get(revision.key)
            kinds = ("Ready", "ContainerReady", "ResourcesAvailable")
            conditions = [resources.condition(kind, now, error=message, reason=reason) for kind in kinds]
            region.store.put(revision.key, {**stored, "reconciling": False, "conditions": conditions})
            if error is None:
                current["latestReadyRevision"] = revision["name"]
        current["reconciling"] = False
        current["observedGeneration"] = current["generation"]
        current["terminalCondition"], *current["conditions"] = (
            resources.condition(kind, now, error=message, reason=reason)
            for kind in ("Ready", "RoutesReady", "ConfigurationsReady")
        )
        current["trafficStatuses"] = [_traffic_status(current, target) for target in current["traffic"]]
        return region.store.put(key, current)


def _traffic_status(body: Mapping[str, Any], target: Mapping[str, Any]) -> dict[str, Any]:
    status = dict(target)
    if "tag" in target:
        status["uri"] = body["uri"].replace("https://", f"https://{target['tag']}---")
    return status


def _new_revision(call: Call, parent: Resource) -> Resource:
    template = parent["template"]
    name = parent.key.rpartition("/")[2]
    number = call.store.increment(parent.key, "revisions")
    revision_name = template.get("revision") or resources.new_revision_name(name, number)
    if template.get("revision") and not template["revision"].startswith(f"{name}-"):
        raise InvalidArgument(f"template.revision: the name of a revision must begin with {name}-")
    key = f"{parent.key}/revisions/{revision_name}"
    if call.store.exists(key):
        raise Aborted(f"Revision named '{revision_name}' with different configuration already exists.")
    now = timestamp(call.region.clock.now())
    body = {field: value for field, value in template.items() if field not in TEMPLATE_ONLY}
    body |= {
        "name": key.partition("/")[2],
        **resources.stamps(call.region, call.principal.email),
        "service": name,
        "launchStage": parent["launchStage"],
        "reconciling": True,
        "observedGeneration": "1",
        "conditions": [resources.condition("Ready", now, pending=True)],
        "etag": resources.new_etag(),
        "logUri": f"{call.region.settings.api_url}/_localgcp/logs?project={call.project}",
    }
    del body["lastModifier"]
    return call.store.create(key, body)


def _operation(
    call: Call, resource: Resource, message_type: str, kind: str, work: Work | None = None
) -> dict[str, Any]:
    """The operation that changes a resource: with the resource as its metadata, and as its response without `work`."""
    body = {"@type": message_type, **resource}
    response = body if work is None else None
    return call.operation(work, target=resource.key, kind=kind, response=response, metadata=body)


def _check_etag(call: Call, current: Mapping[str, Any], etag: str | None) -> None:
    if etag and etag != current["etag"]:
        raise Aborted(
            f"Conflict for resource '{call.named}': the etag {etag} is not the current one, {current['etag']}."
            " It was changed since it was read; read it again."
        )


def _own_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in without_nulls(dict(body)).items() if field not in SERVER_FIELDS}


def _check_account(call: Call, email: str) -> None:
    """Only who may act as an account may have a workload run as it."""
    if not may_act_as(call, email):
        raise PermissionDenied(
            f"Permission 'iam.serviceaccounts.actAs' denied on service account {email} (or it may not exist)."
        )


def _fail_interrupted(region: Region) -> None:
    """A roll-out that the last process did not finish has failed; asking again makes it anew."""
    for body in region.store.scan("run/projects/"):
        if len(body.key.split("/")) == 7 and "/services/" in body.key and body.get("reconciling"):
            revision = region.store.find(f"run/{body['latestCreatedRevision']}")
            interrupted = Aborted("The deployment was interrupted by a restart of localgcp. Deploy again.")
            unfinished = revision if revision is not None and revision.get("reconciling") else None
            _settle(region, body.key, unfinished, interrupted)


# Jobs


@service.method("projects.locations.jobs.create")
def create_job(call: Call) -> dict[str, Any]:
    name = call.query.get("jobId") or call.body.get("name", "").rpartition("/")[2]
    if not name:
        raise InvalidArgument("The job ID is required: set job_id", location="jobId")
    resources.check_name(name, "Job")
    return _create_job(call, f"{call.key}/jobs/{name}")


def _create_job(call: Call, key: str) -> dict[str, Any]:
    body = resources.job_body(call.region, call.project, _job_fields(call.body))
    _check_account(call, body["template"]["template"]["serviceAccount"])
    now = timestamp(call.region.clock.now())
    body |= {
        "name": key.partition("/")[2],
        **resources.stamps(call.region, call.principal.email),
        "executionCount": 0,
        **_job_ready(now, "1"),
    }
    job = Resource(key, body) if call.query.get("validateOnly") else call.store.create(key, body)
    return _job_operation(call, job, "CREATE")


@service.method("projects.locations.jobs.patch")
def patch_job(call: Call) -> dict[str, Any]:
    current = call.store.find(call.key)
    if current is None:
        if not call.query.get("allowMissing"):
            raise NotFound(f"Resource '{call.named}' was not found")
        call.check("run.jobs.create", call.key.rpartition("/jobs/")[0])
        return _create_job(call, call.key)
    with call.store.transaction():
        current = existing(call)
        _check_etag(call, current, call.body.get("etag"))
        body = resources.job_body(call.region, call.project, _job_fields(call.body))
        _check_account(call, body["template"]["template"]["serviceAccount"])
        now = timestamp(call.region.clock.now())
        generation = str(int(current["generation"]) + 1)
        kept = {field: current[field] for field in (*SERVER_FIELDS, *jobs.JOB_FIELDS) if field in current}
        body = body | kept | {"generation": generation, "updateTime": now, "lastModifier": call.principal.email or ""}
        body |= _job_ready(now, generation)
        if not call.query.get("validateOnly"):
            call.store.put(call.key, body)
    return _job_operation(call, Resource(call.key, body), "UPDATE")


def _job_operation(call: Call, job: Resource, kind: str) -> dict[str, Any]:
    """The operation of a create or an update. A token in the job makes an execution of that name, once."""
    token = job.get("startExecutionToken") or job.get("runExecutionToken")
    execution_key = f"{job.key}/executions/{job.key.rpartition('/')[2]}-{token}"
    if not token or call.query.get("validateOnly") or call.store.exists(execution_key):
        return _operation(call, job, JOB_TYPE, kind)
    jobs.begin(call.region, job, jobs.new_execution(call.region, job, {}, call.principal.email, suffix=token))

    def work() -> dict[str, Any]:
        if "runExecutionToken" in job:
            error = jobs.wait(call.region, execution_key)
            if error is not None:
                raise jobs.ExecutionFailed(error)
        return {"@type": JOB_TYPE, **call.store.get(job.key)}

    return _operation(call, job, JOB_TYPE, kind, work)


@service.method("projects.locations.jobs.run")
def run_job(call: Call) -> dict[str, Any]:
    job = existing(call)
    _check_etag(call, job, call.body.get("etag"))
    overrides = call.body.get("overrides") or {}
    if overrides:
        call.check("run.jobs.runWithOverrides")
        resources.check_overrides(overrides, job["template"])
    execution = jobs.new_execution(call.region, job, without_nulls(overrides), call.principal.email)
    if call.body.get("validateOnly"):
        return _operation(call, execution, jobs.EXECUTION_TYPE, "RUN")
    return jobs.begin(call.region, job, execution)


@service.method("projects.locations.jobs.executions.cancel")
def cancel_execution(call: Call) -> dict[str, Any]:
    execution = existing(call)
    _check_etag(call, execution, call.body.get("etag"))
    if "completionTime" in execution:
        raise FailedPrecondition(f"Execution {execution.key.rpartition('/')[2]} has already completed.")
    if call.body.get("validateOnly"):
        return _operation(call, execution, jobs.EXECUTION_TYPE, "CANCEL")

    def work() -> dict[str, Any]:
        jobs.cancel(call.region, execution.key)
        return {"@type": jobs.EXECUTION_TYPE, **call.store.get(execution.key)}

    return _operation(call, execution, jobs.EXECUTION_TYPE, "CANCEL", work)


@service.method("projects.locations.jobs.delete", "projects.locations.jobs.executions.delete")
def delete_job(call: Call) -> Any:
    current = existing(call)
    if "/executions/" in call.key and "completionTime" not in current:
        raise FailedPrecondition(f"Execution {current.key.rpartition('/')[2]} is still running: cancel it first.")
    _check_etag(call, current, call.query.get("etag"))
    response_type = jobs.EXECUTION_TYPE if "/executions/" in current.key else JOB_TYPE
    if call.query.get("validateOnly"):
        return _operation(call, current, response_type, "DELETE")

    def work() -> dict[str, Any]:
        jobs.cancel_below(call.region, current.key)
        call.store.delete(current.key)
        return {"@type": response_type, **current, "deleteTime": timestamp(call.region.clock.now())}

    return _operation(call, current, response_type, "DELETE", work)


def _job_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in _own_fields(body).items() if field not in jobs.JOB_FIELDS}


def _job_ready(now: str, generation: str) -> dict[str, Any]:
    return {
        "etag": resources.new_etag(),
        "reconciling": False,
        "observedGeneration": generation,
        "terminalCondition": resources.condition("Ready", now),
        "conditions": [resources.condition("ResourcesAvailable", now)],
    }
