"""Organization Policy: policies of projects are kept and answered.

One is obeyed: `iam.disableServiceAccountKeyCreation` (by IAM). The others, such as allowed locations, are not enforced.
"""

import hashlib
import json
from typing import Any

from localgcp import generic
from localgcp.clock import timestamp
from localgcp.errors import Aborted, AlreadyExists, InvalidArgument, NotFound
from localgcp.service import Call, Service
from localgcp.store import Resource
from localgcp.validation import without_nulls

_MASKS = frozenset({"policy.spec", "spec", "policy.dry_run_spec", "dryRunSpec", "*", "policy"})

service = Service("orgpolicy:v2")
service.permissions |= {
    "projects.policies.create": "orgpolicy.policies.create",
    "projects.policies.get": "orgpolicy.policy.get",
    "projects.policies.getEffectivePolicy": "orgpolicy.policy.get",
    "projects.policies.list": "orgpolicy.policies.list",
    "projects.policies.patch": "orgpolicy.policies.update",
    "projects.policies.delete": "orgpolicy.policies.delete",
    "projects.constraints.list": "orgpolicy.constraints.list",
}


@service.method("projects.policies.create")
def create_policy(call: Call) -> Resource:
    constraint = str(call.body.get("name") or "").rpartition("/policies/")[2]
    if "." not in constraint:
        raise InvalidArgument(f"The policy's name must be {call.named}/policies/<constraint>.")
    key = f"{call.key}/policies/{constraint}"
    with call.store.transaction():
        if call.store.exists(key):
            raise AlreadyExists(f"A policy for {constraint} already exists in {call.named}.")
        return call.store.create(key, _body(call, constraint, call.body))


@service.method("projects.policies.patch")
def patch_policy(call: Call) -> Resource:
    mask = str(call.query.get("updateMask") or "*")
    unknown = {field.strip() for field in mask.split(",")} - _MASKS
    if unknown:
        raise InvalidArgument(f"updateMask names no field of a policy: {', '.join(sorted(unknown))}.")
    with call.store.transaction():
        current = _policy(call, call.key)
        # The mask says `policy.spec`, and the body is the policy.
        given = (call.body.get("spec") or {}).get("etag")
        if given and given != current["spec"]["etag"]:
            raise Aborted(f"The etag '{given}' of the policy is not the current one: it was changed since it was read.")
        constraint = call.key.rpartition("/")[2]
        return call.store.put(call.key, _body(call, constraint, {**current, **call.body}))


@service.method("projects.policies.get", "projects.policies.getEffectivePolicy")
def get_policy(call: Call) -> Resource:
    return _policy(call, call.key)


@service.method("projects.policies.delete")
def delete_policy(call: Call) -> dict[str, Any]:
    _policy(call, call.key)
    call.store.delete(call.key)
    return {}


@service.method("projects.constraints.list")
def list_constraints(call: Call) -> dict[str, Any]:
    return generic.page(call, [])


def _policy(call: Call, key: str) -> Resource:
    policy = call.store.find(key)
    if policy is None:
        raise NotFound("Requested entity was not found.")
    return policy


def _body(call: Call, constraint: str, wanted: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in without_nulls(wanted).items() if name in ("spec", "dryRunSpec")}
    spec = {name: value for name, value in kept.get("spec", {}).items() if name not in ("etag", "updateTime")}
    now = timestamp(call.region.clock.now())
    etag = '"' + hashlib.sha256(json.dumps([spec, now], sort_keys=True).encode()).hexdigest()[:12] + '"'
    name = f"projects/{call.region.project_number(call.project)}/policies/{constraint}"
    return {**kept, "name": name, "spec": {**spec, "etag": etag, "updateTime": now}, "etag": etag}
