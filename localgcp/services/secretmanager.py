"""Secret Manager: what a version does. Secrets themselves are plain resources, and the generic store serves them.

Not here: Pub/Sub notifications of rotations (topics are kept, nothing is published) and managed rotation.
"""

import base64
import re
import secrets
from datetime import datetime, timedelta
from typing import Any

import google_crc32c

from localgcp import generic, labels
from localgcp.clock import moment, seconds, timestamp
from localgcp.errors import AlreadyExists, ApiError, FailedPrecondition, InvalidArgument, NotFound
from localgcp.service import Call, Service
from localgcp.store import Resource, Store

MAX_PAYLOAD_BYTES = 64 * 1024  # discovery document, SecretPayload.data
MAX_ALIASES = 50  # discovery document, Secret.versionAliases
MAX_ANNOTATION_BYTES = 16 * 1024  # discovery document, Secret.annotations
MAX_DURATION_SECONDS = 3_153_600_000  # a hundred years, as the discovery document limits rotation periods

_SECRET_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")
_TOPIC = re.compile(r"projects/[^/]+/topics/[^/]+")
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_IMMUTABLE = ("replication", "name", "createTime", "customerManagedEncryption")

_TABLE = "CREATE TABLE IF NOT EXISTS secret_payloads (key TEXT PRIMARY KEY, payload BLOB NOT NULL);"

service = Service("secretmanager:v1")
for _parent in ("projects", "projects.locations"):
    service.allow("secretmanager.secrets", f"{_parent}.secrets", addVersion="secretmanager.versions.add")
    for _verb in ("get", "list", "access", "enable", "disable", "destroy"):
        service.permissions[f"{_parent}.secrets.versions.{_verb}"] = f"secretmanager.versions.{_verb}"
service.permissions["projects.locations.get"] = "secretmanager.locations.get"
service.permissions["projects.locations.list"] = "secretmanager.locations.list"


@service.method("projects.secrets.create", "projects.locations.secrets.create")
def create_secret(call: Call) -> Resource:
    secret_id = str(call.query.get("secretId") or "")
    if not _SECRET_ID.fullmatch(secret_id):
        raise InvalidArgument("Secret ID must match the pattern '[a-zA-Z_0-9]+' and hold 1 to 255 characters.")
    key = f"{call.key}/secrets/{secret_id}"
    body = {name: value for name, value in call.body.items() if value is not None}
    _check_replication(body, is_regional=call.location is not None)
    if body.get("versionAliases"):
        raise FailedPrecondition("A secret without versions cannot have version aliases.")
    _check_described(body)
    _check_rotation(body)
    _fix_expiry(call, body)
    body["name"] = _numbered(call, key)
    body["createTime"] = timestamp(call.region.clock.now())
    body["etag"] = _new_etag()
    with call.store.transaction():
        existing = call.store.find(key)
        if existing is not None and not _purge_when_expired(call, existing):
            raise AlreadyExists(f"Secret [{body['name']}] already exists.")
        return call.store.create(key, body)


@service.method("projects.secrets.get", "projects.locations.secrets.get")
def get_secret(call: Call) -> Resource:
    return _secret(call, call.key)


@service.method("projects.secrets.list", "projects.locations.secrets.list")
def list_secrets(call: Call) -> dict[str, Any]:
    found = [secret for secret in call.store.list(call.key, "secrets") if not _purge_when_expired(call, secret)]
    answer = generic.page(call, list(reversed(found)))
    if found and not call.query.get("filter"):
        answer["totalSize"] = len(found)
    return answer


@service.method("projects.secrets.patch", "projects.locations.secrets.patch")
def patch_secret(call: Call) -> Resource:
    mask = call.query.get("updateMask")
    if not mask:
        raise InvalidArgument("updateMask is required.", reason="required", location="updateMask")
    for name in _IMMUTABLE:
        if name in [field.strip() for field in str(mask).split(",")]:
            raise InvalidArgument(f"The field '{name}' of a secret is immutable: remove it from the update mask.")
    with call.store.transaction():
        current = _secret(call, call.key)
        _check_etag(current, call.body.pop("etag", None))
        call.proceed()
        changed = call.store.get(call.key)
        _check_described(changed)
        _check_rotation(changed)
        _check_aliases(call, changed)
        _fix_expiry(call, changed)
        changed["etag"] = _new_etag()
        return call.store.put(call.key, changed)


