"""Objects: names, generations, what is live, noncurrent or soft-deleted, and every change from one to another.

One row per generation. A change is one transaction; contents that no row names any more are removed after it, so a
crash leaves a file too many and never a row without its file.
"""

import base64
import contextlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import quote

from localgcp.clock import Clock
from localgcp.errors import InvalidArgument, NotFound, PermissionDenied, PreconditionFailed
from localgcp.storage import contexts, encryption, times
from localgcp.storage.checksums import combine_crc32c, crc32c_text, digest_text
from localgcp.storage.files import Content, ContentFiles
from localgcp.storage.preconditions import MESSAGE, NONE, Preconditions
from localgcp.store import Resource, Store

SCHEMA = """
CREATE TABLE IF NOT EXISTS storage_objects (
    bucket TEXT NOT NULL,
    name TEXT NOT NULL,
    generation INTEGER NOT NULL,
    metageneration INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('live', 'noncurrent', 'soft_deleted')),
    content TEXT NOT NULL,
    size INTEGER NOT NULL,
    crc32c INTEGER NOT NULL,
    md5 BLOB,
    component_count INTEGER,
    storage_class TEXT NOT NULL,
    created TEXT NOT NULL,
    updated TEXT NOT NULL,
    class_updated TEXT NOT NULL,
    noncurrent_since TEXT,
    soft_deleted TEXT,
    hard_delete TEXT,
    properties TEXT NOT NULL,
    PRIMARY KEY (bucket, name, generation)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS storage_objects_live ON storage_objects (bucket, name) WHERE state = 'live';
CREATE INDEX IF NOT EXISTS storage_objects_content ON storage_objects (content);
CREATE INDEX IF NOT EXISTS storage_objects_hard_delete ON storage_objects (hard_delete) WHERE state = 'soft_deleted';
"""

COLUMNS = (
    "bucket, name, generation, metageneration, state, content, size, crc32c, md5, component_count, storage_class,"
    " created, updated, class_updated, noncurrent_since, soft_deleted, hard_delete, properties"
)

MAX_NAME_BYTES = 1024
MAX_COMPONENTS_PER_COMPOSE = 32
STORAGE_CLASSES = frozenset(
    {"STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE", "MULTI_REGIONAL", "REGIONAL", "DURABLE_REDUCED_AVAILABILITY"}
)
RETENTION_FIELDS = ("mode", "retainUntilTime")
#: What a client may say about an object. Anything else in a metadata body is Google's to set, and ignored.
WRITABLE = frozenset(
    {
        "cacheControl",
        "contentDisposition",
        "contentEncoding",
        "contentLanguage",
        "contentType",
        "contexts",
        "customTime",
        "eventBasedHold",
        "metadata",
        "retention",
        "temporaryHold",
    }
)


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    bucket: str
    name: str
    generation: int
    metageneration: int
    state: str
    content: str
    size: int
    crc32c: int
    md5: bytes | None
    component_count: int | None
    storage_class: str
    created: str
    updated: str
    class_updated: str
    noncurrent_since: str | None = None
    soft_deleted: str | None = None
    hard_delete: str | None = None
    properties: Mapping[str, Any]

    @property
    def etag(self) -> str:
        """Google's: a message of two numbers, generation and metageneration."""
        return base64.b64encode(b"\x08" + _varint(self.generation) + b"\x10" + _varint(self.metageneration)).decode()

    @property
    def xml_etag(self) -> str:
        """The XML API's: the MD5, or one that is none for composite objects and those with a customer's key."""
        if self.md5 is None or encryption.key_of(self) is not None:
            return f"-{self.etag}"
        return self.md5.hex()

    @property
    def etags(self) -> tuple[str, ...]:
        """What a client may know this version by."""
        return (self.etag, self.xml_etag)

    @property
    def path(self) -> str:
        return f"{self.bucket}/{self.name}"

    @property
    def content_type(self) -> str:
        return str(self.properties.get("contentType") or "application/octet-stream")

    @classmethod
    def of(cls, row: sqlite3.Row) -> "StoredObject":
        values = dict(row)
        values["properties"] = json.loads(values["properties"])
        return cls(**values)


