"""The delivery of tasks: one pump per queue, within its rate and concurrency, until a 2xx or the end of the retries."""

import asyncio
import base64
import contextlib
import json
import logging
import sqlite3
import time
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from localgcp.clock import seconds, timestamp
from localgcp.errors import AlreadyExists, NotFound
from localgcp.targets import Answer, Caller, NoResponse, kept_headers, rpc_status
from localgcp.tasks.overrides import overridden
from localgcp.tasks.policy import (
    DEFAULT_DISPATCH_DEADLINE_SECONDS,
    NAME_RESERVED_SECONDS,
    Retry,
    TokenBucket,
    burst_size,
)

if TYPE_CHECKING:
    from localgcp.region import Region

SCHEMA = """
CREATE TABLE IF NOT EXISTS tasks (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    queue TEXT NOT NULL,
    body TEXT NOT NULL,
    due REAL NOT NULL,
    created REAL NOT NULL,
    dispatches INTEGER NOT NULL DEFAULT 0,
    responses INTEGER NOT NULL DEFAULT 0,
    executions INTEGER NOT NULL DEFAULT 0,
    first_dispatch REAL,
    previous_status INTEGER,
    last_attempt TEXT
);
CREATE INDEX IF NOT EXISTS tasks_due ON tasks (queue, due, seq);
CREATE INDEX IF NOT EXISTS tasks_of_queue ON tasks (queue, seq);
CREATE TABLE IF NOT EXISTS task_names (name TEXT PRIMARY KEY, queue TEXT NOT NULL, free_at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS task_names_free ON task_names (free_at);
"""
# How many due tasks are read at once; more would only wait in memory for the rate.
BATCH = 100
# A queue that is paused, deleted or made faster need not wait for the token of a slow one.
MAX_NAP_SECONDS = 0.5
log = logging.getLogger(__name__)