@service.method("projects.secrets.delete", "projects.locations.secrets.delete")
def delete_secret(call: Call) -> dict[str, Any]:
    with call.store.transaction():
        _check_etag(_secret(call, call.key), call.query.get("etag"))
        _delete(call, call.key)
    return {}


@service.method("projects.secrets.addVersion", "projects.locations.secrets.addVersion")
def add_version(call: Call) -> Resource:
    payload = call.body.get("payload") or {}
    data = _decoded(payload.get("data"))
    checksum = payload.get("dataCrc32c")
    if checksum is not None and int(checksum) != google_crc32c.value(data):
        raise InvalidArgument(
            "The checksum provided in the request does not match the one computed for the payload:"
            f" {checksum} was given, {google_crc32c.value(data)} was computed."
        )
    with call.store.transaction() as tx:
        secret = _secret(call, call.key)
        # A counter on the secret, not a count of versions: a number is never given out twice.
        number = call.store.increment(call.key, "versionCount")
        version: dict[str, Any] = {
            "name": f"{secret['name']}/versions/{number}",
            "createTime": timestamp(call.region.clock.now()),
            "state": "ENABLED",
        }
        if "replication" in secret:
            version["replicationStatus"] = _replication_status(secret["replication"])
        if checksum is not None:
            version["clientSpecifiedPayloadChecksum"] = True
        version["etag"] = _new_etag()
        created = call.store.create(f"{call.key}/versions/{number}", version)
        tx.execute("INSERT INTO secret_payloads (key, payload) VALUES (?, ?)", (created.key, data))
    return created


@service.method("projects.secrets.versions.get", "projects.locations.secrets.versions.get")
def get_version(call: Call) -> Resource:
    return _version(call, call.key)


@service.method("projects.secrets.versions.list", "projects.locations.secrets.versions.list")
def list_versions(call: Call) -> dict[str, Any]:
    _secret(call, call.key)
    found = [_settled(call, version) for version in call.store.list(call.key, "versions")]
    answer = generic.page(call, list(reversed(found)))
    if found and not call.query.get("filter"):
        answer["totalSize"] = len(found)
    return answer


@service.method("projects.secrets.versions.access", "projects.locations.secrets.versions.access")
def access_version(call: Call) -> dict[str, Any]:
    # `latest` is the newest version even when it is disabled. Falling back to the one before would hand out the
    # very value that somebody has just replaced.
    version = _version(call, call.key)
    return {"name": version["name"], "payload": _payload(call.store, version)}


@service.method("projects.secrets.versions.enable", "projects.locations.secrets.versions.enable")
def enable_version(call: Call) -> Resource:
    return _change_state(call, "ENABLED")


@service.method("projects.secrets.versions.disable", "projects.locations.secrets.versions.disable")
def disable_version(call: Call) -> Resource:
    return _change_state(call, "DISABLED")


@service.method("projects.secrets.versions.destroy", "projects.locations.secrets.versions.destroy")
def destroy_version(call: Call) -> Resource:
    with call.store.transaction():
        version = _version(call, call.key)
        _check_etag(version, call.body.get("etag"))
        if version["state"] == "DESTROYED":
            raise FailedPrecondition(f"Secret Version [{version['name']}] is already in DESTROYED state.")
        delay = _secret(call, _secret_key(version.key)).get("versionDestroyTtl")
        if delay is None:
            return _destroy(call, version, call.region.clock.now())
        when = call.region.clock.now() + _duration(delay)
        version |= {"state": "DISABLED", "scheduledDestroyTime": timestamp(when), "etag": _new_etag()}
        return call.store.put(version.key, version)


@service.on_start
async def declare_tables(region: Any) -> None:
    region.store.define(_TABLE)


def access(region: Any, name: str) -> bytes:
    """The payload of `projects/…/secrets/…/versions/…`, for services that resolve secrets as an identity of theirs.

    Raises NotFound or FailedPrecondition as `versions.access` does. The caller checks
    `secretmanager.versions.access` on `secretmanager/<name>` first.
    """
    store: Store = region.store
    key = "secretmanager/" + region.with_project_ids(name)
    secret_key, _, number = key.rpartition("/versions/")
    secret = store.find(secret_key)
    if secret is None:
        raise NotFound(f"Secret [{name.rpartition('/versions/')[0]}] not found or has no versions.")
    version = store.find(_resolved(store, secret, number))
    if version is None:
        raise NotFound(f"Secret Version [{name}] not found.")
    return base64.b64decode(_payload(store, version)["data"])


