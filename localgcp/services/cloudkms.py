"""Cloud KMS: symmetric keys, their versions and rotation, encryption with AES-256-GCM.

Not here: keys for signing, MACs and imports. Creating one is refused: nothing seems protected that is not.
"""

import base64
import os
import struct
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import google_crc32c
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from localgcp import generic
from localgcp.clock import moment, seconds, timestamp
from localgcp.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from localgcp.service import Call, Service
from localgcp.store import Resource

MAX_PLAINTEXT_BYTES = 64 * 1024  # discovery document, EncryptRequest.plaintext

_TABLE = "CREATE TABLE IF NOT EXISTS kms_key_material (key TEXT PRIMARY KEY, material BLOB NOT NULL);"
_RINGS = "projects.locations.keyRings"
_KEYS = f"{_RINGS}.cryptoKeys"
_VERSIONS = f"{_KEYS}.cryptoKeyVersions"
_ALGORITHM = "GOOGLE_SYMMETRIC_ENCRYPTION"
_DESTROY_DAYS = "2592000s"
_HEADER = struct.Struct(">BI")  # format 1, number of the version
_NONCE_BYTES = 12

service = Service("cloudkms:v1")
service.allow("cloudkms.keyRings", _RINGS)
service.allow(
    "cloudkms.cryptoKeys",
    _KEYS,
    encrypt="cloudkms.cryptoKeyVersions.useToEncrypt",
    decrypt="cloudkms.cryptoKeyVersions.useToDecrypt",
    updatePrimaryVersion="cloudkms.cryptoKeys.update",
)
service.allow(
    "cloudkms.cryptoKeyVersions",
    _VERSIONS,
    destroy="cloudkms.cryptoKeyVersions.destroy",
    restore="cloudkms.cryptoKeyVersions.restore",
)
# Nothing of KMS could be deleted for its first years, and the provider still does not: a ring and its names stay.
for _collection in (_RINGS, _KEYS, _VERSIONS):
    del service.permissions[f"{_collection}.delete"]
service.permissions |= {
    "projects.locations.get": "cloudkms.locations.get",
    "projects.locations.list": "cloudkms.locations.list",
    "projects.locations.generateRandomBytes": "cloudkms.locations.generateRandomBytes",
}


@service.on_start
async def declare_tables(region: Any) -> None:
    region.store.define(_TABLE)


@service.method(f"{_RINGS}.create")
def create_ring(call: Call) -> Resource:
    key = f"{call.key}/keyRings/{_identifier(call, 'keyRingId')}"
    if call.store.exists(key):
        raise AlreadyExists(f"KeyRing {key.partition('/')[2]} already exists.")
    return call.store.create(key, {"name": key.partition("/")[2], "createTime": _now(call)})


@service.method(f"{_KEYS}.create")
def create_key(call: Call) -> dict[str, Any]:
    key = f"{call.key}/cryptoKeys/{_identifier(call, 'cryptoKeyId')}"
    purpose = call.body.get("purpose") or "CRYPTO_KEY_PURPOSE_UNSPECIFIED"
    if purpose == "CRYPTO_KEY_PURPOSE_UNSPECIFIED":
        raise InvalidArgument("The purpose of the CryptoKey must be specified.")
    if purpose != "ENCRYPT_DECRYPT":
        raise Unimplemented(f"Keys of purpose {purpose} have no behaviour in localgcp: only ENCRYPT_DECRYPT has.")
    body = {name: value for name, value in call.body.items() if value is not None and name != "name"}
    template = {"algorithm": _ALGORITHM, "protectionLevel": "SOFTWARE", **(body.get("versionTemplate") or {})}
    body |= {"name": key.partition("/")[2], "createTime": _now(call), "versionTemplate": template}
    body.setdefault("destroyScheduledDuration", _DESTROY_DAYS)
    _check_periods(body)
    with call.store.transaction():
        if not call.store.exists(call.key):
            raise NotFound(f"KeyRing {call.named} not found.")
        if call.store.exists(key):
            raise AlreadyExists(f"CryptoKey {key.partition('/')[2]} already exists.")
        created = call.store.create(key, body)
        if not call.query.get("skipInitialVersionCreation"):
            version = _new_version(call, created)
            created = call.store.put(key, {**created, "_localgcp": {"primary": version.key}})
        return _shown(call, created)


