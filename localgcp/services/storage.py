"""Cloud Storage: the JSON API's methods. Contents move through `localgcp.storage.transfers` and the XML API.

Every method checks its permission itself, against the bucket: a bucket that does not exist is 404 for everybody who is
somebody, and an object's permission is asked of the object. What Google offers beyond the methods below (folders,
managed folders, caches, relocation) is refused by name.
"""

import asyncio
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from localgcp import discovery
from localgcp.errors import (
    Aborted,
    AlreadyExists,
    ApiError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    Unauthenticated,
    Unimplemented,
)
from localgcp.iam import accounts
from localgcp.iam.principal import Principal
from localgcp.region import Region
from localgcp.service import Call, Service
from localgcp.storage import access_controls, buckets, contexts, encryption, globs, rewrites
from localgcp.storage.access_controls import PUBLIC, UNIFORM
from localgcp.storage.batch import batch_app
from localgcp.storage.cloud_storage import CloudStorage, of
from localgcp.storage.http import refusal
from localgcp.storage.objects import WRITABLE, StoredObject
from localgcp.storage.preconditions import NotModified, Preconditions, number
from localgcp.storage.ranges import RangeNotSatisfiable
from localgcp.storage.transfers import download, download_app, encrypted_with, upload_app
from localgcp.storage.xml_api import xml_app
from localgcp.store import Resource

LIFECYCLE_INTERVAL = timedelta(seconds=30)

service = Service("storage:v1")
for _method in discovery.load("storage:v1").methods:
    service.permissions[_method] = None  # `method` checks

service.mount("/upload/storage/v1", upload_app)
service.mount("/resumable/upload/storage/v1", upload_app)
service.mount("/download/storage/v1", download_app)
service.mount("/batch/storage/v1", batch_app)
service.mount("/", xml_app)


@dataclass(frozen=True, kw_only=True)
class StorageCall:
    """A call, the bucket and object that its path names, and the Cloud Storage it is about."""

    call: Call
    storage: CloudStorage
    #: Path parameters as they were sent: an object's name may look like a project's and is left alone.
    params: Mapping[str, str]
    bucket: Resource

    @property
    def query(self) -> dict[str, Any]:
        return self.call.query

    @property
    def body(self) -> dict[str, Any]:
        return self.call.body

    @property
    def name(self) -> str:
        return self.params["object"]

    @property
    def preconditions(self) -> Preconditions:
        return Preconditions.from_query(self.call.query, self.call.request.headers)

    @property
    def generation(self) -> int | None:
        return number(self.call.query, "generation")

    def check(self, permission: str, name: str | None = None) -> None:
        self.storage.check(self.call.principal, permission, self.bucket, name, self.generation if name else None)

    def answer(self, found: StoredObject, *, full: bool = False) -> dict[str, Any]:
        """The object. `full` is the method's projection when the request names none."""
        key = encryption.supplied(self.call.request.headers)
        # Who may read an object but not its list is answered without the list.
        is_shown = _full(self.query, full) and self.storage.allows(
            self.call.principal, "storage.objects.getIamPolicy", self.bucket, found.name, found.generation
        )
        return self.storage.object_json(found, full=is_shown, key=key)

    def answer_bucket(self, bucket: Resource, *, full: bool = False) -> Resource:
        return _bucket(self.storage, self.call.principal, bucket, full=_full(self.query, full))


Behaviour = Callable[[StorageCall], Any]


def method(*ids: str, permission: str | None) -> Callable[[Behaviour], Behaviour]:
    """Register a method of a bucket or object, with the permission that it needs on what its path names."""

    def register(behaviour: Behaviour) -> Behaviour:
        @functools.wraps(behaviour)
        def handler(call: Call) -> Any:
            storage = of(call.region)
            params = call.params
            bucket = storage.objects.bucket(params["bucket"])
            request = StorageCall(call=call, storage=storage, params=params, bucket=bucket)
            if permission is not None:
                request.check(permission, params.get("object"))
            try:
                return behaviour(request)
            except (NotModified, RangeNotSatisfiable) as error:
                return refusal(error)

        service.method(*ids)(handler)
        return behaviour

    return register


@dataclass(frozen=True)
class BucketVersion:
    """A bucket as preconditions see it."""

    bucket: Mapping[str, Any]

    @property
    def generation(self) -> int:
        return int(self.bucket["generation"])

    @property
    def metageneration(self) -> int:
        return int(self.bucket["metageneration"])

    @property
    def etags(self) -> tuple[str, ...]:
        return (str(self.bucket["etag"]),)