def _payload(store: Store, version: Resource) -> dict[str, str]:
    if version["state"] != "ENABLED":
        raise FailedPrecondition(f"Secret Version [{version['name']}] is in {version['state']} state.")
    row = store.row("SELECT payload FROM secret_payloads WHERE key = ?", (version.key,))
    if row is None:
        raise NotFound(f"Secret Version [{version['name']}] not found.")
    data = bytes(row["payload"])
    return {"data": base64.b64encode(data).decode(), "dataCrc32c": str(google_crc32c.value(data))}


def _change_state(call: Call, state: str) -> Resource:
    with call.store.transaction():
        version = _version(call, call.key)
        _check_etag(version, call.body.get("etag"))
        if version["state"] == "DESTROYED":
            raise FailedPrecondition(f"Secret Version [{version['name']}] is in DESTROYED state.")
        if version["state"] == state and "scheduledDestroyTime" not in version:
            return version
        version.pop("scheduledDestroyTime", None)
        version |= {"state": state, "etag": _new_etag()}
        return call.store.put(version.key, version)


def _destroy(call: Call, version: Resource, when: datetime) -> Resource:
    version.pop("scheduledDestroyTime", None)
    version |= {"state": "DESTROYED", "destroyTime": timestamp(when), "etag": _new_etag()}
    with call.store.transaction() as tx:
        tx.execute("DELETE FROM secret_payloads WHERE key = ?", (version.key,))
        return call.store.put(version.key, version)


def _settled(call: Call, version: Resource) -> Resource:
    """The version as it is by now: one whose time of destruction has come is destroyed."""
    scheduled = version.get("scheduledDestroyTime")
    if scheduled is None or moment(scheduled) > call.region.clock.now():
        return version
    return _destroy(call, version, moment(scheduled))


def _secret(call: Call, key: str) -> Resource:
    secret = call.store.find(key)
    if secret is None or _purge_when_expired(call, secret):
        raise NotFound(f"Secret [{_numbered(call, key)}] not found.")
    return secret


def _version(call: Call, key: str) -> Resource:
    secret_key, _, number = key.rpartition("/versions/")
    secret = call.store.find(secret_key)
    if secret is None or _purge_when_expired(call, secret):
        raise NotFound(f"Secret [{_numbered(call, secret_key)}] not found or has no versions.")
    version = call.store.find(_resolved(call.store, secret, number))
    if version is None:
        if number == "latest":
            raise NotFound(f"Secret [{secret['name']}] not found or has no versions.")
        raise NotFound(f"Secret Version [{secret['name']}/versions/{number}] not found.")
    return _settled(call, version)


def _resolved(store: Store, secret: Resource, number: str) -> str:
    """The key of the version that a number, an alias or `latest` stands for; it may not exist."""
    if number == "latest":
        row = store.row(
            "SELECT key FROM resources WHERE collection = ? ORDER BY seq DESC LIMIT 1", (f"{secret.key}/versions",)
        )
        return row["key"] if row else f"{secret.key}/versions/latest"
    return f"{secret.key}/versions/{secret.get('versionAliases', {}).get(number, number)}"


def _secret_key(version_key: str) -> str:
    return version_key.rpartition("/versions/")[0]


def _purge_when_expired(call: Call, secret: Resource) -> bool:
    """A secret that has expired does not exist any more, whether or not anybody asked since."""
    expires = secret.get("expireTime")
    if expires is None or moment(expires) > call.region.clock.now():
        return False
    _delete(call, secret.key)
    return True


def _delete(call: Call, key: str) -> None:
    with call.store.transaction() as tx:
        tx.execute("DELETE FROM secret_payloads WHERE key >= ? AND key < ?", (key + "/", key + "0"))
        call.store.delete(key)


def _numbered(call: Call, key: str) -> str:
    """Secret Manager answers names with the project's number, whichever the request had."""
    name = key.partition("/")[2]
    return name.replace(f"projects/{call.project}", f"projects/{call.region.project_number(call.project)}", 1)


