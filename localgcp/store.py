"""Everything the region knows: one SQLite database in WAL mode.

An acknowledged write survives `kill -9`: every change is committed before the answer leaves. (`synchronous=NORMAL`
keeps what the operating system has; losing the machine's power can cost the last moments, losing the process cannot.)

Resources are JSON bodies under a key, `<api>/<relative resource name>`. What does not fit (objects, log entries, tasks)
has tables of its own, declared by the service through `Store.define`.
"""

import contextvars
import json
import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from localgcp.errors import AlreadyExists, NotFound

SCHEMA = """
CREATE TABLE IF NOT EXISTS resources (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    collection TEXT NOT NULL,
    body TEXT NOT NULL,
    request_id TEXT UNIQUE
);
CREATE INDEX IF NOT EXISTS resources_collection ON resources (collection, seq);
CREATE TABLE IF NOT EXISTS policies (key TEXT PRIMARY KEY, policy TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS counters (key TEXT, counter TEXT, value INTEGER NOT NULL, PRIMARY KEY (key, counter));
CREATE TABLE IF NOT EXISTS projects (id TEXT PRIMARY KEY, number TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""

#: The id of the creating request. `create` keeps it beside the resource, in the same transaction, so that a client
#: whose answer was lost can ask again and gets what its first request created.
creating_request_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("creating_request_id", default=None)


class Resource(dict[str, Any]):
    """The JSON body of a resource, and the key it is stored under.

    One that comes out of a list knows its place in the order of creation, which no other resource has had or will have.
    """

    def __init__(self, key: str, body: Mapping[str, Any], place: int | None = None) -> None:
        super().__init__(body)
        self.key = key
        self.place = place

    @property
    def relative_name(self) -> str:
        return self.key.partition("/")[2]


# `Store.list` hides the built-in name inside the class, hence these.
Resources = list[Resource]
Rows = list[sqlite3.Row]


class Store:
    def __init__(self, path: Path) -> None:
        self._path = path
        # Signing keys and the payloads of secrets are in here.
        path.touch(mode=0o600)
        path.chmod(0o600)
        self._connections = threading.local()
        self._all: list[sqlite3.Connection] = []
        self._write_lock = threading.RLock()
        self._depth = threading.local()
        self.define(SCHEMA)

    def define(self, sql: str) -> None:
        """Declare tables of a service's own: `CREATE TABLE IF NOT EXISTS …`, may be run at every start."""
        with self._write_lock:
            self._connection().executescript(sql)

    def close(self) -> None:
        with self._write_lock:
            for connection in self._all:
                connection.close()
            self._all.clear()
            self._connections = threading.local()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, durable when the block ends. Re-entrant: an inner block joins the outer one."""
        with self._write_lock:
            connection = self._connection()
            depth: int = getattr(self._depth, "value", 0)
            self._depth.value = depth + 1
            try:
                if depth:
                    yield connection
                    return
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
            finally:
                self._depth.value = depth

    def rows(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Rows:
        return self._connection().execute(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> sqlite3.Row | None:
        found: sqlite3.Row | None = self._connection().execute(sql, parameters).fetchone()
        return found

    # Resources

    def find(self, key: str) -> Resource | None:
        row = self.row("SELECT body FROM resources WHERE key = ?", (key,))
        return None if row is None else Resource(key, json.loads(row["body"]))

    def get(self, key: str) -> Resource:
        """Raises NotFound."""
        resource = self.find(key)
        if resource is None:
            raise NotFound(f"Resource '{key.partition('/')[2]}' was not found")
        return resource

    def exists(self, key: str) -> bool:
        return self.row("SELECT 1 FROM resources WHERE key = ?", (key,)) is not None

    def create(self, key: str, body: Mapping[str, Any]) -> Resource:
        """Raises AlreadyExists."""
        try:
            with self.transaction() as tx:
                tx.execute(
                    "INSERT INTO resources (key, collection, body, request_id) VALUES (?, ?, ?, ?)",
                    (key, key.rpartition("/")[0], json.dumps(body), self._unused_request_id()),
                )
        except sqlite3.IntegrityError:
            raise AlreadyExists(f"Resource '{key.partition('/')[2]}' already exists") from None
        return Resource(key, body)

    def put(self, key: str, body: Mapping[str, Any]) -> Resource:
        """Write the whole body, whether the resource existed or not."""
        with self.transaction() as tx:
            tx.execute(
                "INSERT INTO resources (key, collection, body, request_id) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (key) DO UPDATE SET body = excluded.body",
                (key, key.rpartition("/")[0], json.dumps(body), None),
            )
        return Resource(key, body)

    def delete(self, key: str) -> None:
        """Delete a resource, what is below it, and their policies and counters. Raises NotFound."""
        # '0' follows '/' in ASCII: the range is exactly the keys that begin with "<key>/".
        below = (key, key + "/", key + "0")
        with self.transaction() as tx:
            if tx.execute("DELETE FROM resources WHERE key = ?", (key,)).rowcount == 0:
                raise NotFound(f"Resource '{key.partition('/')[2]}' was not found")
            for table in ("resources", "policies", "counters"):
                tx.execute(f"DELETE FROM {table} WHERE key = ? OR (key >= ? AND key < ?)", below)  # noqa: S608 (constants)

    def list(self, parent_key: str, collection: str) -> Resources:
        """The resources directly in `<parent_key>/<collection>`, oldest first."""
        rows = self.rows(
            "SELECT key, body, seq FROM resources WHERE collection = ? ORDER BY seq", (f"{parent_key}/{collection}",)
        )
        return [Resource(row["key"], json.loads(row["body"]), row["seq"]) for row in rows]

    def list_across(self, parent_pattern: str, collection: str) -> Resources:
        """The same of every parent that the pattern stands for, which has `-` where any name may be."""
        words = parent_pattern.split("/")
        before = "/".join(words[: words.index("-")]) + "/"
        pattern = re.compile(
            "/".join("[^/]+" if word == "-" else re.escape(word) for word in [*words, collection, "-"])
        )
        return [resource for resource in self.scan(before) if pattern.fullmatch(resource.key)]

    def scan(self, prefix: str) -> Resources:
        """Every resource whose key begins with `prefix`, oldest first. Reads them all: for recovery and rare lists."""
        rows = self.rows(
            "SELECT key, body, seq FROM resources WHERE key >= ? AND key < ? ORDER BY seq",
            (prefix, prefix + "\U0010ffff"),
        )
        return [Resource(row["key"], json.loads(row["body"]), row["seq"]) for row in rows]

    def created_by_request(self, request_id: str) -> Resource | None:
        row = self.row("SELECT key, body FROM resources WHERE request_id = ?", (request_id,))
        return None if row is None else Resource(row["key"], json.loads(row["body"]))

    def increment(self, key: str, counter: str) -> int:
        """The next number, from 1. A number is never given out twice while the resource exists."""
        with self.transaction() as tx:
            row = tx.execute(
                "INSERT INTO counters (key, counter, value) VALUES (?, ?, 1)"
                " ON CONFLICT (key, counter) DO UPDATE SET value = value + 1 RETURNING value",
                (key, counter),
            ).fetchone()
        return int(row["value"])

    # Policies

    def policy(self, key: str) -> dict[str, Any]:
        """The policy as it was set, `{}` when it never was."""
        row = self.row("SELECT policy FROM policies WHERE key = ?", (key,))
        return {} if row is None else json.loads(row["policy"])

    def set_policy(self, key: str, policy: Mapping[str, Any]) -> None:
        with self.transaction() as tx:
            tx.execute("INSERT OR REPLACE INTO policies (key, policy) VALUES (?, ?)", (key, json.dumps(policy)))

    # The region's own facts

    def setting(self, name: str) -> str | None:
        row = self.row("SELECT value FROM settings WHERE name = ?", (name,))
        return None if row is None else str(row["value"])

    def set_setting(self, name: str, value: str) -> None:
        with self.transaction() as tx:
            tx.execute("INSERT OR REPLACE INTO settings (name, value) VALUES (?, ?)", (name, value))

    def _unused_request_id(self) -> str | None:
        """The id of the request that is being served, for the first resource that it creates."""
        request_id = creating_request_id.get()
        if request_id is None or self.created_by_request(request_id):
            return None
        return request_id

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._connections, "value", None)
        if connection is None:
            connection = sqlite3.connect(self._path, isolation_level=None, timeout=30, check_same_thread=False)
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            self._connections.value = connection
            with self._write_lock:
                self._all.append(connection)
        return connection