# Buckets


@service.method("buckets.insert")
def insert_bucket(call: Call) -> Resource:
    _check_project(call, "storage.buckets.create")
    body = dict(call.body)
    if (body.get("hierarchicalNamespace") or {}).get("enabled"):
        raise Unimplemented("Hierarchical namespaces have no behaviour in localgcp.")
    if call.query.get("enableObjectRetention"):
        body["objectRetention"] = {"mode": "Enabled"}
    else:
        body.pop("objectRetention", None)
    number_ = call.region.project_number(call.project)
    bucket = buckets.created(body, project_number=number_, now=call.region.clock.now())
    try:
        with call.store.transaction():
            made = call.store.create(f"storage/b/{bucket['name']}", bucket)
            made = _with_lists(of(call.region), made, body, call.query, is_new=True)
        is_full = _full(call.query, bool(body.get("acl") or body.get("defaultObjectAcl")))
        return _bucket(of(call.region), call.principal, made, full=is_full)
    except AlreadyExists:
        taken = call.store.find(f"storage/b/{bucket['name']}")
        if taken is not None and taken["projectNumber"] == number_:
            message = "Your previous request to create the named bucket succeeded and you already own it."
        else:
            message = (
                "The requested bucket name is not available. The bucket namespace is shared by all users of the system."
                " Please select a different name and try again."
            )
        raise Aborted(message, reason="conflict") from None


@service.method("buckets.list")
def list_buckets(call: Call) -> dict[str, Any]:
    _check_project(call, "storage.buckets.list")
    project_number = call.region.project_number(call.project)
    prefix, after = call.query.get("prefix") or "", call.query.get("pageToken") or ""
    found = sorted(
        (
            bucket
            for bucket in call.store.list("storage", "b")
            if bucket["projectNumber"] == project_number
            and bucket["name"].startswith(prefix)
            and bucket["name"] > after
        ),
        key=lambda bucket: str(bucket["name"]),
    )
    if call.query.get("softDeleted"):
        found = []  # a deleted bucket is gone here: see the reference
    limit, storage = _limit(call.query), of(call.region)
    items = [_bucket(storage, call.principal, bucket, full=_full(call.query)) for bucket in found[:limit]]
    answer: dict[str, Any] = {"kind": "storage#buckets"} | ({"items": items} if items else {})
    if len(found) > limit:
        answer["nextPageToken"] = found[limit - 1]["name"]
    return answer


@method("buckets.get", permission="storage.buckets.get")
def get_bucket(request: StorageCall) -> Resource:
    if request.query.get("softDeleted"):
        raise NotFound("The specified bucket does not exist.")
    request.preconditions.check(BucketVersion(request.bucket), reading=True)
    return request.answer_bucket(request.bucket)


@method("buckets.patch", "buckets.update", permission="storage.buckets.update")
def change_bucket(request: StorageCall) -> Resource:
    if _names_lists(request.body, request.query):
        request.check("storage.buckets.setIamPolicy")
    with request.call.store.transaction():
        current = request.storage.objects.bucket(request.bucket["name"])
        request.preconditions.check(BucketVersion(current))
        whole = request.call.method.id == "buckets.update"
        changed = buckets.changed(current, request.body, whole=whole, now=request.call.region.clock.now())
        made = request.call.store.put(current.key, changed)
        made = _with_lists(request.storage, made, request.body, request.query)
    return request.answer_bucket(made, full=True)


@method("buckets.delete", permission="storage.buckets.delete")
def delete_bucket(request: StorageCall) -> None:
    name = request.bucket["name"]
    with request.call.store.transaction():
        current = request.storage.objects.bucket(name)
        request.preconditions.check(BucketVersion(current))
        if not request.storage.objects.is_empty(name):
            raise Aborted("The bucket you tried to delete is not empty.", reason="conflict")
        request.call.store.delete(current.key)
    request.storage.uploads.abort_in(name)
    request.storage.objects.forget_bucket(name)


