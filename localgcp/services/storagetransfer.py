"""Storage Transfer: jobs are kept and answered. They do not run: nothing is copied, and `run` says so."""

import json
import secrets
from typing import Any

from localgcp import generic
from localgcp.clock import timestamp
from localgcp.errors import AlreadyExists, InvalidArgument, NotFound
from localgcp.fieldmask import apply_mask, parse_mask
from localgcp.iam import accounts
from localgcp.service import Call, Service
from localgcp.store import Resource
from localgcp.validation import without_nulls

_MUTABLE = ("description", "transferSpec", "notificationConfig", "loggingConfig", "status", "schedule", "eventStream")

service = Service("storagetransfer:v1")
# The handlers check: which project is meant stands in the body or the query, not in the path.
for _verb in ("create", "get", "list", "patch", "delete", "run"):
    service.permissions[f"transferJobs.{_verb}"] = None
service.permissions["googleServiceAccounts.get"] = None


@service.method("transferJobs.create")
def create_job(call: Call) -> Resource:
    body = without_nulls(call.body)
    project = _project(call, body.get("projectId"), "storagetransfer.jobs.create")
    name = body.get("name") or f"transferJobs/{secrets.randbelow(10**20)}"
    if not str(name).startswith("transferJobs/"):
        raise InvalidArgument(f"Invalid transfer job name '{name}': it must begin with transferJobs/.")
    now = timestamp(call.region.clock.now())
    body |= {"name": name, "projectId": project, "creationTime": now, "lastModificationTime": now}
    if call.store.exists(f"storagetransfer/{name}"):
        raise AlreadyExists(f"Job ({name}) already exists.")
    return call.store.create(f"storagetransfer/{name}", body)


@service.method("transferJobs.get")
def get_job(call: Call) -> Resource:
    return _job(call, call.query.get("projectId"), "storagetransfer.jobs.get")


@service.method("transferJobs.list")
def list_jobs(call: Call) -> dict[str, Any]:
    try:
        wanted = json.loads(call.query.pop("filter", None) or "{}")
    except ValueError:
        wanted = None
    if not isinstance(wanted, dict):
        raise InvalidArgument("filter must be a JSON object with projectId.")
    project = _project(call, wanted.get("projectId") or wanted.get("project_id"), "storagetransfer.jobs.list")
    statuses = wanted.get("jobStatuses") or ["ENABLED", "DISABLED", "STATUS_UNSPECIFIED"]
    found = [
        job
        for job in call.store.list("storagetransfer", "transferJobs")
        if job["projectId"] == project and job.get("status", "STATUS_UNSPECIFIED") in statuses
    ]
    return generic.page(call, found)


@service.method("transferJobs.patch")
def patch_job(call: Call) -> Resource:
    wanted = call.body.get("transferJob") or {}
    with call.store.transaction():
        job = _job(call, call.body.get("projectId"), "storagetransfer.jobs.update")
        schema = call.method.document.schemas["TransferJob"]["properties"]
        mask = call.body.get("updateTransferJobFieldMask") or ",".join(name for name in _MUTABLE if name in wanted)
        changed = apply_mask(job, wanted, parse_mask(str(mask), schema, "TransferJob"))
        now = timestamp(call.region.clock.now())
        changed["lastModificationTime"] = now
        if changed.get("status") == "DELETED":
            changed["deletionTime"] = now
        return call.store.put(job.key, changed)


@service.method("transferJobs.delete")
def delete_job(call: Call) -> dict[str, Any]:
    job = _job(call, call.query.get("projectId"), "storagetransfer.jobs.delete")
    call.store.put(job.key, {**job, "status": "DELETED", "deletionTime": timestamp(call.region.clock.now())})
    return {}


@service.method("transferJobs.run")
def run_job(call: Call) -> Any:
    _job(call, call.body.get("projectId"), "storagetransfer.jobs.run")
    return call.proceed()


@service.method("googleServiceAccounts.get")
def get_google_service_account(call: Call) -> dict[str, Any]:
    project = _project(call, call.params["projectId"], "storagetransfer.projects.getServiceAccount")
    email = f"project-{call.region.project_number(project)}@storage-transfer-service.iam.gserviceaccount.com"
    return {"accountEmail": email, "subjectId": accounts.stable_unique_id(email)}


def _project(call: Call, given: Any, permission: str) -> str:
    if not given:
        raise InvalidArgument("projectId is required.", location="projectId")
    project = call.region.project_id(str(given))
    call.check(permission, f"cloudresourcemanager/projects/{project}")
    return project


def _job(call: Call, given: Any, permission: str) -> Resource:
    project = _project(call, given, permission)
    name = call.params["jobName"]
    job = call.store.find(f"storagetransfer/{name}")
    if job is None or job["projectId"] != project or (job.get("status") == "DELETED" and call.method.verb != "get"):
        raise NotFound(f"Requested entity was not found: {name}.")
    return job
