"""What a bucket may be: names, locations, and every property checked and filled in as Cloud Storage does."""

import base64
import ipaddress
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from localgcp import labels
from localgcp.errors import InvalidArgument, PermissionDenied
from localgcp.locations import DUAL_REGIONS, MULTI_REGIONS, REGIONS
from localgcp.storage import times
from localgcp.storage.lifecycle import check_rules
from localgcp.storage.objects import STORAGE_CLASSES, merged

DAY_SECONDS = 24 * 3600
DEFAULT_SOFT_DELETE_SECONDS = 7 * DAY_SECONDS
MAX_SOFT_DELETE_SECONDS = 90 * DAY_SECONDS
MAX_RETENTION_SECONDS = 3_155_760_000  # "Quotas and limits" of Cloud Storage: 100 years
UNIFORM_ACCESS_LOCKS_AFTER = timedelta(days=90)
WRITABLE = frozenset(
    {
        *("autoclass", "billing", "cors", "customPlacementConfig", "defaultEventBasedHold", "encryption"),
        *("hierarchicalNamespace", "iamConfiguration", "ipFilter", "labels", "lifecycle", "logging"),
        *("objectRetention", "retentionPolicy", "rpo", "softDeletePolicy", "storageClass", "versioning", "website"),
    }
)
PAYLOAD_FORMATS = ("JSON_API_V1", "NONE")
EVENT_TYPES = frozenset({"OBJECT_FINALIZE", "OBJECT_METADATA_UPDATE", "OBJECT_DELETE", "OBJECT_ARCHIVE"})
#: Given once, when the bucket is made.
FIXED = frozenset({"name", "location", "customPlacementConfig", "hierarchicalNamespace"})


def created(body: Mapping[str, Any], *, project_number: str, now: datetime) -> dict[str, Any]:
    """The resource of a new bucket. Raises InvalidArgument."""
    name = body.get("name")
    if not name:
        raise InvalidArgument("Required", reason="required", location="name")
    check_name(name)
    location, location_type = _location(body.get("location") or "US", body.get("customPlacementConfig"))
    written = times.text(now)
    bucket: dict[str, Any] = {
        "kind": "storage#bucket",
        "id": name,
        "name": name,
        "selfLink": f"https://www.googleapis.com/storage/v1/b/{name}",
        "projectNumber": project_number,
        "generation": str(int(now.timestamp() * 1_000_000)),
        "metageneration": "1",
        "etag": etag(1),
        "location": location,
        "locationType": location_type,
        "storageClass": "STANDARD",
        "timeCreated": written,
        "updated": written,
        "softDeletePolicy": {"retentionDurationSeconds": str(DEFAULT_SOFT_DELETE_SECONDS), "effectiveTime": written},
        "iamConfiguration": {"publicAccessPrevention": "inherited", "uniformBucketLevelAccess": {"enabled": False}},
    }
    if location_type != "region":
        bucket["rpo"] = "DEFAULT"
    return _checked(merged(bucket, {key: value for key, value in body.items() if key in WRITABLE}), bucket, now)


def changed(bucket: Mapping[str, Any], body: Mapping[str, Any], *, whole: bool, now: datetime) -> dict[str, Any]:
    """The resource after a PATCH, or a PUT when `whole`. Raises InvalidArgument, PermissionDenied."""
    for field in ("name", "location"):
        if body.get(field) and str(body[field]).lower() != str(bucket[field]).lower():
            raise InvalidArgument(f"The bucket's {field} cannot be changed: it is '{bucket[field]}'.", reason="invalid")
    asked = {key: value for key, value in body.items() if key in WRITABLE - FIXED}
    if whole:
        # What a PUT leaves out is unset; what every bucket has keeps its value.
        kept = {key: value for key, value in bucket.items() if key not in WRITABLE or key in FIXED}
        for field in ("storageClass", "softDeletePolicy", "iamConfiguration", "rpo"):
            if field in bucket:
                kept[field] = bucket[field]
        result = merged(kept, asked)
    else:
        result = merged(bucket, asked)
    result["metageneration"] = str(int(bucket["metageneration"]) + 1)
    result["etag"] = etag(int(result["metageneration"]))
    result["updated"] = times.text(now)
    return _checked(result, bucket, now)