@method("buckets.lockRetentionPolicy", permission="storage.buckets.update")
def lock_retention_policy(request: StorageCall) -> Resource:
    with request.call.store.transaction():
        current = request.storage.objects.bucket(request.bucket["name"])
        request.preconditions.check(BucketVersion(current))
        if "retentionPolicy" not in current:
            raise InvalidArgument("The bucket has no retention policy to lock.", reason="invalid")
        changed = buckets.changed(current, {}, whole=False, now=request.call.region.clock.now())
        changed["retentionPolicy"] = changed["retentionPolicy"] | {"isLocked": True}
        return request.answer_bucket(request.call.store.put(current.key, changed))


@method("buckets.getStorageLayout", permission="storage.objects.list")
def get_storage_layout(request: StorageCall) -> dict[str, Any]:
    layout = {
        key: request.bucket[key]
        for key in ("location", "locationType", "customPlacementConfig")
        if key in request.bucket
    }
    return {"kind": "storage#storageLayout", "bucket": request.bucket["name"], **layout}


def _full(query: Mapping[str, Any], default: bool = False) -> bool:
    """Whether a request asks for access controls too."""
    return bool(query["projection"] == "full") if query.get("projection") else default


def _bucket(storage: CloudStorage, principal: Principal, bucket: Resource, *, full: bool) -> Resource:
    """A bucket as it is answered; `full` adds its access controls, for who may see them."""
    shown = Resource(bucket.key, {name: value for name, value in bucket.items() if name != "defaultObjectAcl"})
    if full and storage.allows(principal, "storage.buckets.getIamPolicy", bucket):
        shown.update(storage.access_controls.bucket_fields(bucket))
    return shown


def _names_lists(body: Mapping[str, Any], query: Mapping[str, Any]) -> bool:
    return any(body.get(name) is not None for name in ("acl", "defaultObjectAcl")) or any(
        query.get(name) for name in ("predefinedAcl", "predefinedDefaultObjectAcl")
    )


def _with_lists(
    storage: CloudStorage,
    bucket: Resource,
    body: Mapping[str, Any],
    query: Mapping[str, Any],
    *,
    is_new: bool = False,
) -> Resource:
    """Keep the access control lists that a request describes; a bucket that is new begins with Google's."""
    controls = storage.access_controls
    given, predefined = body.get("acl"), query.get("predefinedAcl")
    default, predefined_default = body.get("defaultObjectAcl"), query.get("predefinedDefaultObjectAcl")
    if buckets.is_uniform(bucket):
        if given or predefined or default or predefined_default:
            raise InvalidArgument(f"Cannot use ACL API to update bucket policy {UNIFORM}", reason="invalid")
        return bucket
    if is_new and not given and not predefined:
        predefined = "projectPrivate"
    if given is not None or predefined:
        controls.set_bucket(bucket, controls.asked(access_controls.BUCKET, bucket, given, predefined))
    if default is not None or predefined_default:
        entries = controls.asked(access_controls.DEFAULT, bucket, default, predefined_default)
        return storage.region.store.put(bucket.key, {**bucket, "defaultObjectAcl": entries})
    return bucket


# Policies


@method("buckets.getIamPolicy", permission="storage.buckets.getIamPolicy")
def get_policy(request: StorageCall) -> dict[str, Any]:
    requested = number(request.query, "optionsRequestedPolicyVersion")
    return _policy(request, request.call.region.iam.get_policy(request.bucket.key, requested or 1))


@method("buckets.setIamPolicy", permission="storage.buckets.setIamPolicy")
def set_policy(request: StorageCall) -> dict[str, Any]:
    policy = {
        key: value
        for key, value in request.body.items()
        if key in ("bindings", "etag", "version") and value is not None
    }
    members = {member for binding in policy.get("bindings", ()) for member in binding.get("members") or ()}
    if members & PUBLIC and buckets.prevents_public_access(request.bucket):
        raise PreconditionFailed(
            "The member bindings allUsers and allAuthenticatedUsers are not allowed since public access prevention is"
            " enforced."
        )
    return _policy(request, request.call.region.iam.set_policy(request.bucket.key, policy))


@method("buckets.testIamPermissions", permission=None)
def test_permissions(request: StorageCall) -> dict[str, Any]:
    return _granted(request, None)


@method("objects.testIamPermissions", permission=None)
def test_object_permissions(request: StorageCall) -> dict[str, Any]:
    return _granted(request, request.name)


def _granted(request: StorageCall, name: str | None) -> dict[str, Any]:
    wanted = request.query.get("permissions") or []
    principal = request.call.principal
    granted = [each for each in wanted if request.storage.allows(principal, each, request.bucket, name)]
    answer: dict[str, Any] = {"kind": "storage#testIamPermissionsResponse"}
    return answer | ({"permissions": granted} if granted else {})


