"""What every collection does without behaviour of its own: create, get, list, patch, update, delete, IAM, operations.

Everything is derived from the discovery document: the id of a new resource from the query parameter or the body's
name, output fields (`createTime`, `etag`, `selfLink`, …) from the schema, the shape of a list from its answer.
"""

import base64
import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

from localgcp.clock import timestamp
from localgcp.errors import Aborted, AlreadyExists, InvalidArgument, NotFound, Unimplemented
from localgcp.fieldmask import apply_mask, merge_patch, parse_mask
from localgcp.filters import matches
from localgcp.identifiers import numeric_id
from localgcp.locations import REGIONS
from localgcp.service import Call
from localgcp.store import Resource
from localgcp.validation import camel, is_output_only, without_nulls

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000
#: Of every resource of Compute (discovery document, the pattern of `name`).
COMPUTE_NAME = re.compile(r"(?:[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?)")
COMPUTE_ROOT = "https://www.googleapis.com/compute/v1"


def answer(call: Call) -> Any:
    """Serve a method without behaviour. Raises Unimplemented for a verb that only the real service can act out."""
    if call.method.collection == "operations" or call.method.id.startswith("operations."):
        return _operations(call)
    if call.method.id == "projects.locations.get":
        return _location(call, call.named.rpartition("/")[2])
    if call.method.id == "projects.locations.list":
        return page(call, [_location(call, name) for name in sorted(REGIONS)])
    verbs = {
        "create": create,
        "insert": create,
        "get": get,
        "list": list_,
        "patch": update,
        "update": update,
        "delete": delete,
        "getIamPolicy": get_iam_policy,
        "setIamPolicy": set_iam_policy,
        "testIamPermissions": test_iam_permissions,
    }
    verb = verbs.get(call.method.verb)
    if verb is None:
        raise Unimplemented(f"{call.service.api.name}.{call.method.id} has no behaviour in localgcp.")
    return verb(call)


def create(call: Call) -> Any:
    key = f"{call.key}/{collection_segment(call)}/{new_id(call)}"
    body = new_body(call, key)
    if call.store.exists(key):
        raise already_exists(call, key)
    if call.query.get("validateOnly"):
        return _changed(call, Resource(key, body))
    return _changed(call, call.store.create(key, body))


def get(call: Call) -> Any:
    return existing(call)


def list_(call: Call) -> dict[str, Any]:
    return page(call, listed(call))


def listed(call: Call) -> list[Resource]:
    """The collection that the path names, oldest first; `-` in the parent's name stands for every resource there."""
    collection = collection_segment(call)
    if "-" not in call.key.split("/"):
        return call.store.list(call.key, collection)
    return call.store.list_across(call.key, collection)


def update(call: Call) -> Any:
    """PATCH and PUT. Legacy APIs merge (null deletes); the others follow the mask, or take every field present."""
    with call.store.transaction():
        current = existing(call)
        check_etag(call, current, call.body.get("etag") or call.query.get("etag"))
        schema = resource_schema(call)
        kept = {name: value for name, value in current.items() if is_output_only(schema.get(name, {}))}
        mask = call.query.get("updateMask")
        if call.method.http_method == "PUT":
            changed = {**without_nulls(call.body), **kept}
            changed.setdefault("name", current.get("name"))
        elif mask and mask != "*":
            # A mask may name what only the server sets; that stays.
            changed = apply_mask(current, call.body, parse_mask(mask, schema, call.method.request_schema or "")) | kept
        elif call.service.api.legacy:
            changed = merge_patch(current, call.body)
        else:
            changed = {**current, **without_nulls(call.body)}
        if "name" in current:
            changed["name"] = current["name"]
        changed = {name: value for name, value in changed.items() if value is not None}
        stamp(call, changed, schema, created=False)
        if call.query.get("validateOnly"):
            return _changed(call, Resource(current.key, changed))
        return _changed(call, call.store.put(current.key, changed))