@service.method(f"{_KEYS}.get")
def get_key(call: Call) -> dict[str, Any]:
    return _shown(call, _key(call, call.key))


@service.method(f"{_KEYS}.list")
def list_keys(call: Call) -> dict[str, Any]:
    found = call.store.list(call.key, "cryptoKeys")
    return generic.page(call, [Resource(key.key, _shown(call, _rotated(call, key))) for key in found])


@service.method(f"{_KEYS}.patch")
def patch_key(call: Call) -> dict[str, Any]:
    if not call.query.get("updateMask"):
        raise InvalidArgument("updateMask is required.", location="updateMask")
    with call.store.transaction():
        _check_periods({**_key(call, call.key), **call.body})
        call.proceed()
        return _shown(call, _key(call, call.key))


@service.method(f"{_KEYS}.updatePrimaryVersion")
def update_primary_version(call: Call) -> dict[str, Any]:
    with call.store.transaction():
        key = _key(call, call.key)
        version = _version(call, f"{call.key}/cryptoKeyVersions/{call.body.get('cryptoKeyVersionId')}")
        if version["state"] != "ENABLED":
            raise FailedPrecondition(f"{version['name']} is not enabled, current state is: {version['state']}.")
        return _shown(call, call.store.put(key.key, {**key, "_localgcp": {"primary": version.key}}))


@service.method(f"{_VERSIONS}.create")
def create_version(call: Call) -> Resource:
    with call.store.transaction():
        return _new_version(call, _key(call, call.key))


@service.method(f"{_VERSIONS}.get")
def get_version(call: Call) -> Resource:
    return _version(call, call.key)


@service.method(f"{_VERSIONS}.list")
def list_versions(call: Call) -> dict[str, Any]:
    _key(call, call.key)
    found = [_settled(call, version) for version in call.store.list(call.key, "cryptoKeyVersions")]
    return generic.page(call, found)


@service.method(f"{_VERSIONS}.patch")
def patch_version(call: Call) -> Resource:
    if call.query.get("updateMask") != "state":
        raise InvalidArgument("Only the state of a version can be changed: updateMask must be 'state'.")
    wanted = call.body.get("state")
    with call.store.transaction():
        version = _version(call, call.key)
        if wanted not in ("ENABLED", "DISABLED"):
            raise InvalidArgument(f"The state of a version can be set to ENABLED or DISABLED, not {wanted}.")
        if version["state"] not in ("ENABLED", "DISABLED"):
            raise FailedPrecondition(f"{version['name']} is in state {version['state']}, which cannot be changed.")
        return call.store.put(version.key, {**version, "state": wanted})


@service.method(f"{_VERSIONS}.destroy")
def destroy_version(call: Call) -> Resource:
    with call.store.transaction():
        version = _version(call, call.key)
        if version["state"] not in ("ENABLED", "DISABLED"):
            raise FailedPrecondition(f"{version['name']} cannot be destroyed in state {version['state']}.")
        delay = _key(call, _key_of(version.key)).get("destroyScheduledDuration", _DESTROY_DAYS)
        when = call.region.clock.now() + timedelta(seconds=seconds(delay))
        return call.store.put(version.key, {**version, "state": "DESTROY_SCHEDULED", "destroyTime": timestamp(when)})


@service.method(f"{_VERSIONS}.restore")
def restore_version(call: Call) -> Resource:
    with call.store.transaction():
        version = _version(call, call.key)
        if version["state"] != "DESTROY_SCHEDULED":
            raise FailedPrecondition(f"{version['name']} is not scheduled to be destroyed, but {version['state']}.")
        kept = {name: value for name, value in version.items() if name != "destroyTime"}
        return call.store.put(version.key, {**kept, "state": "DISABLED"})