NOTHING: Mapping[str, Any] = {}


class Page(NamedTuple):
    items: list[StoredObject]
    prefixes: list[str]
    next_token: str | None


class Allow:
    """What a caller may do on the way: refuses by raising, and allows everything unless it is told otherwise."""

    def overwrite(self) -> None:
        """Asked before an object takes the place of another."""

    def access(self) -> Mapping[str, Any]:
        """The properties that say whose a new object is, and who else may use it."""
        return NOTHING


ANYTHING = Allow()


class Objects:
    def __init__(self, store: Store, files: ContentFiles, clock: Clock, *, api_url: str) -> None:
        store.define(SCHEMA)
        self._store = store
        self.files = files
        self._clock = clock
        self._api_url = api_url
        self._dropped = threading.local()

    # Reading

    def bucket(self, name: str) -> Resource:
        """Raises NotFound as Google words it."""
        found = self._store.find(f"storage/b/{name}")
        if found is None:
            raise NotFound("The specified bucket does not exist.")
        return found

    def find(self, bucket: str, name: str, generation: int | None = None) -> StoredObject | None:
        """The live object, or the live or noncurrent one of a generation."""
        if generation is None:
            return self._one("bucket = ? AND name = ? AND state = 'live'", bucket, name)
        return self._one(
            "bucket = ? AND name = ? AND generation = ? AND state <> 'soft_deleted'", bucket, name, generation
        )

    def get(self, bucket: str, name: str, generation: int | None = None) -> StoredObject:
        """Raises NotFound."""
        found = self.find(bucket, name, generation)
        if found is None:
            self.bucket(bucket)
            raise missing(bucket, name, generation)
        return found

    def get_soft_deleted(self, bucket: str, name: str, generation: int | None) -> StoredObject:
        """Raises InvalidArgument without a generation, NotFound."""
        if generation is None:
            raise InvalidArgument("You must specify a generation to get a soft-deleted object.", reason="required")
        found = self._one(
            "bucket = ? AND name = ? AND generation = ? AND state = 'soft_deleted'", bucket, name, generation
        )
        if found is None:
            self.bucket(bucket)
            raise missing(bucket, name, generation)
        return found

    def is_empty(self, bucket: str) -> bool:
        return self._one("bucket = ? AND state <> 'soft_deleted'", bucket) is None

    def page(
        self,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str = "",
        start_offset: str = "",
        end_offset: str = "",
        matches: Callable[[str], bool] | None = None,
        accepts: Callable[[Mapping[str, Any]], bool] | None = None,
        versions: bool = False,
        soft_deleted: bool = False,
        include_trailing_delimiter: bool = False,
        max_results: int = 1000,
        page_token: str | None = None,
    ) -> Page:
        """One page, ordered by the bytes of the name, then by generation.

        Objects are left out whose name does not match or whose properties are not accepted.
        """
        states = ("soft_deleted",) if soft_deleted else ("live", "noncurrent") if versions else ("live",)
        marks = ", ".join("?" * len(states))
        sql = (
            f"SELECT {COLUMNS} FROM storage_objects WHERE bucket = ? AND (name, generation) > (?, ?)"  # noqa: S608
            f" AND state IN ({marks}) ORDER BY name, generation LIMIT ?"
        )
        first = max(prefix, start_offset, key=lambda text: text.encode())
        cursor: tuple[str, int] = _cursor(page_token) if page_token else (first, -1)
        items: list[StoredObject] = []
        prefixes: list[str] = []
        batch_size = min(max_results, 1000) + 1
        while True:
            rows = self._store.rows(sql, (bucket, *cursor, *states, batch_size))
            for row in rows:
                name: str = row["name"]
                if not name.startswith(prefix) or (end_offset and name.encode() >= end_offset.encode()):
                    return Page(items, prefixes, None)
                folded = _folded(name, prefix, delimiter)
                if folded is None or (folded == name and include_trailing_delimiter):
                    is_left_out = (matches is not None and not matches(name)) or (
                        accepts is not None and not accepts(json.loads(row["properties"]))
                    )
                    if is_left_out:
                        cursor = (name, row["generation"])
                        continue
                    if len(items) + len(prefixes) >= max_results:
                        return Page(items, prefixes, _token(*cursor))
                    items.append(StoredObject.of(row))
                if folded is None:
                    cursor = (name, row["generation"])
                    continue
                if not prefixes or prefixes[-1] != folded:
                    if len(items) + len(prefixes) >= max_results:
                        return Page(items, prefixes, _token(*cursor))
                    prefixes.append(folded)
                if folded == name:
                    cursor = (name, row["generation"])
                    continue
                # Nothing below this prefix can add to the page: go on behind it.
                cursor = (folded + "\U0010ffff", 1 << 62)
                break
            else:
                if len(rows) < batch_size:
                    return Page(items, prefixes, None)

    # Changing

    def insert(
        self,
        bucket: str,
        name: str,
        content: Content,
        properties: Mapping[str, Any],
        *,
        preconditions: Preconditions = NONE,
        component_count: int | None = None,
        allow: Allow = ANYTHING,
        within: Callable[[sqlite3.Connection, StoredObject], None] | None = None,
    ) -> StoredObject:
        """Make `content` the live object. `within` runs in the same transaction.

        The content's file belongs to the object when this returns, and to the caller when it raises.
        """
        check_name(name)
        storage_class = properties.get("storageClass")
        if storage_class is not None and storage_class not in STORAGE_CLASSES:
            raise InvalidArgument(f"Invalid storage class: {storage_class}", reason="invalid")
        with self._changing() as (tx, dropped):
            home = self.bucket(bucket)
            live = self.find(bucket, name)
            preconditions.check(live)
            if live is not None:
                allow.overwrite()
                self._displace(tx, home, live, dropped)
            now = self._clock.now()
            written = times.text(now)
            kept = merged({}, {key: value for key, value in properties.items() if key in WRITABLE})
            if home.get("defaultEventBasedHold"):
                kept.setdefault("eventBasedHold", True)
            kms_key = properties.get("kmsKeyName") or home.get("encryption", {}).get("defaultKmsKeyName")
            if properties.get("customerEncryption"):
                kept["customerEncryption"] = properties["customerEncryption"]
            elif kms_key:
                kept["kmsKeyName"] = kms_key if "/cryptoKeyVersions/" in kms_key else f"{kms_key}/cryptoKeyVersions/1"
            kept |= allow.access()
            _complete_retention(home, {}, kept, now)
            contexts.complete({}, kept, written)
            stored = StoredObject(
                bucket=bucket,
                name=name,
                generation=self._next_generation(bucket, name, now),
                metageneration=1,
                state="live",
                content=content.id,
                size=content.size,
                crc32c=content.crc32c,
                md5=content.md5,
                component_count=component_count,
                storage_class=storage_class or home.get("storageClass", "STANDARD"),
                created=written,
                updated=written,
                class_updated=written,
                properties=checked_properties(kept),
            )
            self._write(tx, stored)
            if within is not None:
                within(tx, stored)
        return stored

    def delete(
        self, bucket: str, name: str, *, generation: int | None = None, preconditions: Preconditions = NONE
    ) -> None:
        """Without a generation: the live object, which versioning keeps as noncurrent. Raises NotFound."""
        with self._changing() as (tx, dropped):
            home = self.bucket(bucket)
            found = self.get(bucket, name, generation)
            preconditions.check(found)
            if generation is None:
                self._displace(tx, home, found, dropped)
            else:
                self._refuse_when_held(home, found)
                self._remove(tx, home, found, dropped)

    def change(
        self,
        bucket: str,
        name: str,
        body: Mapping[str, Any],
        *,
        generation: int | None = None,
        preconditions: Preconditions = NONE,
        whole: bool = False,
        override_unlocked_retention: bool = False,
        acl: Mapping[str, str] | None = None,
    ) -> StoredObject:
        """Patch the metadata, or replace all of it when `whole`, and the access control list. Raises NotFound."""
        with self._changing() as (tx, _):
            home = self.bucket(bucket)
            found = self.get(bucket, name, generation)
            preconditions.check(found)
            before = dict(found.properties)
            asked = {key: value for key, value in body.items() if key in WRITABLE}
            if whole:
                kept = {key: value for key, value in before.items() if key not in WRITABLE or key == "contexts"}
                properties = kept | {key: value for key, value in asked.items() if value is not None}
            else:
                properties = merged(before, asked)
            if acl is not None:
                properties["acl"] = acl
            storage_class = body.get("storageClass")
            if storage_class not in (None, found.storage_class):
                raise InvalidArgument(
                    "The storage class of an existing object is changed by rewriting it onto itself", reason="invalid"
                )
            _check_custom_time(before, properties)
            _complete_retention(home, before, properties, self._clock.now(), override_unlocked_retention)
            now = times.text(self._clock.now())
            contexts.complete(before, properties, now)
            if before.get("eventBasedHold") and not properties.get("eventBasedHold"):
                # The retention period of the bucket starts when the event has happened.
                properties["eventHoldReleased"] = now
            stored = replace(
                found,
                metageneration=found.metageneration + 1,
                updated=now,
                properties=checked_properties(properties),
            )
            self._write(tx, stored)
        return stored

    def copy(
        self,
        source: StoredObject,
        bucket: str,
        name: str,
        properties: Mapping[str, Any] | None,
        *,
        encrypted: Mapping[str, Any] = NOTHING,
        preconditions: Preconditions = NONE,
        allow: Allow = ANYTHING,
    ) -> StoredObject:
        """Copy content, and metadata unless `properties` replaces it. Both objects then share one file.

        `encrypted` are the properties that say with which key; they never come from the source.
        """
        with self._changing():
            # Under the lock: `source` may have been deleted since it was read, and its file with it.
            states = "IN ('live', 'noncurrent', 'soft_deleted')"
            if self._one(f"bucket = ? AND name = ? AND generation = ? AND state {states}", *_key(source)) is None:
                raise missing(source.bucket, source.name, source.generation)
            if properties is None:
                # A bucket's default class applies to a copy too; holds and retention do not travel.
                left = ("temporaryHold", "eventBasedHold", "retention", "kmsKeyName", "customerEncryption")
                properties = {key: value for key, value in source.properties.items() if key not in left}
            elif "contexts" not in properties and "contexts" in source.properties:
                # They are no metadata, and stay unless they are replaced themselves.
                properties = {**properties, "contexts": source.properties["contexts"]}
            content = Content(id=source.content, size=source.size, crc32c=source.crc32c, md5=source.md5)
            return self.insert(
                bucket,
                name,
                content,
                {**properties, **encrypted},
                preconditions=preconditions,
                component_count=source.component_count,
                allow=allow,
            )

    def compose(
        self,
        bucket: str,
        name: str,
        sources: Sequence[tuple[str, int | None, int | None]],
        properties: Mapping[str, Any],
        *,
        key: str | None = None,
        preconditions: Preconditions = NONE,
        allow: Allow = ANYTHING,
        delete_sources: bool = False,
    ) -> StoredObject:
        """Join up to 32 objects of the bucket: (name, generation or None, ifGenerationMatch or None) each.

        `key` is the customer-supplied one of every source and of the result.
        """
        if not 1 <= len(sources) <= MAX_COMPONENTS_PER_COMPOSE:
            raise InvalidArgument(
                f"The number of source components provided ({len(sources)}) exceeds the maximum"
                f" ({MAX_COMPONENTS_PER_COMPOSE})"
                if sources
                else "You must provide at least one source component.",
                reason="invalid" if sources else "required",
            )
        parts: list[StoredObject] = []
        for source_name, generation, expected in sources:
            part = self.get(bucket, source_name, generation)
            if expected is not None and part.generation != expected:
                raise PreconditionFailed(MESSAGE)
            encryption.check(part, key)
            parts.append(part)
        self.bucket(bucket)
        preconditions.check(self.find(bucket, name))
        try:
            content_id = self.files.concatenate([part.content for part in parts])
        except FileNotFoundError:
            raise missing(bucket, parts[0].name, None) from None
        crc32c, size = 0, 0
        for part in parts:
            crc32c = combine_crc32c(crc32c, part.crc32c, part.size)
            size += part.size
        content = Content(id=content_id, size=size, crc32c=crc32c, md5=None)
        given = {**properties, **encryption.described(key)}
        if not given.get("contentType") and parts[0].properties.get("contentType"):
            given["contentType"] = parts[0].properties["contentType"]
        try:
            stored = self.insert(
                bucket,
                name,
                content,
                given,
                preconditions=preconditions,
                component_count=sum(part.component_count or 1 for part in parts),
                allow=allow,
            )
        except BaseException:
            self.files.delete([content_id])
            raise
        if delete_sources:
            for part in parts:
                if part.name != name:
                    with contextlib.suppress(NotFound):
                        self.delete(bucket, part.name, generation=part.generation)
        return stored

    def move(
        self,
        source: StoredObject,
        name: str,
        *,
        preconditions: Preconditions = NONE,
        allow: Allow = ANYTHING,
    ) -> StoredObject:
        """Copy under another name and delete, in one transaction."""
        with self._changing() as (tx, dropped):
            home = self.bucket(source.bucket)
            encrypted = encryption.described(encryption.key_of(source))
            stored = self.copy(
                source, source.bucket, name, None, encrypted=encrypted, preconditions=preconditions, allow=allow
            )
            self._displace(tx, home, source, dropped)
        return stored

    def restore(
        self,
        bucket: str,
        name: str,
        generation: int,
        *,
        preconditions: Preconditions = NONE,
        allow: Allow = ANYTHING,
    ) -> StoredObject:
        """A live copy of a soft-deleted object, with a generation of its own. Raises NotFound."""
        with self._changing():
            source = self.get_soft_deleted(bucket, name, generation)
            properties = dict(source.properties) | {"storageClass": source.storage_class}
            return self.copy(source, bucket, name, properties, preconditions=preconditions, allow=allow)

    def set_storage_class(self, found: StoredObject, storage_class: str) -> None:
        """What a lifecycle rule does: same generation, no new content."""
        with self._changing() as (tx, _):
            current = self._one("bucket = ? AND name = ? AND generation = ? AND state = ?", *_key(found), found.state)
            if current is not None:
                now = times.text(self._clock.now())
                self._write(
                    tx,
                    replace(
                        current,
                        storage_class=storage_class,
                        class_updated=now,
                        updated=now,
                        metageneration=current.metageneration + 1,
                    ),
                )

    def expire(self, found: StoredObject) -> bool:
        """What a lifecycle rule's Delete does. False when a hold or a retention period forbids it."""
        try:
            generation = None if found.state == "live" else found.generation
            with self._changing():
                current = self.find(found.bucket, found.name, found.generation)
                if current is None or current.state != found.state:
                    return False
                self.delete(found.bucket, found.name, generation=generation)
        except (PermissionDenied, NotFound):
            return False
        return True

    def purge_soft_deleted(self) -> int:
        """Remove what has been soft-deleted for longer than its bucket keeps it."""
        now = times.text(self._clock.now())
        with self._changing() as (tx, dropped):
            rows = tx.execute(
                "SELECT bucket, name, generation, content FROM storage_objects"
                " WHERE state = 'soft_deleted' AND hard_delete <= ?",
                (now,),
            ).fetchall()
            for row in rows:
                tx.execute(
                    "DELETE FROM storage_objects WHERE bucket = ? AND name = ? AND generation = ?", tuple(row)[:3]
                )
                dropped.append(row["content"])
        return len(rows)

    def forget_bucket(self, bucket: str) -> None:
        """Remove the soft-deleted objects of a bucket that is being deleted."""
        with self._changing() as (tx, dropped):
            rows = tx.execute("SELECT content FROM storage_objects WHERE bucket = ?", (bucket,)).fetchall()
            dropped.extend(row["content"] for row in rows)
            tx.execute("DELETE FROM storage_objects WHERE bucket = ?", (bucket,))

    def referenced_contents(self) -> set[str]:
        return {row["content"] for row in self._store.rows("SELECT DISTINCT content FROM storage_objects")}

    # Answers

    def to_json(self, found: StoredObject, *, key: str | None = None) -> dict[str, Any]:
        """The resource `storage#object`, without access controls.

        Checksums of an object with a customer-supplied key are for those who sent that `key`.
        """
        quoted = quote(found.name, safe="")
        media = (
            f"{self._api_url}/download/storage/v1/b/{found.bucket}/o/{quoted}?generation={found.generation}&alt=media"
        )
        body: dict[str, Any] = {
            "kind": "storage#object",
            "id": f"{found.bucket}/{found.name}/{found.generation}",
            "selfLink": f"https://www.googleapis.com/storage/v1/b/{found.bucket}/o/{quoted}",
            # The one link that names this machine: google-cloud-storage downloads from it.
            "mediaLink": media,
            "name": found.name,
            "bucket": found.bucket,
            "generation": str(found.generation),
            "metageneration": str(found.metageneration),
            "storageClass": found.storage_class,
            "size": str(found.size),
            "etag": found.etag,
            "timeCreated": found.created,
            "updated": found.updated,
            "timeStorageClassUpdated": found.class_updated,
            "timeFinalized": found.created,
        }
        if encryption.key_of(found) in (None, key):
            body["crc32c"] = crc32c_text(found.crc32c)
            if found.md5 is not None:
                body["md5Hash"] = digest_text(found.md5)
        if found.component_count is not None:
            body["componentCount"] = found.component_count
        if found.noncurrent_since is not None:
            body["timeDeleted"] = found.noncurrent_since
        if found.state == "soft_deleted":
            body |= {"softDeleteTime": found.soft_deleted, "hardDeleteTime": found.hard_delete}
        for name, value in found.properties.items():
            if name in WRITABLE or name in ("kmsKeyName", "customerEncryption"):
                body[name] = value
        expires = self._retained_until(self._store.find(f"storage/b/{found.bucket}") or {}, found)
        if expires is not None:
            body["retentionExpirationTime"] = times.text(expires)
        return body

    # Inside a transaction

    @contextlib.contextmanager
    def _changing(self) -> Iterator[tuple[sqlite3.Connection, list[str]]]:
        """A transaction, and a list for contents that a row has let go of. Re-entrant, as the store's is."""
        outer: list[str] | None = getattr(self._dropped, "contents", None)
        if outer is not None:
            with self._store.transaction() as tx:
                yield tx, outer
            return
        dropped: list[str] = []
        self._dropped.contents = dropped
        try:
            with self._store.transaction() as tx:
                yield tx, dropped
                unused = [content for content in dict.fromkeys(dropped) if not self._is_referenced(tx, content)]
        finally:
            self._dropped.contents = None
        # Only when the outermost transaction is durable: a row must never outlive its file.
        self.files.delete(unused)

    def _is_referenced(self, tx: sqlite3.Connection, content: str) -> bool:
        return tx.execute("SELECT 1 FROM storage_objects WHERE content = ?", (content,)).fetchone() is not None

    def _displace(self, tx: sqlite3.Connection, home: Resource, live: StoredObject, dropped: list[str]) -> None:
        """A live object makes room: noncurrent under versioning, else removed."""
        _refuse_holds(live)
        if not home.get("versioning", {}).get("enabled"):
            self._refuse_when_held(home, live)
            self._remove(tx, home, live, dropped)
            return
        self._write(tx, replace(live, state="noncurrent", noncurrent_since=times.text(self._clock.now())))

    def _remove(self, tx: sqlite3.Connection, home: Resource, found: StoredObject, dropped: list[str]) -> None:
        seconds = int(home.get("softDeletePolicy", {}).get("retentionDurationSeconds", 0))
        if seconds:
            now = self._clock.now()
            hard_delete = times.text(now + timedelta(seconds=seconds))
            self._write(tx, replace(found, state="soft_deleted", soft_deleted=times.text(now), hard_delete=hard_delete))
            return
        tx.execute("DELETE FROM storage_objects WHERE bucket = ? AND name = ? AND generation = ?", _key(found))
        dropped.append(found.content)

    def _refuse_when_held(self, home: Mapping[str, Any], found: StoredObject) -> None:
        _refuse_holds(found)
        until = self._retained_until(home, found)
        if until is not None and until > self._clock.now():
            raise PermissionDenied(
                f"Object '{found.path}' is subject to bucket's retention policy or object retention and cannot be"
                f" deleted or overwritten until {times.text(until)}",
                reason="retentionPolicyNotMet",
            )

    def _retained_until(self, home: Mapping[str, Any], found: StoredObject) -> datetime | None:
        ends: list[datetime] = []
        period = int(home.get("retentionPolicy", {}).get("retentionPeriod", 0))
        if period and not found.properties.get("eventBasedHold"):
            start = times.parse(found.properties.get("eventHoldReleased") or found.created)
            ends.append(start + timedelta(seconds=period))
        retention = found.properties.get("retention") or {}
        if retention.get("retainUntilTime"):
            ends.append(times.parse(retention["retainUntilTime"]))
        return max(ends, default=None)

    def _next_generation(self, bucket: str, name: str, now: datetime) -> int:
        row = self._store.row(
            "SELECT max(generation) AS newest FROM storage_objects WHERE bucket = ? AND name = ?", (bucket, name)
        )
        newest = row["newest"] if row and row["newest"] else 0
        return max(int(now.timestamp() * 1_000_000), newest + 1)

    def _one(self, condition: str, *parameters: Any) -> StoredObject | None:
        row = self._store.row(f"SELECT {COLUMNS} FROM storage_objects WHERE {condition} LIMIT 1", parameters)  # noqa: S608
        return None if row is None else StoredObject.of(row)

    def _write(self, tx: sqlite3.Connection, stored: StoredObject) -> None:
        values = vars(stored) | {"properties": json.dumps(stored.properties)}
        names = COLUMNS.replace(" ", "").split(",")
        marks = ", ".join(f":{name}" for name in names)
        tx.execute(f"INSERT OR REPLACE INTO storage_objects ({COLUMNS}) VALUES ({marks})", values)  # noqa: S608


