"""Log entries: written in batches, kept up to a size, read back with Logging's own filters.

They have a database of their own. A workload's line is no acknowledged write, so it may wait a moment for company,
and a flood of lines never stands in the way of the region's resources. `flush` makes everything durable at once, which
`entries.write` does before it answers.
"""

import asyncio
import itertools
import json
import secrets
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from localgcp.clock import Clock
from localgcp.clock import timestamp as rfc3339
from localgcp.enums import SEVERITIES
from localgcp.logfilter import Filter, parse

SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    project TEXT NOT NULL,
    log_name TEXT NOT NULL,
    moment TEXT NOT NULL,
    insert_id TEXT,
    body TEXT NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS entries_once ON entries (project, log_name, moment, insert_id)
    WHERE insert_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS entries_moment ON entries (moment, seq);
"""

BATCH_SECONDS = 0.2
#: Beyond this the oldest entries go. Cloud Logging keeps 30 days; a laptop's disk is the scarcer thing.
MAX_BYTES = 512 * 1024 * 1024
PAGE = 500


class Logs:
    def __init__(self, path: Path, clock: Clock, *, max_bytes: int = MAX_BYTES) -> None:
        self._clock = clock
        self._max_bytes = max_bytes
        self._id_prefix = secrets.token_hex(5)
        self._ids = itertools.count(1)
        self._pending: list[tuple[str, str, str, str | None, str]] = []
        self._lock = threading.Lock()
        self._connection_lock = threading.Lock()
        self._wake = threading.Event()
        self._is_closed = False
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(SCHEMA)
        self._writer = threading.Thread(target=self._write_batches, name="localgcp-logs", daemon=True)
        self._writer.start()

    def write(
        self,
        project: str,
        log_name: str,
        resource: Mapping[str, Any],
        *,
        severity: str = "DEFAULT",
        text: str | None = None,
        json: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        trace: str | None = None,
        timestamp: datetime | None = None,
    ) -> None:
        """Write an entry to the log of that id (`run.googleapis.com/stdout`) soon."""
        entry: dict[str, Any] = {"resource": dict(resource), "severity": severity}
        if json is not None:
            entry["jsonPayload"] = dict(json)
        elif text is not None:
            entry["textPayload"] = text
        if labels:
            entry["labels"] = dict(labels)
        if trace:
            entry["trace"] = trace
        if timestamp is not None:
            entry["timestamp"] = rfc3339(timestamp)
        self.write_entry(project, log_name, entry)

    def write_entry(self, project: str, log_name: str, entry: Mapping[str, Any]) -> None:
        """Write an entry in the API's own form; what is missing is filled in."""
        now = rfc3339(self._clock.now())
        full_name = f"projects/{project}/logs/{quote(log_name, safe='')}"
        given = entry.get("timestamp")
        complete = {
            **entry,
            "logName": full_name,
            # Entries of one moment keep their order, as Logging sorts them: by insertId.
            "insertId": entry.get("insertId") or f"{self._id_prefix}{next(self._ids):010x}",
            "timestamp": given or now,
            "receiveTimestamp": now,
        }
        moment = _sortable(given) if given else f"{now[:-1]}000Z"
        if complete.get("severity") in (None, "", "DEFAULT"):
            complete.pop("severity", None)
        # Only an id that a client chose can come twice.
        self._append((project, full_name, moment, entry.get("insertId"), json.dumps(complete)))

    def write_members(self, project: str, log_name: str, members: str) -> None:
        """Write an entry given as the members of its JSON object, without the braces: what a hot path can afford."""
        now = rfc3339(self._clock.now())
        full_name = f"projects/{project}/logs/{log_name.replace('/', '%2F')}"
        body = (
            f'{{{members}, "logName": "{full_name}", "insertId": "{self._id_prefix}{next(self._ids):010x}",'
            f' "timestamp": "{now}", "receiveTimestamp": "{now}"}}'
        )
        self._append((project, full_name, f"{now[:-1]}000Z", None, body))

    def _append(self, row: tuple[str, str, str, str | None, str]) -> None:
        with self._lock:
            self._pending.append(row)
        if not self._wake.is_set():
            self._wake.set()

    def flush(self) -> None:
        """Everything written so far is durable, and visible to queries."""
        with self._connection_lock:
            with self._lock:
                batch, self._pending = self._pending, []
            if not batch:
                return
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(
                # A client that repeats a write sends the same insertId: Logging keeps one of them.
                "INSERT OR IGNORE INTO entries (project, log_name, moment, insert_id, body) VALUES (?, ?, ?, ?, ?)",
                batch,
            )
            self._connection.execute("COMMIT")
            self._discard_oldest()

    def query(
        self,
        projects: Collection[str] = (),
        filter: str = "",
        *,
        newest_first: bool = False,
        limit: int | None = None,
        after: tuple[str, int] | None = None,
    ) -> Iterator[tuple[tuple[str, int], dict[str, Any]]]:
        """Entries with the position to go on from, by timestamp. No project means every project."""
        wanted = parse(filter)
        self.flush()
        found = 0
        position = after
        while True:
            rows = self._page(projects, wanted, newest_first=newest_first, after=position)
            for seq, moment, body in rows:
                position = (moment, seq)
                entry = json.loads(body)
                if wanted.matches(entry):
                    yield position, entry
                    found += 1
                    if limit is not None and found >= limit:
                        return
            if len(rows) < PAGE:
                return

    async def follow(
        self,
        projects: Collection[str] = (),
        filter: str = "",
        *,
        poll_seconds: float = 0.2,
    ) -> AsyncIterator[dict[str, Any]]:
        """Entries as they arrive, from the moment of the call on. Never ends by itself."""
        wanted = parse(filter)
        self.flush()
        last = self._last_seq()
        while True:
            rows = await asyncio.to_thread(self._arrived, last)
            for seq, project, body in rows:
                last = seq
                entry = json.loads(body)
                if (not projects or project in projects) and wanted.matches(entry):
                    yield entry
            if not rows:
                await asyncio.sleep(poll_seconds)

    def log_names(self, project: str) -> list[str]:
        self.flush()
        with self._connection_lock:
            rows = self._connection.execute(
                "SELECT DISTINCT log_name FROM entries WHERE project = ? ORDER BY log_name", (project,)
            ).fetchall()
        return [row[0] for row in rows]

    def delete_log(self, project: str, full_name: str) -> int:
        self.flush()
        with self._connection_lock:
            return self._connection.execute(
                "DELETE FROM entries WHERE project = ? AND log_name = ?", (project, full_name)
            ).rowcount

    def close(self) -> None:
        self._is_closed = True
        self._wake.set()
        self._writer.join(timeout=5)
        self.flush()
        self._connection.close()

    def _page(
        self, projects: Collection[str], wanted: Filter, *, newest_first: bool, after: tuple[str, int] | None
    ) -> list[tuple[int, str, str]]:
        conditions, parameters = ["1"], []
        if projects:
            conditions.append(f"project IN ({', '.join('?' * len(projects))})")
            parameters += list(projects)
        if wanted.earliest is not None:
            conditions.append("moment >= ?")
            parameters.append(_sortable(rfc3339(wanted.earliest)))
        if wanted.latest is not None:
            conditions.append("moment <= ?")
            parameters.append(_sortable(rfc3339(wanted.latest)) + "~")
        if after is not None:
            conditions.append("(moment, seq) < (?, ?)" if newest_first else "(moment, seq) > (?, ?)")
            parameters += [after[0], after[1]]  # type: ignore[list-item]
        direction = "DESC" if newest_first else "ASC"
        with self._connection_lock:
            return self._connection.execute(
                f"SELECT seq, moment, body FROM entries WHERE {' AND '.join(conditions)}"  # noqa: S608 (constants)
                f" ORDER BY moment {direction}, seq {direction} LIMIT {PAGE}",
                parameters,
            ).fetchall()

    def _arrived(self, last: int) -> list[tuple[int, str, str]]:
        self.flush()
        with self._connection_lock:
            return self._connection.execute(
                f"SELECT seq, project, body FROM entries WHERE seq > ? ORDER BY seq LIMIT {PAGE}",  # noqa: S608
                (last,),
            ).fetchall()

    def _last_seq(self) -> int:
        with self._connection_lock:
            row = self._connection.execute("SELECT max(seq) FROM entries").fetchone()
        return int(row[0] or 0)

    def _write_batches(self) -> None:
        while not self._is_closed:
            self._wake.wait()
            self._wake.clear()
            time.sleep(BATCH_SECONDS)
            try:
                self.flush()
            except sqlite3.Error:
                # A full disk: the entries are lost, the region goes on. They are logs, and there is nowhere to say so.
                continue

    def _discard_oldest(self) -> None:
        used = self._connection.execute(
            "SELECT (page_count - freelist_count) * page_size"
            " FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
        )
        if used.fetchone()[0] <= self._max_bytes:
            return
        # A tenth at once, so that a full store does not delete at every batch.
        self._connection.execute(
            "DELETE FROM entries WHERE seq <= (SELECT min(seq) + (max(seq) - min(seq)) / 10 FROM entries)"
        )


