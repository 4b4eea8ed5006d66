"""Uploads that take several requests: resumable sessions, and multipart uploads of the XML API.

A session is a row and a growing file. How much has arrived is the file's size, so a session outlives the process
without a write to the database per chunk; a new process works the checksums out again from the file.
"""

import asyncio
import json
import secrets
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from localgcp.clock import Clock
from localgcp.errors import ApiError, InvalidArgument, NotFound, Unavailable
from localgcp.storage import times
from localgcp.storage.checksums import combine_crc32c
from localgcp.storage.files import Content, ContentFiles, ContentWriter
from localgcp.storage.objects import Allow, Objects, StoredObject
from localgcp.storage.preconditions import Preconditions
from localgcp.storage.ranges import SizeRange
from localgcp.store import Store

SCHEMA = """
CREATE TABLE IF NOT EXISTS storage_uploads (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('resumable', 'multipart')),
    bucket TEXT NOT NULL,
    name TEXT NOT NULL,
    principal TEXT,
    created TEXT NOT NULL,
    content TEXT,
    size INTEGER,
    request TEXT NOT NULL,
    result INTEGER
);
CREATE INDEX IF NOT EXISTS storage_uploads_bucket ON storage_uploads (bucket, kind);
CREATE TABLE IF NOT EXISTS storage_parts (
    upload TEXT NOT NULL,
    number INTEGER NOT NULL,
    content TEXT NOT NULL,
    size INTEGER NOT NULL,
    crc32c INTEGER NOT NULL,
    md5 BLOB NOT NULL,
    modified TEXT NOT NULL,
    PRIMARY KEY (upload, number)
);
"""
SESSION_LIFETIME = timedelta(days=7)  # "Resumable uploads" of Cloud Storage: a session URI expires after a week
MAX_PARTS = 10_000
MAX_OPEN_WRITERS = 128


class UploadCancelled(ApiError):
    """A session that its client has cancelled; Google answers a status code of its own."""

    status, code, default_reason = 499, "CANCELLED", "cancelled"


@dataclass(frozen=True, kw_only=True)
class Upload:
    """What a session was started with. `size` is what the client declared, None when it did not.

    `result` is the generation of the finished object.
    """

    id: str
    kind: str
    bucket: str
    name: str
    principal: str | None
    created: str
    content: str | None
    size: int | None
    request: Mapping[str, Any]
    result: int | None

    @property
    def preconditions(self) -> Preconditions:
        return Preconditions.from_json(self.request.get("preconditions", {}))

    @property
    def properties(self) -> dict[str, Any]:
        return dict(self.request.get("properties", {}))

    @property
    def sizes(self) -> SizeRange | None:
        sizes = self.request.get("sizes")
        return None if sizes is None else SizeRange(**sizes)

    @classmethod
    def of(cls, row: sqlite3.Row) -> "Upload":
        values = dict(row)
        values["request"] = json.loads(values["request"])
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Part:
    number: int
    content: str
    size: int
    crc32c: int
    md5: bytes
    modified: str

    @property
    def etag(self) -> str:
        return f'"{self.md5.hex()}"'