def delete(call: Call) -> Any:
    with call.store.transaction():
        current = existing(call)
        check_etag(call, current, call.query.get("etag"))
        if not call.query.get("validateOnly"):
            call.store.delete(current.key)
    if call.method.response_schema and "Operation" in call.method.response_schema:
        return call.operation(target=current.key, kind="delete")
    return {}


def get_iam_policy(call: Call) -> dict[str, Any]:
    _policy_target(call)
    options = call.body.get("options") or {}
    version = call.query.get("options.requestedPolicyVersion") or options.get("requestedPolicyVersion") or 1
    return call.region.iam.get_policy(call.key, int(version))


def set_iam_policy(call: Call) -> dict[str, Any]:
    _policy_target(call)
    # Compute sends bindings and etag beside the policy as well as in it.
    policy = call.body.get("policy") or {k: v for k, v in call.body.items() if k in ("bindings", "etag", "version")}
    kept: dict[str, Any] = without_nulls(policy)
    return call.region.iam.set_policy(call.key, kept, call.body.get("updateMask"))


def test_iam_permissions(call: Call) -> dict[str, Any]:
    wanted = call.body.get("permissions") or call.query.get("permissions") or []
    granted = [name for name in wanted if call.region.iam.allows(call.principal, name, call.permission_key)]
    return {"permissions": granted} if granted else {}


def existing(call: Call) -> Resource:
    """The resource that the path names. Raises NotFound in the wording of its API."""
    resource = call.store.find(call.key)
    if resource is None:
        raise not_found(call)
    return resource


def not_found(call: Call) -> NotFound:
    if call.service.api.dialect == "compute":
        return NotFound(f"The resource '{call.named}' was not found")
    if call.service.api.legacy:
        return NotFound(f"The '{call.method.collection}' resource '{call.named.rpartition('/')[2]}' was not found.")
    return NotFound(f"Resource '{call.named}' was not found")


def already_exists(call: Call, key: str) -> AlreadyExists:
    relative = key.partition("/")[2]
    if call.service.api.dialect == "compute":
        return AlreadyExists(f"The resource '{relative}' already exists")
    return AlreadyExists(f"Resource '{relative}' already exists", reason="alreadyExists")


def collection_segment(call: Call) -> str:
    """The last literal of a collection's path: `services` in `v2/{+parent}/services`."""
    return call.method.path.rpartition("/")[2].partition(":")[0]


def singular(collection: str) -> str:
    """`repositories` -> `repository`, `dnsAuthorizations` -> `dnsAuthorization`."""
    return collection.removesuffix("ies") + "y" if collection.endswith("ies") else collection.removesuffix("s")


def new_id(call: Call) -> str:
    """The id of a resource to be created: from its query parameter, from the body's name, or made by the server."""
    parameter = f"{singular(collection_segment(call))}Id"
    schema = call.method.parameters.get(parameter)
    if schema is not None and schema.get("location") == "query":
        if parameter not in call.query:
            raise InvalidArgument(
                f"The request was invalid: {parameter} is required", reason="required", location=parameter
            )
        return str(call.query[parameter])
    name = call.body.get("name")
    if isinstance(name, str) and name:
        if call.service.api.dialect == "compute" and not COMPUTE_NAME.fullmatch(name):
            raise InvalidArgument(
                f"Invalid value for field 'resource.name': '{name}'. Must be a match of regex '{COMPUTE_NAME.pattern}'",
                reason="invalid",
                location="name",
            )
        return name.rpartition("/")[2]
    if call.service.api.legacy and "name" in resource_schema(call):
        raise InvalidArgument("Required field 'resource.name' not specified", reason="required", location="name")
    return numeric_id()