def entry_of_line(line: str) -> dict[str, Any]:
    """What Cloud Run makes of a line on stdout or stderr: structured when it is a JSON object, else text."""
    stripped = line.strip()
    if stripped.startswith("{"):
        try:
            payload = json.loads(stripped)
        except ValueError:
            payload = None
        if isinstance(payload, dict):
            return _structured(payload)
    return {"textPayload": line}


SPECIAL_FIELDS = {
    "logging.googleapis.com/trace": "trace",
    "logging.googleapis.com/spanId": "spanId",
    "logging.googleapis.com/trace_sampled": "traceSampled",
    "logging.googleapis.com/labels": "labels",
    "logging.googleapis.com/insertId": "insertId",
    "logging.googleapis.com/operation": "operation",
    "logging.googleapis.com/sourceLocation": "sourceLocation",
    "httpRequest": "httpRequest",
}


def _structured(payload: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    severity = payload.get("severity", payload.get("level"))
    if isinstance(severity, str) and _severity(severity) is not None:
        entry["severity"] = _severity(severity)
        payload.pop("severity", None)
    for name, field in SPECIAL_FIELDS.items():
        if name in payload:
            entry[field] = payload.pop(name)
    if isinstance(entry.get("labels"), dict):
        entry["labels"] = {str(key): str(value) for key, value in entry["labels"].items()}
    for name in ("time", "timestamp"):
        moment = payload.get(name)
        if isinstance(moment, str) and _is_timestamp(moment):
            entry["timestamp"] = payload.pop(name)
            break
    # One message and nothing else is a text entry: Cloud Run documentation, "Writing structured logs".
    if set(payload) == {"message"} and isinstance(payload["message"], str):
        return {**entry, "textPayload": payload["message"]}
    return {**entry, "jsonPayload": payload}


def _severity(text: str) -> str | None:
    name = text.upper()
    name = {"WARN": "WARNING", "FATAL": "CRITICAL", "ERR": "ERROR", "TRACE": "DEBUG"}.get(name, name)
    return name if name in SEVERITIES else None


def _is_timestamp(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _sortable(text: str) -> str:
    """UTC with nine digits: the order of the texts is the order of the moments."""
    digits = ""
    whole = text
    if "." in text:
        head, _, tail = text.partition(".")
        digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
        whole = head + tail[len(digits) :]
    moment = datetime.fromisoformat(whole)
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{digits[:9]:0<9}Z"