def missing(bucket: str, name: str, generation: int | None) -> NotFound:
    suffix = f"#{generation}" if generation is not None else ""
    return NotFound(f"No such object: {bucket}/{name}{suffix}")


def check_name(name: str) -> None:
    """Raises InvalidArgument for a name that no object can have."""
    if not name:
        raise InvalidArgument("Required", reason="required", location="name")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidArgument(
            f"The maximum object length is {MAX_NAME_BYTES} characters, but got a name with {len(name.encode())}:"
            f" ''{name[:64]}...''",
            reason="invalid",
        )
    if "\n" in name or "\r" in name or name in (".", "..") or name.startswith(".well-known/acme-challenge/"):
        raise InvalidArgument(f"Disallowed unicode characters present in object name '{name}'", reason="invalid")


def merged(before: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """JSON merge patch: null removes, mappings merge, everything else replaces."""
    result = dict(before)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            current = result.get(key)
            result[key] = merged(current if isinstance(current, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def checked_properties(properties: dict[str, Any]) -> dict[str, Any]:
    for field in ("customTime",):
        if field in properties:
            try:
                properties[field] = times.text(times.parse(properties[field]))
            except (ValueError, TypeError):
                raise InvalidArgument(f"Invalid value for {field}: '{properties[field]}'", reason="invalid") from None
    for field in ("cacheControl", "contentDisposition", "contentEncoding", "contentLanguage", "contentType"):
        value = properties.get(field, "")
        if not isinstance(value, str) or any(ord(char) < 32 or ord(char) == 127 for char in value):
            raise InvalidArgument(
                f"Invalid value for {field}: it becomes a header and holds control characters", reason="invalid"
            )
    metadata = properties.get("metadata")
    for key, value in (metadata or {}).items():
        if not key or any(ord(char) < 32 or ord(char) == 127 for char in key) or not isinstance(value, str):
            raise InvalidArgument(f"Invalid metadata key or value: '{key}'", reason="invalid")
    if metadata is not None:
        size = sum(len(str(key).encode()) + len(str(value).encode()) for key, value in metadata.items())
        if size > 8 * 1024:
            raise InvalidArgument(
                "The total size of object metadata exceeds the maximum of 8192 bytes.", reason="invalid"
            )
        if not metadata:
            properties.pop("metadata")
    return properties


def _refuse_holds(found: StoredObject) -> None:
    for field, words in (("temporaryHold", "Temporary"), ("eventBasedHold", "Event-Based")):
        if found.properties.get(field):
            raise PermissionDenied(
                f"Object '{found.path}' is under active {words} hold and cannot be deleted, overwritten or archived"
                " until hold is removed.",
                reason="forbidden",
            )


def _check_custom_time(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    old = before.get("customTime")
    if old is None:
        return
    new = after.get("customTime")
    try:
        is_later = new is not None and times.parse(new) >= times.parse(old)
    except (ValueError, TypeError):
        is_later = True  # `checked_properties` refuses it by name
    if not is_later:
        raise InvalidArgument(
            "Custom time cannot be set to a datetime earlier than the existing one, nor be removed.", reason="invalid"
        )


def _complete_retention(
    home: Mapping[str, Any], before: Mapping[str, Any], after: dict[str, Any], now: datetime, override: bool = False
) -> None:
    old = before.get("retention") or {}
    # Clients send back when it ends, which is for Cloud Storage to say.
    new = {name: value for name, value in (after.pop("retention", None) or {}).items() if name in RETENTION_FIELDS}
    if new:
        after["retention"] = new
    if old == new:
        return
    if home.get("objectRetention", {}).get("mode") != "Enabled":
        raise InvalidArgument("The bucket is not enabled for object retention.", reason="invalid")
    if new and (new.get("mode") not in ("Locked", "Unlocked") or not new.get("retainUntilTime")):
        raise InvalidArgument("Object retention needs mode (Locked or Unlocked) and retainUntilTime.", reason="invalid")
    if not old or not old.get("retainUntilTime"):
        return
    until = times.parse(old["retainUntilTime"])
    is_weaker = (
        not new
        or times.parse(new["retainUntilTime"]) < until
        or (old.get("mode") == "Locked" and new.get("mode") != "Locked")
    )
    if is_weaker and until > now and (old.get("mode") == "Locked" or not override):
        raise PermissionDenied("The object retention cannot be shortened or removed.", reason="forbidden")


def _key(found: StoredObject) -> tuple[str, str, int]:
    return found.bucket, found.name, found.generation


def _folded(name: str, prefix: str, delimiter: str) -> str | None:
    """The common prefix that stands for `name` in a listing, or None when it stands for itself."""
    if not delimiter:
        return None
    at = name.find(delimiter, len(prefix))
    return None if at < 0 else name[: at + len(delimiter)]


def _token(name: str, generation: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([name, generation]).encode()).decode()


def _cursor(token: str) -> tuple[str, int]:
    try:
        name, generation = json.loads(base64.urlsafe_b64decode(token))
        if not (isinstance(name, str) and isinstance(generation, int) and abs(generation) < 1 << 63):
            raise ValueError(token)
        name.encode()
        return name, generation
    except (ValueError, TypeError):
        raise InvalidArgument(f"Invalid page token: {token}", reason="invalid", location="pageToken") from None


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