class Dispatcher:
    """Holds the tasks of every queue. Everything it promises is in the store before it answers."""

    def __init__(self, region: "Region") -> None:
        self._region = region
        self._store = region.store
        self._store.define(SCHEMA)
        self._pumps: dict[str, Pump] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self.caller = Caller(region)

    # Tasks

    def add(self, queue: str, name: str, body: dict[str, Any], due: float) -> None:
        """Raises AlreadyExists while the name is in use or was so too recently."""
        now = self._now()
        try:
            with self._store.transaction() as tx:
                if self.is_reserved(name):
                    raise AlreadyExists(
                        "The task cannot be created because a task with this name existed too recently. For more"
                        " information about task de-duplication see the documentation of tasks.create."
                    )
                tx.execute(
                    "INSERT INTO tasks (name, queue, body, due, created) VALUES (?, ?, ?, ?, ?)",
                    (name, queue, json.dumps(body), due, now),
                )
        except sqlite3.IntegrityError:
            raise AlreadyExists("Requested entity already exists") from None
        self.wake(queue)

    def is_reserved(self, name: str) -> bool:
        """Whether a task of this name was done or deleted too recently."""
        reserved = self._store.row("SELECT free_at FROM task_names WHERE name = ?", (name,))
        return reserved is not None and reserved["free_at"] > self._now()

    def find(self, name: str) -> sqlite3.Row | None:
        return self._store.row("SELECT * FROM tasks WHERE name = ?", (name,))

    def page(self, queue: str, after: int, limit: int) -> "Rows":
        """Tasks in the order of their creation, beginning behind the one that has `seq` = `after`.

        What is done or retried between two pages moves nothing to a page that was read already.
        """
        return self._store.rows(
            "SELECT * FROM tasks WHERE queue = ? AND seq > ? ORDER BY seq LIMIT ?", (queue, after, limit)
        )

    def remove(self, name: str) -> None:
        """Raises NotFound. The name stays reserved."""
        with self._store.transaction() as tx:
            row = tx.execute("DELETE FROM tasks WHERE name = ? RETURNING queue", (name,)).fetchone()
            if row is None:
                raise NotFound("Requested entity was not found.")
            self._reserve(tx, name, row["queue"])

    def purge(self, queue: str) -> None:
        with self._store.transaction() as tx:
            tx.execute(
                "INSERT OR REPLACE INTO task_names SELECT name, queue, ? FROM tasks WHERE queue = ?",
                (self._now() + NAME_RESERVED_SECONDS, queue),
            )
            tx.execute("DELETE FROM tasks WHERE queue = ?", (queue,))

    def forget(self, queue: str) -> None:
        """The queue was deleted: its tasks and their names go with it."""
        with self._store.transaction() as tx:
            tx.execute("DELETE FROM tasks WHERE queue = ?", (queue,))
            tx.execute("DELETE FROM task_names WHERE queue = ?", (queue,))
        self.wake(queue)

    # Delivery

    def start(self) -> None:
        """Begin delivery for every queue that is stored. Call on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._region.clock.watch(self.wake_all)
        with self._store.transaction() as tx:
            tx.execute("DELETE FROM task_names WHERE free_at < ?", (self._now(),))
        queues = {f"cloudtasks/{row['queue']}" for row in self._store.rows("SELECT DISTINCT queue FROM tasks")}
        for key in queues:
            self._pump(key.partition("/")[2]).wake()

    async def stop(self) -> None:
        for pump in self._pumps.values():
            pump.stop()
        await self.caller.close()

    def wake(self, queue: str) -> None:
        """Something about the queue changed; may be called from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(lambda: self._pump(queue).wake())

    def wake_all(self) -> None:
        for queue in list(self._pumps):
            self.wake(queue)

    async def force(self, queue: str, name: str) -> sqlite3.Row:
        """Deliver one task at this moment, whatever its queue's state, rate and concurrency.

        The task as it is when it is dispatched and not yet answered. Raises NotFound.
        """
        return await self._pump(queue).force(name)

    def _pump(self, queue: str) -> "Pump":
        if queue not in self._pumps:
            self._pumps[queue] = Pump(self._region, self, queue)
        return self._pumps[queue]

    def _now(self) -> float:
        return self._region.clock.now().timestamp()

    def _reserve(self, tx: sqlite3.Connection, name: str, queue: str) -> None:
        tx.execute(
            "INSERT OR REPLACE INTO task_names (name, queue, free_at) VALUES (?, ?, ?)",
            (name, queue, self._now() + NAME_RESERVED_SECONDS),
        )

    # Used by the pumps, in a worker thread.

    def due(self, queue: str, limit: int, excluded: set[str]) -> "Rows":
        rows = self._store.rows(
            "SELECT * FROM tasks WHERE queue = ? AND due <= ? ORDER BY due, seq LIMIT ?",
            (queue, self._now(), limit + len(excluded)),
        )
        return [row for row in rows if row["name"] not in excluded][:limit]

    def next_due(self, queue: str, excluded: set[str]) -> float | None:
        rows = self._store.rows(
            "SELECT name, due FROM tasks WHERE queue = ? ORDER BY due LIMIT ?", (queue, len(excluded) + 1)
        )
        return next((float(row["due"]) for row in rows if row["name"] not in excluded), None)

    def dispatched(self, row: sqlite3.Row, at: datetime) -> bool:
        """Whether the task was still there: one that was deleted since it was read is not delivered."""
        attempt = {"scheduleTime": _timestamp(row["due"]), "dispatchTime": timestamp(at)}
        with self._store.transaction() as tx:
            changed = tx.execute(
                "UPDATE tasks SET dispatches = dispatches + 1, first_dispatch = coalesce(first_dispatch, ?),"
                " last_attempt = ? WHERE seq = ?",
                (at.timestamp(), json.dumps(attempt), row["seq"]),
            )
            return changed.rowcount > 0

    def completed(self, name: str, queue: str) -> None:
        with self._store.transaction() as tx:
            if tx.execute("DELETE FROM tasks WHERE name = ?", (name,)).rowcount:
                self._reserve(tx, name, queue)

    def failed(self, name: str, due: float, status: int | None, attempt: dict[str, Any]) -> None:
        with self._store.transaction() as tx:
            tx.execute(
                "UPDATE tasks SET due = ?, responses = responses + ?, executions = executions + ?,"
                " previous_status = ?, last_attempt = ? WHERE name = ?",
                (due, status is not None, status is not None and status < 500, status, json.dumps(attempt), name),
            )


Rows = list[sqlite3.Row]


