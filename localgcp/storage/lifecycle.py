"""Lifecycle rules: which are valid, which objects they are about at a moment, and applying them.

Google applies them within a day and gives no promise about when; here they are applied at once, whenever asked.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

from localgcp.errors import InvalidArgument
from localgcp.storage import times

if TYPE_CHECKING:
    from localgcp.storage.objects import Objects, StoredObject
    from localgcp.storage.uploads import Uploads

ACTIONS = frozenset({"Delete", "SetStorageClass", "AbortIncompleteMultipartUpload"})
ABORT_CONDITIONS = frozenset({"age", "matchesPrefix", "matchesSuffix"})
CLASSES = frozenset(
    {"STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE", "MULTI_REGIONAL", "REGIONAL", "DURABLE_REDUCED_AVAILABILITY"}
)
#: Colder is larger: between two SetStorageClass actions Google takes the class that is cheapest to keep.
COLDNESS = {"STANDARD": 0, "MULTI_REGIONAL": 0, "REGIONAL": 0, "NEARLINE": 1, "COLDLINE": 2, "ARCHIVE": 3}
NUMBERS = ("age", "daysSinceCustomTime", "daysSinceNoncurrentTime", "numNewerVersions")
DATES = ("createdBefore", "customTimeBefore", "noncurrentTimeBefore")
KNOWN = frozenset(
    {*NUMBERS, *DATES, "isLive", "matchesPattern", "matchesPrefix", "matchesSuffix", "matchesStorageClass"}
    | {"sizeAboveBytes", "sizeBelowBytes"}
)


@dataclass(kw_only=True)
class Applied:
    """How many objects a run touched."""

    deleted: int = 0
    moved: int = 0
    aborted: int = 0
    purged: int = 0


def check_rules(rules: list[Mapping[str, Any]]) -> None:
    """Raises InvalidArgument naming what is wrong with a rule."""
    if len(rules) > 100:
        raise InvalidArgument(f"A bucket has at most 100 lifecycle rules, got {len(rules)}.", reason="invalid")
    for rule in rules:
        action, condition = rule.get("action") or {}, rule.get("condition") or {}
        kind = action.get("type")
        if kind not in ACTIONS:
            raise InvalidArgument(f"A lifecycle management rule has an unknown action: '{kind}'.", reason="invalid")
        if not condition:
            raise InvalidArgument("A lifecycle management rule must have at least one condition.", reason="invalid")
        if kind == "SetStorageClass" and action.get("storageClass") not in CLASSES:
            raise InvalidArgument(
                f"The storage class '{action.get('storageClass')}' of a SetStorageClass action is not valid.",
                reason="invalid",
            )
        if kind == "AbortIncompleteMultipartUpload" and not set(condition) <= ABORT_CONDITIONS:
            raise InvalidArgument(
                "AbortIncompleteMultipartUpload takes the conditions age, matchesPrefix and matchesSuffix only.",
                reason="invalid",
            )
        for field in NUMBERS:
            if condition.get(field) is not None and int(condition[field]) < 0:
                raise InvalidArgument(
                    f"The condition {field} cannot be negative, got {condition[field]}.", reason="invalid"
                )
        for field in DATES:
            if condition.get(field):
                _day(condition[field], field)
        for storage_class in condition.get("matchesStorageClass") or ():
            if storage_class not in CLASSES:
                raise InvalidArgument(f"Invalid storage class: {storage_class}", reason="invalid")


def apply(objects: "Objects", uploads: "Uploads", buckets: Iterable[Mapping[str, Any]], now: datetime) -> Applied:
    """Apply every bucket's rules, and what soft delete no longer keeps, as of `now`."""
    applied = Applied()
    for bucket in buckets:
        rules = (bucket.get("lifecycle") or {}).get("rule") or []
        if rules:
            _apply_to_bucket(objects, bucket["name"], rules, now, applied)
            applied.aborted += _abort_uploads(uploads, bucket["name"], rules, now)
    applied.purged = objects.purge_soft_deleted()
    uploads.forget_expired()
    return applied


