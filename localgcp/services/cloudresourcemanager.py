"""Resource Manager: projects and their policies. A project exists from the moment somebody names it.

Not here: folders, organisations, tags and liens. A project of this region has no parent.
"""

import base64
import hashlib
from typing import Any

from localgcp import generic, status
from localgcp.clock import timestamp
from localgcp.errors import InvalidArgument
from localgcp.filters import matches
from localgcp.service import Call, Service
from localgcp.store import Resource

service = Service("cloudresourcemanager:v1")
service.mount(status.PATH, status.status_app)
service.permissions |= {
    # The handlers check: two versions of the API name a project in different ways.
    "projects.get": None,
    "projects.list": None,
    "projects.search": None,
    "projects.getAncestry": None,
    "projects.getIamPolicy": None,
    "projects.setIamPolicy": None,
    "projects.testIamPermissions": None,
    "operations.get": None,
}


@service.method("projects.get")
def get_project(call: Call) -> dict[str, Any]:
    call.check("resourcemanager.projects.get", _key(call.project))
    return _body(call, call.project)


@service.method("projects.list", "projects.search")
def list_projects(call: Call) -> dict[str, Any]:
    if _is_v3(call) and call.method.verb == "list":
        if not call.query.get("parent"):
            raise InvalidArgument("The parent of the projects must be named: no project here has one, use search.")
        return {}
    wanted = str(call.query.get("query") or "")
    rows = call.store.rows("SELECT id FROM projects ORDER BY id")
    visible = [
        row["id"]
        for row in rows
        if call.region.iam.allows(call.principal, "resourcemanager.projects.get", _key(row["id"]))
    ]
    found = [Resource(_key(project), _body(call, project)) for project in visible]
    # A query says `id` for the project's id and `name` for what people call it ("Searching for projects").
    found = [
        one
        for one in found
        if not wanted or matches(wanted, one | {"id": one["projectId"], "name": one["displayName"]})
    ]
    return generic.page(call, found)


@service.method("projects.getAncestry")
def get_ancestry(call: Call) -> dict[str, Any]:
    call.check("resourcemanager.projects.get", _key(call.project))
    return {"ancestor": [{"resourceId": {"type": "project", "id": call.project}}]}


@service.method("projects.getIamPolicy")
def get_policy(call: Call) -> dict[str, Any]:
    call.check("resourcemanager.projects.getIamPolicy", _key(call.project))
    version = (call.body.get("options") or {}).get("requestedPolicyVersion") or 0
    return call.region.iam.get_policy(_key(call.project), int(version))


@service.method("projects.setIamPolicy")
def set_policy(call: Call) -> dict[str, Any]:
    call.check("resourcemanager.projects.setIamPolicy", _key(call.project))
    policy = call.body.get("policy") or {}
    return call.region.iam.set_policy(_key(call.project), policy, call.body.get("updateMask"))


@service.method("projects.testIamPermissions")
def test_permissions(call: Call) -> dict[str, Any]:
    wanted = call.body.get("permissions") or []
    granted = call.region.iam.granted(call.principal, wanted, _key(call.project))
    return {"permissions": granted} if granted else {}


def _key(project: str) -> str:
    return f"cloudresourcemanager/projects/{project}"


def _is_v3(call: Call) -> bool:
    return call.method.document.version == "v3"


def _body(call: Call, project: str) -> dict[str, Any]:
    number = call.region.project_number(project)
    created = _create_time(call, project)
    if _is_v3(call):
        return {
            "name": f"projects/{number}",
            "projectId": project,
            "state": "ACTIVE",
            "displayName": project,
            "createTime": created,
            "updateTime": created,
            "etag": f'W/"{base64.b16encode(hashlib.sha256(project.encode()).digest()[:8]).decode().lower()}"',
        }
    return {
        "projectNumber": number,
        "projectId": project,
        "lifecycleState": "ACTIVE",
        "name": project,
        "createTime": created,
    }


def _create_time(call: Call, project: str) -> str:
    name = f"project.{project}.createTime"
    known = call.store.setting(name)
    if known is None:
        known = timestamp(call.region.clock.now())
        call.store.set_setting(name, known)
    return known