@service.method(f"{_KEYS}.encrypt")
def encrypt(call: Call) -> dict[str, Any]:
    plaintext = _decoded(call, "plaintext")
    additional = _decoded(call, "additionalAuthenticatedData")
    if len(plaintext) + len(additional) > MAX_PLAINTEXT_BYTES:
        raise InvalidArgument(f"Plaintext and additional data must not be larger than {MAX_PLAINTEXT_BYTES} bytes.")
    key_name, _, number = call.key.partition("/cryptoKeyVersions/")
    key = _key(call, key_name)
    primary = f"{key_name}/cryptoKeyVersions/{number}" if number else (key.get("_localgcp") or {}).get("primary")
    if primary is None:
        raise FailedPrecondition(f"{key['name']} has no primary version.")
    version = _usable(_version(call, primary))
    nonce = os.urandom(_NONCE_BYTES)
    header = _HEADER.pack(1, int(version.key.rpartition("/")[2]))
    ciphertext = header + nonce + _cipher(call, version).encrypt(nonce, plaintext, header + additional)
    answer: dict[str, Any] = {
        "name": version["name"],
        "ciphertext": base64.b64encode(ciphertext).decode(),
        "ciphertextCrc32c": str(google_crc32c.value(ciphertext)),
        "protectionLevel": version["protectionLevel"],
    }
    for field in ("plaintext", "additionalAuthenticatedData"):
        if call.body.get(f"{field}Crc32c") is not None:
            answer[f"verified{field[0].upper()}{field[1:]}Crc32c"] = True
    return answer


@service.method(f"{_KEYS}.decrypt")
def decrypt(call: Call) -> dict[str, Any]:
    ciphertext = _decoded(call, "ciphertext")
    additional = _decoded(call, "additionalAuthenticatedData")
    key = _key(call, call.key)
    failed = InvalidArgument("Decryption failed: the ciphertext is invalid.")
    if len(ciphertext) < _HEADER.size + _NONCE_BYTES:
        raise failed
    header, rest = ciphertext[: _HEADER.size], ciphertext[_HEADER.size :]
    kind, number = _HEADER.unpack(header)
    version = call.store.find(f"{key.key}/cryptoKeyVersions/{number}")
    if kind != 1 or version is None:
        raise InvalidArgument("Decryption failed: verify that 'name' refers to the correct CryptoKey.")
    version = _usable(_settled(call, version))
    try:
        plaintext = _cipher(call, version).decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], header + additional)
    except InvalidTag:
        raise failed from None
    return {
        "plaintext": base64.b64encode(plaintext).decode(),
        "plaintextCrc32c": str(google_crc32c.value(plaintext)),
        "protectionLevel": version["protectionLevel"],
        **({"usedPrimary": True} if (key.get("_localgcp") or {}).get("primary") == version.key else {}),
    }


@service.method("projects.locations.generateRandomBytes")
def generate_random_bytes(call: Call) -> dict[str, Any]:
    length = int(call.body.get("lengthBytes") or 0)
    if not 8 <= length <= 1024:
        raise InvalidArgument(f"lengthBytes must be 8 to 1024, got {length}.")
    content = os.urandom(length)
    return {"data": base64.b64encode(content).decode(), "dataCrc32c": str(google_crc32c.value(content))}


def _new_version(call: Call, key: Resource) -> Resource:
    number = call.store.increment(key.key, "versionCount")
    now = _now(call)
    version_key = f"{key.key}/cryptoKeyVersions/{number}"
    template = key["versionTemplate"]
    body = {
        "name": version_key.partition("/")[2],
        "state": "ENABLED",
        "createTime": now,
        "generateTime": now,
        "protectionLevel": template["protectionLevel"],
        "algorithm": template["algorithm"],
    }
    with call.store.transaction() as tx:
        tx.execute("INSERT INTO kms_key_material (key, material) VALUES (?, ?)", (version_key, os.urandom(32)))
        return call.store.create(version_key, body)