def notification(body: Mapping[str, Any]) -> dict[str, Any]:
    """What a notification configuration says. Raises InvalidArgument."""
    topic, kind = str(body.get("topic") or ""), body.get("payload_format")
    match = re.fullmatch(r"(?://pubsub\.googleapis\.com/)?(projects/[^/]+/topics/[^/]+)", topic)
    if match is None:
        raise InvalidArgument(f"Invalid Google Cloud Pub/Sub topic: '{topic}'", reason="invalid")
    if kind not in PAYLOAD_FORMATS:
        raise InvalidArgument(f"Invalid payload_format: '{kind}'", reason="invalid")
    unknown = sorted(set(body.get("event_types") or ()) - EVENT_TYPES)
    if unknown:
        raise InvalidArgument(f"Invalid event type: '{unknown[0]}'", reason="invalid")
    given = {name: body[name] for name in ("custom_attributes", "event_types", "object_name_prefix") if body.get(name)}
    return {**given, "topic": f"//pubsub.googleapis.com/{match[1]}", "payload_format": kind}


def etag(metageneration: int) -> str:
    encoded = bytearray(b"\x08")
    while metageneration > 0x7F:
        encoded.append(metageneration & 0x7F | 0x80)
        metageneration >>= 7
    encoded.append(metageneration)
    return base64.b64encode(bytes(encoded)).decode()


def check_name(name: str) -> None:
    """Raises InvalidArgument: "Bucket naming guidelines" of Cloud Storage."""
    is_right = (
        re.fullmatch(r"[a-z0-9][a-z0-9._-]*[a-z0-9]", name) is not None
        and 3 <= len(name) <= (222 if "." in name else 63)
        and all(1 <= len(part) <= 63 for part in name.split("."))
        and not name.startswith("goog")
        and "google" not in name
        and not _is_address(name)
    )
    if not is_right:
        raise InvalidArgument(f"Invalid bucket name: '{name}'", reason="invalid")


def is_uniform(bucket: Mapping[str, Any]) -> bool:
    enabled: bool = bucket["iamConfiguration"]["uniformBucketLevelAccess"].get("enabled", False)
    return enabled


def prevents_public_access(bucket: Mapping[str, Any]) -> bool:
    return bool(bucket["iamConfiguration"].get("publicAccessPrevention") == "enforced")