def holds(condition: Mapping[str, Any], found: "StoredObject", newer_versions: int, now: datetime) -> bool:
    """Whether every part of a rule's condition is true of an object."""
    if not set(condition) <= KNOWN:
        return False
    is_live = found.state == "live"
    created = times.parse(found.created)
    noncurrent = times.parse(found.noncurrent_since) if found.noncurrent_since else None
    custom_text = found.properties.get("customTime")
    custom = times.parse(custom_text) if custom_text else None
    tests: dict[str, bool] = {}
    for field, expected in condition.items():
        if expected is None or expected == []:
            continue
        match field:
            case "age":
                tests[field] = now - created >= timedelta(days=int(expected))
            case "createdBefore":
                tests[field] = created < _day(expected, field)
            case "customTimeBefore":
                tests[field] = custom is not None and custom < _day(expected, field)
            case "daysSinceCustomTime":
                tests[field] = custom is not None and now - custom >= timedelta(days=int(expected))
            case "daysSinceNoncurrentTime":
                tests[field] = noncurrent is not None and now - noncurrent >= timedelta(days=int(expected))
            case "noncurrentTimeBefore":
                tests[field] = noncurrent is not None and noncurrent < _day(expected, field)
            case "isLive":
                tests[field] = is_live == bool(expected)
            case "numNewerVersions":
                # Zero newer versions is said of the live object too, and of every other.
                tests[field] = newer_versions >= int(expected)
            case "matchesPrefix":
                tests[field] = found.name.startswith(tuple(expected))
            case "matchesSuffix":
                tests[field] = found.name.endswith(tuple(expected))
            case "matchesPattern":
                tests[field] = re.search(expected, found.name) is not None
            case "matchesStorageClass":
                tests[field] = found.storage_class in expected
            case "sizeAboveBytes":
                tests[field] = found.size > int(expected)
            case "sizeBelowBytes":
                tests[field] = found.size < int(expected)
    return all(tests.values())


def _apply_to_bucket(
    objects: "Objects", bucket: str, rules: list[Mapping[str, Any]], now: datetime, applied: Applied
) -> None:
    token: str | None = ""
    waiting: list[StoredObject] = []
    while token is not None:
        page = objects.page(bucket, versions=True, page_token=token or None)
        token = page.next_token
        waiting += page.items
        # The versions of one name may go on in the next page: keep the last name back until it is whole.
        groups = [list(versions) for _, versions in groupby(waiting, key=lambda found: found.name)]
        waiting = groups.pop() if token is not None and groups else []
        for versions in groups:
            for newer_versions, found in enumerate(reversed(versions)):
                _apply_to_object(objects, found, newer_versions, rules, now, applied)


def _apply_to_object(
    objects: "Objects",
    found: "StoredObject",
    newer_versions: int,
    rules: list[Mapping[str, Any]],
    now: datetime,
    applied: Applied,
) -> None:
    actions = [rule["action"] for rule in rules if holds(rule.get("condition") or {}, found, newer_versions, now)]
    if any(action["type"] == "Delete" for action in actions):  # Delete takes precedence over SetStorageClass
        applied.deleted += objects.expire(found)
        return
    classes = [action["storageClass"] for action in actions if action["type"] == "SetStorageClass"]
    colder = max(classes, key=lambda name: COLDNESS.get(name, 0), default=None)
    if colder and COLDNESS.get(colder, 0) > COLDNESS.get(found.storage_class, 0):
        objects.set_storage_class(found, colder)
        applied.moved += 1


def _abort_uploads(uploads: "Uploads", bucket: str, rules: list[Mapping[str, Any]], now: datetime) -> int:
    aborted = 0
    for rule in rules:
        if rule["action"]["type"] != "AbortIncompleteMultipartUpload":
            continue
        condition = rule["condition"]
        for upload in uploads.multipart_in(bucket):
            is_old = now - times.parse(upload.created) >= timedelta(days=int(condition.get("age") or 0))
            has_prefix = upload.name.startswith(tuple(condition.get("matchesPrefix") or ("",)))
            has_suffix = upload.name.endswith(tuple(condition.get("matchesSuffix") or ("",)))
            if is_old and has_prefix and has_suffix:
                uploads.abort(upload.id)
                aborted += 1
    return aborted


def _day(text: Any, field: str) -> datetime:
    try:
        return datetime.combine(date.fromisoformat(str(text)[:10]), datetime.min.time(), UTC)
    except ValueError:
        raise InvalidArgument(f"Invalid value for {field}: '{text}' is not a date", reason="invalid") from None