def _key(call: Call, key: str) -> Resource:
    found = call.store.find(key)
    if found is None:
        raise NotFound(f"CryptoKey {key.partition('/')[2]} not found.")
    return _rotated(call, found)


def _rotated(call: Call, key: Resource) -> Resource:
    """The key as it is by now: every rotation whose time has come has happened."""
    due, period = key.get("nextRotationTime"), key.get("rotationPeriod")
    if not due or not period or moment(due) > call.region.clock.now():
        return key
    step = timedelta(seconds=seconds(period))
    missed = (call.region.clock.now() - moment(due)) // step + 1
    with call.store.transaction():
        version = _new_version(call, key)
        following = timestamp(moment(due) + step * missed)
        return call.store.put(key.key, {**key, "nextRotationTime": following, "_localgcp": {"primary": version.key}})


def _version(call: Call, key: str) -> Resource:
    found = call.store.find(key)
    if found is None:
        raise NotFound(f"CryptoKeyVersion {key.partition('/')[2]} not found.")
    return _settled(call, found)


def _settled(call: Call, version: Resource) -> Resource:
    if version["state"] != "DESTROY_SCHEDULED" or moment(version["destroyTime"]) > call.region.clock.now():
        return version
    with call.store.transaction() as tx:
        tx.execute("DELETE FROM kms_key_material WHERE key = ?", (version.key,))
        destroyed = {**version, "state": "DESTROYED", "destroyEventTime": version["destroyTime"]}
        destroyed.pop("destroyTime")
        return call.store.put(version.key, destroyed)


def _usable(version: Resource) -> Resource:
    if version["state"] != "ENABLED":
        raise FailedPrecondition(f"{version['name']} is not enabled, current state is: {version['state']}.")
    return version


def _cipher(call: Call, version: Resource) -> AESGCM:
    row = call.store.row("SELECT material FROM kms_key_material WHERE key = ?", (version.key,))
    if row is None:
        raise FailedPrecondition(f"{version['name']} has no key material.")
    return AESGCM(bytes(row["material"]))


def _shown(call: Call, key: Resource) -> dict[str, Any]:
    """The key with its primary version as it is at this moment."""
    body = {name: value for name, value in key.items() if name not in ("primary", "_localgcp")}
    primary = call.store.find((key.get("_localgcp") or {}).get("primary", ""))
    return body if primary is None else body | {"primary": dict(_settled(call, primary))}


def _identifier(call: Call, name: str) -> str:
    value = str(call.query.get(name) or "")
    if not 0 < len(value) <= 63 or not value.replace("-", "").replace("_", "").isalnum():
        raise InvalidArgument(f"{name} must hold 1 to 63 letters, digits, dashes and underscores, got '{value}'.")
    return value


def _check_periods(key: Mapping[str, Any]) -> None:
    """Discovery document, CryptoKey.rotationPeriod; "Destroy and restore key versions"."""
    period = key.get("rotationPeriod")
    if period is not None and not 24 <= seconds(period) / 3600 <= 876_000:
        raise InvalidArgument(f"rotation_period must be at least 24 hours and at most 876000 hours, got {period}.")
    if period is not None and not key.get("nextRotationTime"):
        raise InvalidArgument("next_rotation_time must be set with rotation_period.")
    delay = key.get("destroyScheduledDuration") or _DESTROY_DAYS
    if not 1 <= seconds(delay) / 86400 <= 120:
        raise InvalidArgument(f"destroy_scheduled_duration must be at least 1 day and at most 120 days, got {delay}.")


def _decoded(call: Call, field: str) -> bytes:
    content = base64.b64decode(call.body.get(field) or "")
    checksum = call.body.get(f"{field}Crc32c")
    if checksum is not None and int(checksum) != google_crc32c.value(content):
        raise InvalidArgument(f"The checksum in field {field}_crc32c did not match the data in field {field}.")
    return content


def _key_of(version_key: str) -> str:
    return version_key.partition("/cryptoKeyVersions/")[0]


def _now(call: Call) -> str:
    return timestamp(call.region.clock.now())