def _policy(request: StorageCall, policy: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": "storage#policy", "resourceId": f"projects/_/buckets/{request.bucket['name']}", **policy}


# Objects


@method("objects.list", permission="storage.objects.list")
def list_objects(request: StorageCall) -> dict[str, Any]:
    query = request.query
    if query.get("versions") and query.get("softDeleted"):
        raise InvalidArgument("versions and softDeleted cannot be specified together.", reason="invalid")
    page = request.storage.objects.page(
        request.bucket["name"],
        prefix=query.get("prefix") or "",
        delimiter=query.get("delimiter") or "",
        start_offset=query.get("startOffset") or "",
        end_offset=query.get("endOffset") or "",
        versions=bool(query.get("versions")),
        soft_deleted=bool(query.get("softDeleted")),
        include_trailing_delimiter=bool(query.get("includeTrailingDelimiter")),
        max_results=_limit(query),
        page_token=query.get("pageToken"),
        matches=globs.matcher(query["matchGlob"]) if query.get("matchGlob") else None,
        accepts=contexts.matcher(query["filter"]) if query.get("filter") else None,
    )
    answer: dict[str, Any] = {"kind": "storage#objects"}
    if page.items:
        answer["items"] = [request.answer(found) for found in page.items]
    if page.prefixes:
        answer["prefixes"] = page.prefixes
    if page.next_token:
        answer["nextPageToken"] = page.next_token
    return answer


@method("objects.get", permission=None)
def get_object(request: StorageCall) -> Any:
    principal, name = request.call.principal, request.name
    if request.query.get("alt") == "media":
        headers = request.call.request.headers
        is_head = request.call.request.method == "HEAD"
        return download(request.storage, principal, request.bucket["name"], name, request.query, headers, is_head)
    soft_deleted = bool(request.query.get("softDeleted"))
    _, found = request.storage.readable(
        principal, request.bucket["name"], name, request.generation, soft_deleted=soft_deleted
    )
    request.preconditions.check(found, reading=True)
    return request.answer(found)


@method("objects.insert", permission="storage.objects.create")
def insert_object(request: StorageCall) -> None:
    raise InvalidArgument(
        "An object is uploaded to /upload/storage/v1/b/<bucket>/o with an uploadType.", reason="wrongUrlForUpload"
    )


@method("objects.patch", "objects.update", permission="storage.objects.update")
def change_object(request: StorageCall) -> dict[str, Any]:
    request.check("storage.objects.get", request.name)
    override = str(request.query.get("overrideUnlockedRetention", "")).lower() == "true"
    if "retention" in request.body:
        request.check("storage.objects.setRetention", request.name)
    if override:
        request.check("storage.objects.overrideUnlockedRetention", request.name)
    if "contexts" in request.body:
        current = request.storage.objects.get(request.bucket["name"], request.name, request.generation)
        for permission in sorted(contexts.permissions(current.properties, request.body)):
            request.check(permission, request.name)
    given, predefined = request.body.get("acl"), request.query.get("predefinedAcl")
    acl = None
    if buckets.is_uniform(request.bucket):
        if given or predefined:
            raise InvalidArgument(f"Cannot update access control for an object {UNIFORM}", reason="invalid")
    elif given is not None or predefined:
        request.check("storage.objects.setIamPolicy", request.name)
        current = request.storage.objects.get(request.bucket["name"], request.name, request.generation)
        controls = request.storage.access_controls
        acl = controls.asked(
            access_controls.OBJECT,
            request.bucket,
            given,
            predefined,
            owner=current.properties.get("owner"),
            known=controls.of_object(request.bucket, current),
        )
    changed = request.storage.objects.change(
        request.bucket["name"],
        request.name,
        request.body,
        generation=request.generation,
        preconditions=request.preconditions,
        whole=request.call.method.id == "objects.update",
        override_unlocked_retention=override,
        acl=acl,
    )
    return request.answer(changed, full=True)


@method("objects.delete", permission="storage.objects.delete")
def delete_object(request: StorageCall) -> None:
    request.storage.objects.delete(
        request.bucket["name"], request.name, generation=request.generation, preconditions=request.preconditions
    )


@method("objects.restore", permission="storage.objects.restore")
def restore_object(request: StorageCall) -> dict[str, Any]:
    generation = request.generation
    if generation is None:
        raise InvalidArgument("Required parameter: generation", reason="required", location="generation")
    bucket = request.bucket["name"]
    kept: Mapping[str, Any] = {}
    if request.query.get("copySourceAcl"):
        source = request.storage.objects.get_soft_deleted(bucket, request.name, generation)
        entries = request.storage.access_controls.of_object(request.bucket, source)
        kept = {"acl": [{"entity": entity, "role": role} for entity, role in entries.items()]}
    allow = request.storage.writing(request.call.principal, bucket, request.name, kept)
    restored = request.storage.objects.restore(
        bucket, request.name, generation, preconditions=request.preconditions, allow=allow
    )
    return request.answer(restored, full=True)


@service.method("objects.copy", "objects.rewrite")
def copy_object(call: Call) -> dict[str, Any]:
    storage = of(call.region)
    params = call.params
    target_bucket, target = params["destinationBucket"], params["destinationObject"]
    _, source = storage.readable(
        call.principal, params["sourceBucket"], params["sourceObject"], number(call.query, "sourceGeneration")
    )
    Preconditions.from_query(call.query, prefix="ifSource").check(source)
    headers = call.request.headers
    # A rewrite may change the key; a copy has one for both objects.
    source_headers = encryption.SOURCE_HEADERS if call.method.id == "objects.rewrite" else encryption.HEADERS
    encryption.check(source, encryption.supplied(headers, source_headers))
    predefined = call.query.get("destinationPredefinedAcl")
    allow = storage.writing(call.principal, target_bucket, target, call.body, predefined)
    target_path = f"{target_bucket}/{target}"
    if call.method.id == "objects.rewrite":
        is_far = _is_far(storage, source, target_bucket, call.body.get("storageClass"))
        position = rewrites.rewritten_bytes(call.query, source, target_path, is_far=is_far)
        if position < source.size:
            return {
                "kind": "storage#rewriteResponse",
                "totalBytesRewritten": str(position),
                "objectSize": str(source.size),
                "done": False,
                "rewriteToken": rewrites.token(call.query, source, target_path, position),
            }
    # Any metadata in the body replaces all of the source's.
    described = {
        key: value for key, value in call.body.items() if key in WRITABLE | {"storageClass"} and value is not None
    }
    stored = storage.objects.copy(
        source,
        target_bucket,
        target,
        described or None,
        encrypted=encrypted_with(call.query.get("destinationKmsKeyName"), headers),
        preconditions=Preconditions.from_query(call.query),
        allow=allow,
    )
    full = _full(call.query, bool(call.body.get("acl")))
    resource = storage.object_json(stored, full=full, key=encryption.key_of(stored))
    if call.method.id == "objects.copy":
        return resource
    return {
        "kind": "storage#rewriteResponse",
        "totalBytesRewritten": str(stored.size),
        "objectSize": str(stored.size),
        "done": True,
        "resource": resource,
    }


def _is_far(storage: CloudStorage, source: StoredObject, target_bucket: str, storage_class: str | None) -> bool:
    """Whether a rewrite leaves the location or the storage class of its source."""
    near, far = storage.objects.bucket(source.bucket), storage.objects.bucket(target_bucket)
    return (near["location"], source.storage_class) != (far["location"], storage_class or far["storageClass"])


@service.method("objects.compose")
def compose_objects(call: Call) -> dict[str, Any]:
    storage = of(call.region)
    params = call.params
    bucket_name, name = params["destinationBucket"], params["destinationObject"]
    bucket = storage.objects.bucket(bucket_name)
    destination = dict(call.body.get("destination") or {})
    for field in ("kmsKeyName", "customerEncryption"):
        destination.pop(field, None)
    encrypted = encrypted_with(call.query.get("kmsKeyName"), call.request.headers)
    predefined = call.query.get("destinationPredefinedAcl")
    allow = storage.writing(call.principal, bucket_name, name, destination, predefined)
    sources: list[tuple[str, int | None, int | None]] = []
    for source in call.body.get("sourceObjects") or []:
        if not source.get("name"):
            raise InvalidArgument("Required", reason="required", location="sourceObjects.name")
        storage.check(call.principal, "storage.objects.get", bucket, source["name"])
        if call.body.get("deleteSourceObjects"):
            storage.check(call.principal, "storage.objects.delete", bucket, source["name"])
        expected = number(source.get("objectPreconditions") or {}, "ifGenerationMatch")
        sources.append((source["name"], number(source, "generation"), expected))
    composed = storage.objects.compose(
        bucket_name,
        name,
        sources,
        destination | encrypted,
        key=encryption.supplied(call.request.headers),
        preconditions=Preconditions.from_query(call.query),
        allow=allow,
        delete_sources=bool(call.body.get("deleteSourceObjects")),
    )
    return storage.objects.to_json(composed, key=encryption.key_of(composed))


@service.method("objects.move")
def move_object(call: Call) -> dict[str, Any]:
    storage = of(call.region)
    params = call.params
    bucket_name, source_name, name = params["bucket"], params["sourceObject"], params["destinationObject"]
    bucket, source = storage.readable(call.principal, bucket_name, source_name)
    storage.check(call.principal, "storage.objects.move", bucket, source_name)
    encryption.check(source, encryption.supplied(call.request.headers))
    Preconditions.from_query(call.query, prefix="ifSource").check(source)
    allow = storage.writing(call.principal, bucket_name, name, {})
    moved = storage.objects.move(source, name, preconditions=Preconditions.from_query(call.query), allow=allow)
    return storage.objects.to_json(moved, key=encryption.key_of(moved))


# Access control lists


@dataclass(frozen=True, kw_only=True)
class AccessList:
    """The list that a call's path names, as it is at this moment."""

    request: StorageCall
    kind: access_controls.Kind
    bucket: Resource
    found: StoredObject | None
    entries: access_controls.Entries

    def entity(self) -> str:
        """The entity that the path names. Raises NotFound when it has no entry."""
        entity = self.request.storage.access_controls.entity(self.request.params["entity"])
        if entity not in self.entries:
            raise NotFound(f"The access control list has no entry for '{entity}'.")
        return entity

    def entry(self, entity: str) -> dict[str, Any]:
        controls = self.request.storage.access_controls
        return controls.resource(self.kind, self.bucket, entity, self.entries[entity], self.found)

    def changed(self, changes: Mapping[str, Any]) -> "AccessList":
        """Write the list with other roles; None takes an entry away. Raises InvalidArgument, PreconditionFailed."""
        storage, owner = self.request.storage, self.found.properties.get("owner") if self.found else None
        roles = {**self.entries, **changes}
        given = [{"entity": entity, "role": role} for entity, role in roles.items() if role is not None]
        entries = storage.access_controls.asked(self.kind, self.bucket, given, owner=owner, known=self.entries)
        if self.found is not None:
            name, generation = self.found.name, self.found.generation
            storage.objects.change(self.bucket["name"], name, {}, generation=generation, acl=entries)
        else:
            properties = buckets.changed(self.bucket, {}, whole=False, now=storage.region.clock.now())
            if self.kind is access_controls.BUCKET:
                storage.access_controls.set_bucket(self.bucket, entries)
            else:
                properties["defaultObjectAcl"] = entries
            storage.region.store.put(self.bucket.key, properties)
        return _access_list(self.request)


KINDS = {
    "bucketAccessControls": access_controls.BUCKET,
    "defaultObjectAccessControls": access_controls.DEFAULT,
    "objectAccessControls": access_controls.OBJECT,
}


def of_lists(*verbs: str) -> list[str]:
    return [f"{collection}.{verb}" for collection in KINDS for verb in verbs]


@method(*of_lists("list"), permission=None)
def list_access_controls(request: StorageCall) -> dict[str, Any]:
    _check_list(request, "getIamPolicy")
    found = _access_list(request)
    return {"kind": f"{found.kind.resource}s", "items": [found.entry(entity) for entity in found.entries]}


@method(*of_lists("get"), permission=None)
def get_access_control(request: StorageCall) -> dict[str, Any]:
    _check_list(request, "getIamPolicy")
    found = _access_list(request)
    return found.entry(found.entity())


@method(*of_lists("insert"), permission=None)
def insert_access_control(request: StorageCall) -> dict[str, Any]:
    _check_list(request, "setIamPolicy", "update")
    entity = request.storage.access_controls.entity(request.body.get("entity"))
    with request.call.store.transaction():
        return _access_list(request).changed({entity: request.body.get("role") or ""}).entry(entity)


@method(*of_lists("patch", "update"), permission=None)
def change_access_control(request: StorageCall) -> dict[str, Any]:
    _check_list(request, "setIamPolicy", "update")
    with request.call.store.transaction():
        found = _access_list(request)
        entity = found.entity()
        return found.changed({entity: request.body.get("role") or found.entries[entity]}).entry(entity)


@method(*of_lists("delete"), permission=None)
def delete_access_control(request: StorageCall) -> None:
    _check_list(request, "setIamPolicy", "update")
    with request.call.store.transaction():
        found = _access_list(request)
        found.changed({found.entity(): None})


def _check_list(request: StorageCall, *verbs: str) -> None:
    """Raises PermissionDenied, and InvalidArgument under uniform access."""
    name = request.params.get("object")
    noun = "bucket" if name is None else "object"
    for verb in verbs:
        request.check(f"storage.{noun}s.{verb}", name)
    if buckets.is_uniform(request.bucket):
        action = "get" if verbs == ("getIamPolicy",) else "update"
        raise InvalidArgument(f"Cannot use ACL API to {action} {noun} policy {UNIFORM}", reason="invalid")


def _access_list(request: StorageCall) -> AccessList:
    storage, controls = request.storage, request.storage.access_controls
    kind = KINDS[request.call.method.id.partition(".")[0]]
    bucket, found = storage.objects.bucket(request.bucket["name"]), None
    match kind:
        case access_controls.OBJECT:
            found = storage.objects.get(bucket["name"], request.name, request.generation)
            entries = controls.of_object(bucket, found)
        case access_controls.DEFAULT:
            entries = controls.default_of(bucket)
        case _:
            entries = controls.of_bucket(bucket)
    return AccessList(request=request, kind=kind, bucket=bucket, found=found, entries=entries)


# Notifications: kept, for there is no Pub/Sub here to publish to


@method("notifications.insert", permission="storage.buckets.update")
def insert_notification(request: StorageCall) -> Resource:
    key = request.bucket.key
    with request.call.store.transaction():
        request.storage.objects.bucket(request.bucket["name"])
        body = buckets.notification(request.body)
        identifier = str(request.call.store.increment(key, "notification"))
        link = f"https://www.googleapis.com/storage/v1/b/{request.bucket['name']}/notificationConfigs/{identifier}"
        body |= {"kind": "storage#notification", "id": identifier, "etag": identifier, "selfLink": link}
        return request.call.store.create(f"{key}/notificationConfigs/{identifier}", body)


@method("notifications.list", permission="storage.buckets.get")
def list_notifications(request: StorageCall) -> dict[str, Any]:
    items = request.call.store.list(request.bucket.key, "notificationConfigs")
    return {"kind": "storage#notifications"} | ({"items": items} if items else {})


@method("notifications.get", permission="storage.buckets.get")
def get_notification(request: StorageCall) -> Resource:
    return _notification(request)


@method("notifications.delete", permission="storage.buckets.update")
def delete_notification(request: StorageCall) -> None:
    request.call.store.delete(_notification(request).key)


def _notification(request: StorageCall) -> Resource:
    identifier = request.params["notification"]
    found = request.call.store.find(f"{request.bucket.key}/notificationConfigs/{identifier}")
    if found is None:
        raise NotFound(f"Notification {identifier} not found.")
    return found


# HMAC keys


@service.method("projects.hmacKeys.create")
def create_hmac_key(call: Call) -> dict[str, Any]:
    project = _hmac_project(call, "storage.hmacKeys.create")
    email = call.query["serviceAccountEmail"]
    if not accounts.exists(call.store, email):
        raise NotFound(f"Service account {email} does not exist.")
    key, secret = of(call.region).hmac_keys.create(project, email)
    return {"kind": "storage#hmacKey", "metadata": _hmac_answer(key), "secret": secret}


@service.method("projects.hmacKeys.get")
def get_hmac_key(call: Call) -> dict[str, Any]:
    project = _hmac_project(call, "storage.hmacKeys.get")
    return _hmac_answer(of(call.region).hmac_keys.get(project, call.params["accessId"]))


@service.method("projects.hmacKeys.list")
def list_hmac_keys(call: Call) -> dict[str, Any]:
    project = _hmac_project(call, "storage.hmacKeys.list")
    keys = of(call.region).hmac_keys.list(
        project, call.query.get("serviceAccountEmail"), deleted=bool(call.query.get("showDeletedKeys"))
    )
    after, limit = call.query.get("pageToken") or "", min(_limit(call.query), 250)
    found = [key for key in sorted(keys, key=lambda key: str(key["accessId"])) if key["accessId"] > after]
    answer: dict[str, Any] = {"kind": "storage#hmacKeysMetadata", "items": [_hmac_answer(key) for key in found[:limit]]}
    return answer | ({"nextPageToken": found[limit - 1]["accessId"]} if len(found) > limit else {})


@service.method("projects.hmacKeys.update")
def update_hmac_key(call: Call) -> dict[str, Any]:
    project = _hmac_project(call, "storage.hmacKeys.update")
    return _hmac_answer(of(call.region).hmac_keys.update(project, call.params["accessId"], call.body))


@service.method("projects.hmacKeys.delete")
def delete_hmac_key(call: Call) -> None:
    project = _hmac_project(call, "storage.hmacKeys.delete")
    of(call.region).hmac_keys.delete(project, call.params["accessId"])


def _hmac_project(call: Call, permission: str) -> str:
    project = call.region.project_id(call.params["projectId"])
    call.check(permission, f"cloudresourcemanager/projects/{project}")
    return project


def _hmac_answer(key: Resource) -> dict[str, Any]:
    link = f"https://www.googleapis.com/storage/v1/projects/{key['projectId']}/hmacKeys/{key['accessId']}"
    return {name: value for name, value in key.items() if name != "_localgcp"} | {"selfLink": link}


# What is answered without behaviour, and what is refused


@service.method("projects.serviceAccount.get")
def get_service_account(call: Call) -> dict[str, Any]:
    project = call.region.project_id(call.params["projectId"])
    call.check("resourcemanager.projects.get", f"cloudresourcemanager/projects/{project}")
    email = f"service-{call.region.project_number(project)}@gs-project-accounts.iam.gserviceaccount.com"
    return {"kind": "storage#serviceAccount", "email_address": email}


@method("anywhereCaches.list", permission="storage.anywhereCaches.list")
def list_caches(request: StorageCall) -> dict[str, Any]:
    return {"kind": "storage#anywhereCaches", "items": []}


@method("objects.getIamPolicy", "objects.setIamPolicy", permission=None)
def refuse_object_policies(request: StorageCall) -> None:
    if request.call.principal.is_anonymous:
        raise request.storage.refusal(request.call.principal, "storage.buckets.getIamPolicy", request.bucket)
    if buckets.is_uniform(request.bucket):
        action = "get" if request.call.request.method == "GET" else "update"
        raise InvalidArgument(f"Cannot use ACL API to {action} object policy {UNIFORM}", reason="invalid")
    raise Unimplemented("Objects have no policies in localgcp: grant roles on the bucket, or an access control list.")


def _refused(call: Call) -> None:
    if call.principal.is_anonymous:
        raise Unauthenticated(f"Anonymous caller does not have access to storage.{call.method.id}.", reason="required")
    raise Unimplemented(f"storage.{call.method.id} has no behaviour in localgcp.")


for _method in discovery.load("storage:v1").methods:
    service.handlers.setdefault(_method, _refused)


# Time


@service.on_start
async def start(region: Region) -> None:
    storage = of(region)
    await region.run_in_thread(storage.recover)
    region.spawn(_apply_lifecycle(region))


async def _apply_lifecycle(region: Region) -> None:
    while True:
        await asyncio.sleep(LIFECYCLE_INTERVAL.total_seconds())
        await region.run_in_thread(of(region).apply_lifecycle)


@service.on_stop
async def stop(region: Region) -> None:
    of(region).uploads.close()


def _check_project(call: Call, permission: str) -> None:
    """Raises as Google words it for a permission on the project."""
    if not call.region.iam.allows(call.principal, permission, f"cloudresourcemanager/projects/{call.project}"):
        who = call.principal.email or "Anonymous caller"
        message = (
            f"{who} does not have {permission} access to the Google Cloud project. Permission '{permission}' denied on"
            " resource (or it may not exist)."
        )
        refusal: type[ApiError] = Unauthenticated if call.principal.is_anonymous else PermissionDenied
        raise refusal(message, reason="required" if call.principal.is_anonymous else "forbidden")


def _limit(query: Mapping[str, Any]) -> int:
    limit = query.get("maxResults")
    if limit is not None and limit < 0:
        raise InvalidArgument(f"Invalid value for maxResults: {limit}", reason="invalid", location="maxResults")
    return min(limit or 1000, 1000)