def _check_replication(body: dict[str, Any], *, is_regional: bool) -> None:
    replication = body.get("replication") or {}
    chosen = [name for name in ("automatic", "userManaged") if replication.get(name) is not None]
    if is_regional:
        if chosen:
            raise InvalidArgument("A regional secret must not have a replication policy.")
        return
    if len(chosen) != 1:
        raise InvalidArgument("Secret.replication must be set to either automatic or userManaged.")
    if chosen == ["userManaged"] and not replication["userManaged"].get("replicas"):
        raise InvalidArgument("A user managed replication policy must have at least one replica.")
    body["replication"] = {chosen[0]: replication[chosen[0]]}


def _check_described(body: dict[str, Any]) -> None:
    labels.check(body.get("labels") or {}, "secret")
    size = sum(len(text.encode()) for item in (body.get("annotations") or {}).items() for text in item)
    if size >= MAX_ANNOTATION_BYTES:
        raise InvalidArgument(f"The annotations of a secret must have less than 16 KiB, got {size} bytes.")
    for topic in body.get("topics") or []:
        if not _TOPIC.fullmatch(topic.get("name", "")):
            raise InvalidArgument(f"A topic is named projects/*/topics/*, got '{topic.get('name', '')}'.")


def _check_rotation(body: dict[str, Any]) -> None:
    if body.get("rotation") and not body.get("topics"):
        raise InvalidArgument("Secret.topics must be set to configure a rotation.")


def _check_aliases(call: Call, secret: Resource) -> None:
    aliases = secret.get("versionAliases") or {}
    if len(aliases) > MAX_ALIASES:
        raise InvalidArgument(f"A secret can have at most {MAX_ALIASES} version aliases.")
    for alias, number in aliases.items():
        if not _ALIAS.fullmatch(alias) or alias in ("latest", "new"):
            raise InvalidArgument(f"'{alias}' cannot be a version alias.")
        if not call.store.exists(f"{secret.key}/versions/{number}"):
            raise FailedPrecondition(f"The version {number} of alias '{alias}' does not exist.")


def _fix_expiry(call: Call, body: dict[str, Any]) -> None:
    """`ttl` is input only: what is kept, and answered, is the moment."""
    ttl = body.pop("ttl", None)
    if ttl is not None:
        body["expireTime"] = timestamp(call.region.clock.now() + _duration(ttl))
    if body.get("expireTime") and moment(body["expireTime"]) <= call.region.clock.now():
        raise InvalidArgument(f"Secret.expireTime must be in the future, got {body['expireTime']}.")
    delay = body.get("versionDestroyTtl")
    if delay is not None and _duration(delay) < timedelta(days=1):
        raise InvalidArgument("Secret.versionDestroyTtl must be at least 24 hours.")


def _check_etag(current: Resource, given: Any) -> None:
    if given and given != current["etag"]:
        raise _etag_mismatch(str(given), current)


def _etag_mismatch(given: str, current: Resource) -> ApiError:
    return FailedPrecondition(
        f"The etag you provided in the request, {given}, does not match the current etag of [{current['name']}],"
        f" {current['etag']}, usually indicating that another request has been made that updates it."
    )


def _replication_status(replication: dict[str, Any]) -> dict[str, Any]:
    if "automatic" in replication:
        return {"automatic": {}}
    replicas = [{"location": replica["location"]} for replica in replication["userManaged"]["replicas"]]
    return {"userManaged": {"replicas": replicas}}


def _decoded(text: Any) -> bytes:
    data = base64.b64decode(text or "")
    if not 0 < len(data) <= MAX_PAYLOAD_BYTES:
        raise InvalidArgument(f"The payload must hold 1 to {MAX_PAYLOAD_BYTES} bytes, got {len(data)}.")
    return data


def _duration(text: str) -> timedelta:
    """Raises InvalidArgument for what leads out of the calendar, or into the past."""
    length = seconds(text)
    if not 0 <= length <= MAX_DURATION_SECONDS:
        raise InvalidArgument(f"'{text}' is not a duration of 0 to {MAX_DURATION_SECONDS} seconds.")
    return timedelta(seconds=length)


def _new_etag() -> str:
    return f'"{secrets.token_hex(7)}"'