def _checked(bucket: dict[str, Any], before: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Every property that was given, checked and completed; empty ones go."""
    if bucket.get("storageClass") not in STORAGE_CLASSES:
        raise InvalidArgument(f"Invalid storage class: {bucket.get('storageClass')}", reason="invalid")
    labels.check(bucket.get("labels", {}), "bucket")
    check_rules((bucket.get("lifecycle") or {}).get("rule") or [])
    _check_cors(bucket.get("cors") or [])
    _complete_soft_delete(bucket, before, now)
    _complete_retention(bucket, before, now)
    _complete_iam_configuration(bucket, before, now)
    key = bucket.get("encryption", {}).get("defaultKmsKeyName")
    if key and not re.fullmatch(r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+", key):
        raise InvalidArgument(f"Malformed Cloud KMS crypto key: {key}", reason="invalid")
    for name, rule in (bucket.get("encryption") or {}).items():
        if isinstance(rule, Mapping) and rule.get("restrictionMode"):
            old = before.get("encryption", {}).get(name, {})
            is_same = old.get("restrictionMode") == rule["restrictionMode"]
            effective = old["effectiveTime"] if is_same else times.text(now)
            bucket["encryption"] = {**bucket["encryption"], name: {**rule, "effectiveTime": effective}}
    if bucket.get("rpo") == "ASYNC_TURBO" and bucket["locationType"] != "dual-region":
        raise InvalidArgument("Turbo replication (rpo ASYNC_TURBO) is for dual-region buckets only.", reason="invalid")
    if "autoclass" in bucket and bucket["autoclass"].get("enabled") != before.get("autoclass", {}).get("enabled"):
        bucket["autoclass"] = dict(bucket["autoclass"]) | {"toggleTime": times.text(now)}
    if "lifecycle" in bucket and not bucket["lifecycle"].get("rule"):
        del bucket["lifecycle"]
    for field in ("cors", "labels", "encryption", "website", "logging", "versioning", "retentionPolicy"):
        if field in bucket and not bucket[field]:
            del bucket[field]
    return bucket


def _complete_soft_delete(bucket: dict[str, Any], before: Mapping[str, Any], now: datetime) -> None:
    policy = dict(bucket.get("softDeletePolicy") or {})
    seconds = int(policy.get("retentionDurationSeconds", DEFAULT_SOFT_DELETE_SECONDS))
    if seconds != 0 and not DEFAULT_SOFT_DELETE_SECONDS <= seconds <= MAX_SOFT_DELETE_SECONDS:
        raise InvalidArgument(
            f"Soft delete policy retention duration must be 0, or between {DEFAULT_SOFT_DELETE_SECONDS} (7 days) and"
            f" {MAX_SOFT_DELETE_SECONDS} (90 days) seconds, got {seconds}.",
            reason="invalid",
        )
    old = before.get("softDeletePolicy", {})
    policy["retentionDurationSeconds"] = str(seconds)
    is_same = old.get("retentionDurationSeconds") == str(seconds)
    policy["effectiveTime"] = old["effectiveTime"] if is_same and "effectiveTime" in old else times.text(now)
    bucket["softDeletePolicy"] = policy


def _complete_retention(bucket: dict[str, Any], before: Mapping[str, Any], now: datetime) -> None:
    old = before.get("retentionPolicy", {})
    policy = dict(bucket.get("retentionPolicy") or {})
    seconds = int(policy.get("retentionPeriod", 0))
    if old.get("isLocked") and (seconds < int(old["retentionPeriod"])):
        raise PermissionDenied(
            f"Cannot reduce or remove the locked retention policy of bucket '{bucket['name']}'.", reason="forbidden"
        )
    if not policy:
        bucket.pop("retentionPolicy", None)
        return
    if not 0 < seconds <= MAX_RETENTION_SECONDS:
        raise InvalidArgument(
            f"Retention period must be between 1 and {MAX_RETENTION_SECONDS} seconds, got {seconds}.", reason="invalid"
        )
    policy["retentionPeriod"] = str(seconds)
    # Locking has a call of its own; a body cannot set it, and cannot undo it either.
    policy.pop("isLocked", None)
    if old.get("isLocked"):
        policy["isLocked"] = True
    is_same = old.get("retentionPeriod") == str(seconds)
    policy["effectiveTime"] = old["effectiveTime"] if is_same and "effectiveTime" in old else times.text(now)
    bucket["retentionPolicy"] = policy


def _complete_iam_configuration(bucket: dict[str, Any], before: Mapping[str, Any], now: datetime) -> None:
    configuration = dict(bucket.get("iamConfiguration") or {})
    old = before.get("iamConfiguration", {}).get("uniformBucketLevelAccess", {})
    was_enabled = old.get("enabled", False) and "lockedTime" in old
    given = configuration.get("uniformBucketLevelAccess") or {}
    legacy = configuration.get("bucketPolicyOnly") or {}
    # The older name of the same switch, for clients that only know that one.
    is_enabled = bool(given.get("enabled", legacy.get("enabled", False)))
    if legacy.get("enabled") and not given.get("enabled") and not was_enabled:
        is_enabled = True
    if was_enabled and not is_enabled and times.parse(old["lockedTime"]) <= now:
        raise InvalidArgument(
            "Uniform bucket-level access has been enabled for more than 90 days and cannot be disabled.",
            reason="invalid",
        )
    prevention = configuration.get("publicAccessPrevention") or "inherited"
    if prevention == "unspecified":
        prevention = "inherited"
    if prevention not in ("enforced", "inherited"):
        raise InvalidArgument(f"Invalid value for publicAccessPrevention: '{prevention}'", reason="invalid")
    access: dict[str, Any] = {"enabled": is_enabled}
    if is_enabled:
        access["lockedTime"] = old["lockedTime"] if was_enabled else times.text(now + UNIFORM_ACCESS_LOCKS_AFTER)
    bucket["iamConfiguration"] = {
        "bucketPolicyOnly": dict(access),
        "uniformBucketLevelAccess": access,
        "publicAccessPrevention": prevention,
    }


def _check_cors(rules: list[Mapping[str, Any]]) -> None:
    if len(rules) > 100:
        raise InvalidArgument(f"A bucket has at most 100 CORS rules, got {len(rules)}.", reason="invalid")
    for rule in rules:
        for method in rule.get("method") or ():
            if method != "*" and method not in ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"):
                raise InvalidArgument(f"Invalid CORS method: '{method}'", reason="invalid")
        if int(rule.get("maxAgeSeconds") or 0) < 0:
            raise InvalidArgument("maxAgeSeconds of a CORS rule cannot be negative", reason="invalid")


def _location(given: str, placement: Mapping[str, Any] | None) -> tuple[str, str]:
    location = given.upper()
    name = given.lower()
    if placement and placement.get("dataLocations"):
        if len(placement["dataLocations"]) != 2 or name not in MULTI_REGIONS:
            raise InvalidArgument("The specified location constraint is not valid.", reason="invalid")
        return location, "dual-region"
    if name in MULTI_REGIONS:
        return location, "multi-region"
    if name in DUAL_REGIONS:
        return location, "dual-region"
    if name in REGIONS:
        return location, "region"
    raise InvalidArgument("The specified location constraint is not valid.", reason="invalid")


def _is_address(name: str) -> bool:
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return True