def new_body(call: Call, key: str) -> dict[str, Any]:
    """The body of a new resource, with the fields that the server fills in."""
    schema = resource_schema(call)
    body: dict[str, Any] = without_nulls(call.body)
    relative = key.partition("/")[2]
    if "name" in schema:
        body["name"] = relative.rpartition("/")[2] if call.service.api.legacy else relative
    stamp(call, body, schema, created=True)
    api = call.service.api
    if api.dialect == "compute":
        body["kind"] = schema.get("kind", {}).get("default", f"compute#{call.method.collection.removesuffix('s')}")
        body["id"] = numeric_id()
        body["selfLink"] = f"{COMPUTE_ROOT}/{relative}"
        for noun in ("region", "zone"):
            if noun in call.params:
                body[noun] = f"{COMPUTE_ROOT}/projects/{call.project}/{noun}s/{call.params[noun]}"
    elif "kind" in schema and "default" in schema["kind"]:
        body["kind"] = schema["kind"]["default"]
    return body


def stamp(call: Call, body: dict[str, Any], schema: Mapping[str, Any], *, created: bool) -> None:
    """Fill in the output fields that follow from the moment and from the rest of the body."""
    now = timestamp(call.region.clock.now())
    if created:
        for name in ("createTime", "creationTimestamp", "creationTime", "insertTime"):
            if name in schema:
                body[name] = now
        if "uid" in schema:
            body["uid"] = str(uuid.uuid4())
        if "creator" in schema and call.principal.email:
            body["creator"] = call.principal.email
    if "updateTime" in schema:
        body["updateTime"] = now
    if "generation" in schema and not call.service.api.legacy:
        body["generation"] = str(int(body.get("generation", 0)) + 1)
    for name in ("etag", "fingerprint", "labelFingerprint"):
        if name in schema:
            body[name] = fingerprint(body)


def fingerprint(body: Mapping[str, Any]) -> str:
    content = {k: v for k, v in body.items() if k not in ("etag", "fingerprint", "labelFingerprint")}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()
    return base64.b64encode(digest[:9]).decode()


def check_etag(call: Call, current: Mapping[str, Any], given: Any) -> None:
    """Raises Aborted when the caller read another state than the one that is stored."""
    if given and "etag" in current and given != current["etag"]:
        raise Aborted(
            f"The etag '{given}' of {call.named} is not the current one, '{current['etag']}':"
            " it was changed since it was read. Read it again."
        )


def resource_schema(call: Call) -> Mapping[str, Any]:
    """The properties of the resource that the method takes, or else answers."""
    name = call.method.request_schema or call.method.response_schema
    properties: Mapping[str, Any] = call.method.document.schemas.get(name or "", {}).get("properties", {})
    return properties


def page(call: Call, resources: list[Resource]) -> dict[str, Any]:
    """One page of a list, in the shape of the method's answer."""
    expression = call.query.get("filter")
    if expression:
        resources = [resource for resource in resources if matches(expression, resource)]
    # Compute's documents: by name, unless something else is asked for.
    order = call.query.get("orderBy") or ("name" if call.service.api.dialect == "compute" else "")
    resources = ordered(resources, order)
    rest = _rest(resources, call.query.get("pageToken"))
    size = int(call.query.get("pageSize") or call.query.get("maxResults") or 0)
    if size < 0:
        raise InvalidArgument(f"The page size must not be negative, got {size}")
    # Compute's document declares its default, 500; most do not.
    declared = call.method.parameters.get("maxResults", {}).get("default")
    size = min(size or int(declared or DEFAULT_PAGE_SIZE), MAX_PAGE_SIZE)
    schema = call.method.document.schemas[call.method.response_schema or ""]["properties"]
    field = next(
        (name for name in ("items", collection_segment(call)) if schema.get(name, {}).get("type") == "array"),
        next((n for n, spec in schema.items() if spec.get("type") == "array" and "$ref" in spec["items"]), "items"),
    )
    result: dict[str, Any] = {}
    if "kind" in schema and "default" in schema["kind"]:
        result["kind"] = schema["kind"]["default"]
    if call.service.api.dialect == "compute":
        result |= {"id": call.relative_path, "selfLink": f"{COMPUTE_ROOT}/{call.relative_path}"}
    chunk = rest[:size]
    if chunk:
        result[field] = chunk
    if size < len(rest):
        result["nextPageToken"] = _page_token(resources, len(resources) - len(rest) + size)
    return result