class Uploads:
    def __init__(self, store: Store, files: ContentFiles, objects: Objects, clock: Clock) -> None:
        store.define(SCHEMA)
        self._store = store
        self._files = files
        self._objects = objects
        self._clock = clock
        self._writers: dict[str, ContentWriter] = {}
        self._writers_lock = threading.Lock()
        # Weak: a lock lives as long as a request holds it or waits for it.
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    def begin(
        self,
        kind: str,
        bucket: str,
        name: str,
        *,
        principal: str | None,
        properties: Mapping[str, Any],
        preconditions: Preconditions,
        size: int | None = None,
        sizes: SizeRange | None = None,
        expected: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Upload:
        """A new session. `sizes` and `expected` are the sizes and checksums that the finished content must have."""
        content = None
        if kind == "resumable":
            writer = self._files.create()
            writer.close()
            content = writer.content_id
        upload = Upload(
            id=secrets.token_urlsafe(48),
            kind=kind,
            bucket=bucket,
            name=name,
            principal=principal,
            created=times.text(self._clock.now()),
            content=content,
            size=size,
            request={
                "properties": dict(properties),
                "preconditions": preconditions.to_json(),
                "sizes": None if sizes is None else vars(sizes),
                "expected": dict(expected or {}),
                "query": dict(query or {}),
            },
            result=None,
        )
        with self._store.transaction() as tx:
            tx.execute(
                "INSERT INTO storage_uploads (id, kind, bucket, name, principal, created, content, size, request)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (upload.id, kind, bucket, name, principal, upload.created, content, size, json.dumps(upload.request)),
            )
        return upload

    def get(self, upload_id: str, kind: str) -> Upload:
        """Raises NotFound for a session that is unknown, cancelled, or a week old."""
        row = self._store.row("SELECT * FROM storage_uploads WHERE id = ? AND kind = ?", (upload_id, kind))
        if row is None or times.parse(row["created"]) + SESSION_LIFETIME < self._clock.now():
            raise NotFound("The upload session does not exist: it was cancelled, has expired, or never was.")
        return Upload.of(row)

    def lock(self, upload_id: str) -> asyncio.Lock:
        """Two requests for one session are served one after the other."""
        lock = self._locks.get(upload_id)
        if lock is None:
            lock = self._locks[upload_id] = asyncio.Lock()
        return lock

    def writer(self, upload: Upload) -> ContentWriter:
        """The file of a resumable session, opened anew after a restart. Reads the whole file then: call in a thread."""
        writer = self._writers.get(upload.id)
        if writer is None:
            if upload.content is None:
                raise InvalidArgument("Invalid upload session.", reason="invalid")
            try:
                writer = self._files.reopen(upload.content)
            except FileNotFoundError:
                raise NotFound("The upload session does not exist any more.") from None
            with self._writers_lock:
                self._close_idle_writers()
                self._writers[upload.id] = writer
        return writer

    def check_offset(self, upload: Upload, writer: ContentWriter, offset: int) -> None:
        """Raises Unavailable when a client skips bytes that never arrived."""
        if offset > writer.size:
            raise Unavailable(
                f"Invalid request. According to the Content-Range header, the upload offset is {offset} byte(s), which"
                f" exceeds already uploaded size of {writer.size} byte(s)."
            )

    def finish(self, upload: Upload, writer: ContentWriter, allow: Allow, check: Any) -> StoredObject:
        """The object of a complete resumable session. `check(content)` raises when a checksum is wrong."""
        content = writer.finish()
        self._writers.pop(upload.id, None)
        check(content)

        def note(tx: sqlite3.Connection, stored: StoredObject) -> None:
            tx.execute(
                "UPDATE storage_uploads SET result = ?, content = NULL WHERE id = ?", (stored.generation, upload.id)
            )

        return self._objects.insert(
            upload.bucket,
            upload.name,
            content,
            upload.properties,
            preconditions=upload.preconditions,
            allow=allow,
            within=note,
        )

    def abort(self, upload_id: str) -> None:
        """Forget a session, and what it had received."""
        writer = self._writers.pop(upload_id, None)
        if writer is not None:
            writer.close()
        with self._store.transaction() as tx:
            rows = tx.execute("SELECT content FROM storage_parts WHERE upload = ?", (upload_id,)).fetchall()
            rows += tx.execute("DELETE FROM storage_uploads WHERE id = ? RETURNING content", (upload_id,)).fetchall()
            tx.execute("DELETE FROM storage_parts WHERE upload = ?", (upload_id,))
        self._files.delete(row["content"] for row in rows if row["content"])

    def abort_in(self, bucket: str) -> None:
        """Forget every session of a bucket that is being deleted."""
        for row in self._store.rows("SELECT id FROM storage_uploads WHERE bucket = ?", (bucket,)):
            self.abort(row["id"])

    def forget_expired(self) -> None:
        """Remove resumable sessions a week after they began. Multipart uploads stay until somebody aborts them."""
        limit = times.text(self._clock.now() - SESSION_LIFETIME)
        rows = self._store.rows("SELECT id FROM storage_uploads WHERE kind = 'resumable' AND created < ?", (limit,))
        for row in rows:
            self.abort(row["id"])

    # Multipart uploads of the XML API

    def multipart_in(self, bucket: str) -> list[Upload]:
        rows = self._store.rows(
            "SELECT * FROM storage_uploads WHERE bucket = ? AND kind = 'multipart' ORDER BY name, created", (bucket,)
        )
        return [Upload.of(row) for row in rows]

    def put_part(self, upload: Upload, number: int, content: Content) -> Part:
        """Add a part, or replace the one of that number."""
        if not 1 <= number <= MAX_PARTS:
            raise InvalidArgument(
                f"partNumber must be between 1 and {MAX_PARTS}, got {number}", reason="InvalidArgument"
            )
        if content.md5 is None:
            raise ValueError("a part is written in one go, so its MD5 is known")
        part = Part(
            number=number,
            content=content.id,
            size=content.size,
            crc32c=content.crc32c,
            md5=content.md5,
            modified=times.text(self._clock.now()),
        )
        with self._store.transaction() as tx:
            if tx.execute("SELECT 1 FROM storage_uploads WHERE id = ?", (upload.id,)).fetchone() is None:
                raise NotFound("The requested upload was not found.", reason="NoSuchUpload")
            replaced = tx.execute(
                "SELECT content FROM storage_parts WHERE upload = ? AND number = ?", (upload.id, number)
            ).fetchone()
            tx.execute(
                "INSERT OR REPLACE INTO storage_parts (upload, number, content, size, crc32c, md5, modified)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (upload.id, number, part.content, part.size, part.crc32c, part.md5, part.modified),
            )
        if replaced is not None:
            self._files.delete([replaced["content"]])
        return part

    def parts(self, upload: Upload) -> list[Part]:
        rows = self._store.rows(
            "SELECT number, content, size, crc32c, md5, modified FROM storage_parts WHERE upload = ? ORDER BY number",
            (upload.id,),
        )
        return [Part(**dict(row)) for row in rows]

    def complete(self, upload: Upload, asked: Sequence[tuple[int, str]], allow: Allow) -> StoredObject:
        """The object of the parts that the client lists: (number, etag) each, in ascending order."""
        known = {part.number: part for part in self.parts(upload)}
        chosen: list[Part] = []
        for number, etag in asked:
            part = known.get(number)
            if part is None or etag.strip('"') != part.etag.strip('"'):
                raise InvalidArgument(
                    f"One or more of the specified parts could not be found: part {number}.", reason="InvalidPart"
                )
            if chosen and number <= chosen[-1].number:
                raise InvalidArgument("The list of parts was not in ascending order.", reason="InvalidPartOrder")
            chosen.append(part)
        if not chosen:
            raise InvalidArgument("You must specify at least one part.", reason="MalformedXML")
        content_id = self._files.concatenate([part.content for part in chosen])
        crc32c, size = 0, 0
        for part in chosen:
            crc32c = combine_crc32c(crc32c, part.crc32c, part.size)
            size += part.size
        content = Content(id=content_id, size=size, crc32c=crc32c, md5=None)

        def forget(tx: sqlite3.Connection, _: StoredObject) -> None:
            tx.execute("DELETE FROM storage_uploads WHERE id = ?", (upload.id,))
            tx.execute("DELETE FROM storage_parts WHERE upload = ?", (upload.id,))

        try:
            stored = self._objects.insert(
                upload.bucket,
                upload.name,
                content,
                upload.properties,
                preconditions=upload.preconditions,
                component_count=len(chosen),
                allow=allow,
                within=forget,
            )
        except BaseException:
            self._files.delete([content_id])
            raise
        self._files.delete(part.content for part in known.values())
        return stored

    def referenced_contents(self) -> set[str]:
        rows: Iterable[sqlite3.Row] = self._store.rows(
            "SELECT content FROM storage_uploads WHERE content IS NOT NULL UNION SELECT content FROM storage_parts"
        )
        return {row["content"] for row in rows}

    def _close_idle_writers(self) -> None:
        """Abandoned sessions must not use up the process's file descriptors; whoever comes back reopens the file."""
        for upload_id in list(self._writers)[: max(0, len(self._writers) - MAX_OPEN_WRITERS)]:
            lock = self._locks.get(upload_id)
            if lock is None or not lock.locked():
                self._writers.pop(upload_id).close()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