class Pump:
    """Delivers the tasks of one queue."""

    def __init__(self, region: "Region", dispatcher: Dispatcher, queue: str) -> None:
        self._region = region
        self._dispatcher = dispatcher
        self._queue = queue
        self._changed = asyncio.Event()
        # How many deliveries of each task are under way: running one by hand may add to another.
        self._in_flight: Counter[str] = Counter()
        self._attempts: set[asyncio.Task[None]] = set()
        self._bucket: TokenBucket | None = None
        self._loop_task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        self._changed.set()
        if self._loop_task is None or self._loop_task.done():
            self._loop_task = self._region.spawn(self._run())

    def stop(self) -> None:
        for attempt in [*self._attempts, *([self._loop_task] if self._loop_task else [])]:
            attempt.cancel()

    async def force(self, name: str) -> sqlite3.Row:
        row = await self._region.run_in_thread(self._dispatcher.find, name)
        config = await self._region.run_in_thread(self._region.store.find, f"cloudtasks/{self._queue}")
        if row is None or config is None:
            raise NotFound("Requested entity was not found.")
        begun = asyncio.Event()
        attempt = self._start(row, config, begun)
        await begun.wait()
        if attempt.done():
            attempt.result()
        return await self._region.run_in_thread(self._dispatcher.find, name) or row

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            config = await self._region.run_in_thread(self._region.store.find, f"cloudtasks/{self._queue}")
            if config is None:
                return
            if config.get("state") != "RUNNING":
                await self._changed.wait()
                continue
            limits = config["rateLimits"]
            free = int(limits["maxConcurrentDispatches"]) - len(self._in_flight)
            batch: Rows = []
            if free > 0:
                batch = await self._region.run_in_thread(
                    self._dispatcher.due, self._queue, min(free, BATCH), set(self._in_flight)
                )
            if not batch:
                await self._wait_for_work(full=free <= 0)
                continue
            for row in batch:
                current = await self._token(config)
                if current is None:
                    break
                self._start(row, current)

    async def _token(self, config: dict[str, Any]) -> dict[str, Any] | None:
        """Wait for a token. What the queue is like by then; None when it no longer runs."""
        while True:
            if self._changed.is_set():
                changed = await self._region.run_in_thread(self._region.store.find, f"cloudtasks/{self._queue}")
                if changed is None or changed.get("state") != "RUNNING":
                    return None
                config = changed
            rate = float(config["rateLimits"]["maxDispatchesPerSecond"])
            if self._bucket is None:
                self._bucket = TokenBucket(rate, burst_size(rate), time.monotonic())
            if self._bucket.rate != rate:
                self._bucket.configure(rate, burst_size(rate))
            wait = self._bucket.take(time.monotonic())
            if wait <= 0:
                return config
            await asyncio.sleep(min(wait, MAX_NAP_SECONDS))

    async def _wait_for_work(self, *, full: bool) -> None:
        """Until a task is added, an attempt ends, the queue or the clock changes, or the next task is due."""
        wait: float | None = None
        if not full:
            due = await self._region.run_in_thread(self._dispatcher.next_due, self._queue, set(self._in_flight))
            wait = None if due is None else max(0.0, due - self._region.clock.now().timestamp())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), wait)

    def _start(
        self, row: sqlite3.Row, config: dict[str, Any], begun: asyncio.Event | None = None
    ) -> "asyncio.Task[None]":
        self._in_flight[row["name"]] += 1
        attempt = asyncio.get_running_loop().create_task(self._attempt(row, config, begun or asyncio.Event()))
        self._attempts.add(attempt)
        attempt.add_done_callback(partial(self._ended, row["name"]))
        return attempt

    def _ended(self, name: str, attempt: asyncio.Task[None]) -> None:
        self._attempts.discard(attempt)
        self._in_flight[name] -= 1
        if not self._in_flight[name]:
            del self._in_flight[name]
        if not attempt.cancelled() and attempt.exception() is not None:
            log.error("an attempt in %s broke", self._queue, exc_info=attempt.exception())
        self._changed.set()

    async def _attempt(self, row: sqlite3.Row, config: dict[str, Any], begun: asyncio.Event) -> None:
        name: str = row["name"]
        dispatched_at = self._region.clock.now()
        try:
            is_there = await self._region.run_in_thread(self._dispatcher.dispatched, row, dispatched_at)
        finally:
            begun.set()
        if not is_there:
            return
        task = json.loads(row["body"])
        request = overridden(task["httpRequest"], config.get("httpTarget", {}))
        deliveries = [self._delivered(row, task, request)]
        if (duplicate := self._region.faults.duplicate(name)) is not None:
            deliveries.append(self._delivered(row, task, request, after_seconds=duplicate))
        outcomes = await asyncio.gather(*deliveries)
        if any(answer is not None and answer.is_success for answer, _ in outcomes):
            await self._region.run_in_thread(self._dispatcher.completed, name, self._queue)
            return
        answer, reason = outcomes[-1]
        await self._failed(row, task, config, answer, reason, dispatched_at)

    async def _failed(
        self,
        row: sqlite3.Row,
        task: dict[str, Any],
        config: dict[str, Any],
        answer: Answer | None,
        reason: str,
        dispatched_at: datetime,
    ) -> None:
        now = self._region.clock.now()
        attempts = row["dispatches"] + 1
        retry = Retry.of(task.get("retryConfig") or config["retryConfig"])
        first = row["first_dispatch"] if row["first_dispatch"] is not None else dispatched_at.timestamp()
        if retry.is_exhausted(attempts, now.timestamp() - first):
            log.warning("%s ran out of attempts (%d) and is dropped", row["name"], attempts)
            await self._region.run_in_thread(self._dispatcher.completed, row["name"], self._queue)
            return
        wait = retry.backoff_seconds(attempts)
        if answer is not None:
            wait = max(wait, answer.retry_after_seconds())
        status = None if answer is None else answer.status
        attempt = {
            "scheduleTime": _timestamp(row["due"]),
            "dispatchTime": timestamp(dispatched_at),
            "responseTime": timestamp(now),
            "responseStatus": rpc_status(answer, reason),
        }
        await self._region.run_in_thread(self._dispatcher.failed, row["name"], now.timestamp() + wait, status, attempt)

    async def _delivered(
        self, row: sqlite3.Row, task: dict[str, Any], request: dict[str, Any], *, after_seconds: float = 0.0
    ) -> tuple[Answer | None, str]:
        """The answer, or why there is none."""
        if after_seconds:
            await asyncio.sleep(after_seconds)
        try:
            return await self._deliver(row, task, request), ""
        except NoResponse as failure:
            return None, str(failure)
        except Exception:
            # Whatever it is, the attempt has failed: without that, the task would be due again at once, and for ever.
            log.exception("%s could not be delivered", row["name"])
            return None, "INTERNAL"

    async def _deliver(self, row: sqlite3.Row, task: dict[str, Any], target: dict[str, Any]) -> Answer:
        headers = kept_headers(target.get("headers", {})) | {
            "User-Agent": "Google-Cloud-Tasks",
            "X-CloudTasks-QueueName": self._queue.rpartition("/")[2],
            "X-CloudTasks-TaskName": row["name"].rpartition("/")[2],
            "X-CloudTasks-TaskRetryCount": str(row["dispatches"]),
            # Answers from the handler, which 5xx ones are not.
            "X-CloudTasks-TaskExecutionCount": str(row["executions"]),
            "X-CloudTasks-TaskETA": f"{row['due']:.6f}",
        }
        if row["previous_status"] is not None:
            headers["X-CloudTasks-TaskPreviousResponse"] = str(row["previous_status"])
        if row["dispatches"]:
            previous = row["previous_status"]
            reason = "DEADLINE_EXCEEDED" if previous is None else f"HTTP status {previous}"
            headers["X-CloudTasks-TaskRetryReason"] = reason
        headers |= await self._dispatcher.caller.authorization(target, target["url"])
        deadline = task.get("dispatchDeadline")
        return await self._dispatcher.caller.call(
            method=target.get("httpMethod", "POST"),
            url=target["url"],
            headers=headers,
            body=base64.b64decode(target.get("body", "")),
            deadline_seconds=seconds(deadline) if deadline else DEFAULT_DISPATCH_DEADLINE_SECONDS,
        )


def _timestamp(moment: float) -> str:
    return timestamp(datetime.fromtimestamp(moment, UTC))