def message_type(call: Call, schema: str | None = None) -> str:
    """`GoogleCloudRunV2Service` of Cloud Run -> `type.googleapis.com/google.cloud.run.v2.Service`."""
    package = call.service.api.package
    name = schema or call.method.request_schema or ""
    prefix = "".join(word[:1].upper() + word[1:] for word in package.split("."))
    return f"type.googleapis.com/{package}.{name.removeprefix(prefix)}"


def _changed(call: Call, resource: Resource) -> Any:
    if call.method.response_schema and "Operation" in call.method.response_schema:
        return call.operation(target=resource.key, response={"@type": message_type(call), **resource})
    return resource


def _policy_target(call: Call) -> None:
    """Raises NotFound when a policy is asked of something that does not exist."""
    if call.key.startswith("cloudresourcemanager/projects/"):
        return
    existing(call)


def _location(call: Call, name: str) -> Resource:
    """A location as every API shows it. That there is such a one was checked before."""
    relative = f"projects/{call.project}/locations/{name}"
    labels = {"cloud.googleapis.com/region": name}
    body = {"name": relative, "locationId": name, **({"labels": labels} if name in REGIONS else {})}
    return Resource(f"{call.service.api.name}/{relative}", body)


def _operations(call: Call) -> Any:
    if call.method.verb in ("get", "wait"):
        return existing(call)
    if call.method.verb == "list":
        return page(call, call.store.list(call.key, "operations"))
    if call.method.verb == "delete":
        call.store.delete(call.key)
        return {}
    raise Unimplemented(f"{call.service.api.name}.{call.method.id}: operations cannot be cancelled in localgcp.")


def ordered(resources: list[Resource], order: str) -> list[Resource]:
    """By the fields that `order` names, `createTime desc, name` (AIP-132). Raises InvalidArgument."""
    for clause in reversed([clause.split() for clause in order.split(",") if order]):
        if not clause or clause[1:] not in ([], ["asc"], ["desc"]):
            raise InvalidArgument(f"Invalid value for orderBy: '{order}'", reason="invalid", location="orderBy")
        resources = sorted(resources, key=partial(_rank, field=clause[0]), reverse=clause[1:] == ["desc"])
    return resources


def _rank(resource: Mapping[str, Any], field: str) -> tuple[int, float, str]:
    """Where a field puts its resource: what has none comes first, and numbers before texts."""
    value: Any = resource
    for word in map(camel, field.split(".")):
        value = value.get(word) if isinstance(value, Mapping) else None
    if value is None:
        return (0, 0, "")
    return (1, value, "") if isinstance(value, int | float) else (2, 0, str(value))


def _page_token(resources: list[Resource], end: int) -> str:
    """Where the page after the first `end` resources begins.

    Not that number, where it can be helped: what was listed may be deleted before the next page is asked for.
    """
    places = [resource.place for resource in resources if resource.place is not None]
    keys = [resource.key for resource in resources]
    if len(places) == len(resources) and places in (sorted(places), sorted(places, reverse=True)):
        position = f"{'later' if places[0] < places[-1] else 'earlier'} {places[end - 1]}"
    elif keys == sorted(keys):
        position = f"above {keys[end - 1]}"
    else:
        position = f"from {end}"
    return base64.urlsafe_b64encode(position.encode()).decode()


def _rest(resources: list[Resource], token: str | None) -> list[Resource]:
    """The resources that follow the page which answered this token."""
    if not token:
        return resources
    try:
        kind, _, position = base64.urlsafe_b64decode(token.encode()).decode().partition(" ")
        if kind == "above":
            return [one for one in resources if one.key > position]
        number = int(position)
        match kind:
            case "later":
                return [one for one in resources if one.place is not None and one.place > number]
            case "earlier":
                return [one for one in resources if one.place is not None and one.place < number]
            case "from":
                return resources[number:]
    except ValueError:
        pass
    raise InvalidArgument("The page token is not one that this list answered", location="pageToken")
