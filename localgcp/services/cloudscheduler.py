"""Cloud Scheduler: HTTP jobs that fire by their schedule, retry, and can be run at once or paused.

Pub/Sub and App Engine targets are refused. A run that a kill interrupts is made again, from its first attempt.
"""

import asyncio
import base64
import contextlib
import json
import logging
import re
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from localgcp import cron
from localgcp.clock import seconds, timestamp
from localgcp.errors import InvalidArgument, Unimplemented
from localgcp.generic import existing
from localgcp.identifiers import numeric_id
from localgcp.region import Region
from localgcp.service import Call, Service
from localgcp.store import Resource
from localgcp.targets import Answer, Caller, NoResponse, check_target, kept_headers, rpc_status
from localgcp.tasks.policy import Retry
from localgcp.validation import without_nulls

service = Service("cloudscheduler:v1")
JOBS = "projects.locations.jobs"
service.allow(
    "cloudscheduler.jobs",
    JOBS,
    pause="cloudscheduler.jobs.pause",
    resume="cloudscheduler.jobs.enable",
    run="cloudscheduler.jobs.run",
)
service.permissions["projects.locations.get"] = "cloudscheduler.locations.get"
service.permissions["projects.locations.list"] = "cloudscheduler.locations.list"
service.permissions["projects.locations.getCmekConfig"] = "cloudscheduler.cmekConfig.get"
service.permissions["projects.locations.updateCmekConfig"] = "cloudscheduler.cmekConfig.update"

JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,500}")
MAX_JOB_BYTES = 1024 * 1024
DEFAULT_ATTEMPT_DEADLINE = "180s"
# `RetryConfig` of Cloud Scheduler v1: what an unset field means.
DEFAULT_RETRY = {
    "retryCount": 0,
    "maxRetryDuration": "0s",
    "minBackoffDuration": "5s",
    "maxBackoffDuration": "3600s",
    "maxDoublings": 5,
}
MAX_RETRY_COUNT = 5
MAX_DESCRIPTION_LENGTH = 500
log = logging.getLogger(__name__)


# Runs that have begun, so that one which a kill interrupts is made again.
SCHEMA = "CREATE TABLE IF NOT EXISTS scheduler_runs (job TEXT PRIMARY KEY, schedule_time TEXT NOT NULL)"


class Timetable:
    """Fires the enabled jobs. One run of a job at a time: a firing that finds the last one at work comes after it."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._store = region.store
        self._store.define(SCHEMA)
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._late: dict[str, str] = {}
        self._caller = Caller(region)
        region.clock.watch(self.wake)

    def wake(self) -> None:
        """A job or the clock changed; may be called from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed.set)

    async def stop(self) -> None:
        for run in self._running.values():
            run.cancel()
        await self._caller.close()

    async def run(self) -> None:
        for row in await self._region.run_in_thread(self._store.rows, "SELECT job, schedule_time FROM scheduler_runs"):
            self._begin(row["job"], row["schedule_time"])
        while True:
            self._changed.clear()
            jobs = await self._region.run_in_thread(self._enabled)
            now = self._region.clock.now()
            moments = [now + timedelta(minutes=5)]
            for job in jobs:
                due = datetime.fromisoformat(job["scheduleTime"])
                if due <= now:
                    due = await self._region.run_in_thread(self._reschedule, job.key)
                    self._begin(job.key, job["scheduleTime"])
                moments.append(due)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), max(0.0, (min(moments) - now).total_seconds()))

    async def fire(self, key: str) -> None:
        """Run a job now."""
        schedule_time = timestamp(self._region.clock.now())
        await self._region.run_in_thread(self._note, key, schedule_time)
        self._begin(key, schedule_time)

    def _begin(self, key: str, schedule_time: str) -> None:
        if key in self._running:
            self._late[key] = schedule_time
            return
        run = self._loop.create_task(self._fire(key, schedule_time))
        self._running[key] = run
        run.add_done_callback(lambda _: self._ended(key))

    def _ended(self, key: str) -> None:
        run = self._running.pop(key)
        if run.cancelled():
            return
        if run.exception() is not None:
            log.error("a run of %s broke", key, exc_info=run.exception())
        if (schedule_time := self._late.pop(key, None)) is not None:
            self._begin(key, schedule_time)

    def _enabled(self) -> list[Resource]:
        jobs = self._store.scan("cloudscheduler/")
        return [job for job in jobs if job.get("state") == "ENABLED" and "/jobs/" in job.key]

    def _reschedule(self, key: str) -> datetime:
        with self._store.transaction():
            job = self._store.find(key)
            now = self._region.clock.now()
            if job is None:
                return now + timedelta(minutes=5)
            due = next_time(job, now)
            self._note(key, job["scheduleTime"])
            self._store.put(key, {**job, "scheduleTime": timestamp(due)})
            return due

    def _note(self, key: str, schedule_time: str) -> None:
        with self._store.transaction() as tx:
            tx.execute("INSERT OR REPLACE INTO scheduler_runs VALUES (?, ?)", (key, schedule_time))

    def _forget(self, key: str, schedule_time: str) -> None:
        with self._store.transaction() as tx:
            tx.execute("DELETE FROM scheduler_runs WHERE job = ? AND schedule_time = ?", (key, schedule_time))

    async def _fire(self, key: str, schedule_time: str) -> None:
        try:
            await self._attempts(key, schedule_time)
        except asyncio.CancelledError:
            raise  # localgcp stops: the run is made again
        except BaseException:
            await self._region.run_in_thread(self._forget, key, schedule_time)
            raise
        await self._region.run_in_thread(self._forget, key, schedule_time)

    async def _attempts(self, key: str, schedule_time: str) -> None:
        first = self._region.clock.now()
        attempt = 0
        # Read again for each attempt: it may have been changed or deleted meanwhile.
        while (job := await self._region.run_in_thread(self._store.find, key)) is not None:
            attempt += 1
            began = self._region.clock.now()
            answer, reason = await self._attempt(job, schedule_time)
            await self._region.run_in_thread(self._record, key, began, answer, reason)
            if answer is not None and answer.is_success:
                return
            backoff = backoff_of(job)
            elapsed = (self._region.clock.now() - first).total_seconds()
            if backoff is None or backoff.is_exhausted(attempt, elapsed):
                log.warning("%s failed", job["name"])
                return
            await self._rest(backoff.backoff_seconds(attempt))

    async def _rest(self, duration: float) -> None:
        until = self._region.clock.now() + timedelta(seconds=duration)
        # In short naps: the clock may be moved meanwhile.
        while (left := (until - self._region.clock.now()).total_seconds()) > 0:  # noqa: ASYNC110 (time, not an event)
            await asyncio.sleep(min(left, 1.0))

    async def _attempt(self, job: Resource, schedule_time: str) -> tuple[Answer | None, str]:
        target = job["httpTarget"]
        headers = {
            **({"Content-Type": "application/octet-stream"} if target.get("body") else {}),
            **kept_headers(target.get("headers", {})),
            "User-Agent": "Google-Cloud-Scheduler",
            "X-CloudScheduler": "true",
            "X-CloudScheduler-JobName": job["name"].rpartition("/")[2],
            "X-CloudScheduler-ScheduleTime": schedule_time,
        }
        try:
            headers |= await self._caller.authorization(target, target["uri"])
            answer = await self._caller.call(
                method=target.get("httpMethod", "POST"),
                url=target["uri"],
                headers=headers,
                body=base64.b64decode(target.get("body", "")),
                deadline_seconds=seconds(job.get("attemptDeadline", DEFAULT_ATTEMPT_DEADLINE)),
            )
        except NoResponse as failure:
            return None, str(failure)
        return answer, ""

    def _record(self, key: str, began: datetime, answer: Answer | None, reason: str) -> None:
        with self._store.transaction():
            current = self._store.find(key)
            if current is None:
                return
            current["lastAttemptTime"] = timestamp(began)
            is_success = answer is not None and answer.is_success
            current["status"] = {} if is_success else rpc_status(answer, reason)
            self._store.put(key, current)


def backoff_of(job: dict[str, Any]) -> Retry | None:
    """How the job's attempts are retried; None when they are not. Without `retryCount`, the duration alone decides."""
    retry = {**DEFAULT_RETRY, **job.get("retryConfig", {})}
    count, duration = int(retry["retryCount"]), seconds(retry["maxRetryDuration"])
    if count == 0 and duration == 0:
        return None
    return Retry(
        max_attempts=count + 1,
        max_retry_seconds=duration,
        min_backoff_seconds=seconds(retry["minBackoffDuration"]),
        max_backoff_seconds=seconds(retry["maxBackoffDuration"]),
        max_doublings=int(retry["maxDoublings"]),
    )


def next_time(job: dict[str, Any], after: datetime) -> datetime:
    """The next moment of the job's schedule. Raises InvalidArgument for a bad schedule or time zone."""
    schedule, zone_name = job.get("schedule", ""), job.get("timeZone") or "UTC"
    try:
        # The document spells this one in lower case.
        zone = ZoneInfo("UTC" if zone_name == "utc" else zone_name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidArgument(f"Job.timeZone is not a name of the tz database: {zone_name}") from None
    try:
        return cron.parse(schedule).next(after, zone)
    except cron.BadSchedule as error:
        raise InvalidArgument(f'Schedule has an invalid format: "{schedule}": {error}.') from None


@service.on_start
async def start(region: Region) -> None:
    region.timetable = Timetable(region)


@service.on_open
async def open_(region: Region) -> None:
    region.spawn(region.timetable.run())


@service.on_close
async def close(region: Region) -> None:
    await region.timetable.stop()


@service.method(f"{JOBS}.create")
def create(call: Call) -> Resource:
    call.body = without_nulls(call.body)
    name = call.body.setdefault("name", f"{call.named}/jobs/{numeric_id()}")
    if not name.startswith(f"{call.named}/jobs/") or not JOB_ID.fullmatch(name.rpartition("/")[2]):
        raise InvalidArgument(
            f'Job.name must be "{call.named}/jobs/<JOB_ID>", where JOB_ID is 1 to 500 letters, digits, hyphens and'
            f' underscores; got "{name}".'
        )
    call.body.setdefault("attemptDeadline", DEFAULT_ATTEMPT_DEADLINE)
    _check(call, call.body)
    call.body["scheduleTime"] = timestamp(next_time(call.body, call.region.clock.now()))
    call.body["state"] = "ENABLED"
    call.body["userUpdateTime"] = timestamp(call.region.clock.now())
    return _shown(call, call.proceed())


@service.method(f"{JOBS}.patch")
def patch(call: Call) -> Resource:
    with call.store.transaction():
        before = existing(call)
        job: Resource = call.proceed()
        # What the server keeps is not the caller's to leave out.
        job |= {name: before[name] for name in ("state", "scheduleTime", "lastAttemptTime", "status") if name in before}
        job.setdefault("attemptDeadline", DEFAULT_ATTEMPT_DEADLINE)
        _check(call, job)
        job["scheduleTime"] = timestamp(next_time(job, call.region.clock.now()))
        job["userUpdateTime"] = timestamp(call.region.clock.now())
        call.store.put(job.key, job)
    return _shown(call, job)


@service.method(f"{JOBS}.pause", f"{JOBS}.resume")
def set_state(call: Call) -> Resource:
    with call.store.transaction():
        job = existing(call)
        job["state"] = "PAUSED" if call.method.verb == "pause" else "ENABLED"
        job["scheduleTime"] = timestamp(next_time(job, call.region.clock.now()))
        call.store.put(job.key, job)
    return _shown(call, job)


@service.method(f"{JOBS}.run")
async def run(call: Call) -> Resource:
    job: Resource = await call.region.run_in_thread(existing, call)
    await call.region.timetable.fire(job.key)
    return job


def _check(call: Call, job: dict[str, Any]) -> None:
    target = job.get("httpTarget")
    if target is None or "pubsubTarget" in job or "appEngineHttpTarget" in job:
        raise Unimplemented("Only HTTP jobs are fired by localgcp: set Job.httpTarget, and no other target.")
    check_target(call, target, "Job.httpTarget", "uri")
    size = len(json.dumps(job))
    if size > MAX_JOB_BYTES:
        raise InvalidArgument(f"Job size too large: {size} bytes, and at most {MAX_JOB_BYTES} are allowed.")
    deadline = seconds(job.get("attemptDeadline", DEFAULT_ATTEMPT_DEADLINE))
    if not 15 <= deadline <= 1800:
        raise InvalidArgument(f"Job.attemptDeadline must be between [15s, 30m], got {job['attemptDeadline']}.")
    if len(job.get("description", "")) > MAX_DESCRIPTION_LENGTH:
        raise InvalidArgument(f"Job.description must not have more than {MAX_DESCRIPTION_LENGTH} characters.")
    _check_retry({**DEFAULT_RETRY, **job.get("retryConfig", {})})


def _check_retry(retry: dict[str, Any]) -> None:
    if not 0 <= int(retry["retryCount"]) <= MAX_RETRY_COUNT:
        raise InvalidArgument(
            f"Job.retryConfig.retryCount must be from 0 to {MAX_RETRY_COUNT}, got {retry['retryCount']}."
        )
    for name in ("maxRetryDuration", "minBackoffDuration", "maxBackoffDuration"):
        if seconds(retry[name]) < 0:
            raise InvalidArgument(f"Job.retryConfig.{name} must not be negative, got {retry[name]}.")
    if seconds(retry["minBackoffDuration"]) > seconds(retry["maxBackoffDuration"]):
        raise InvalidArgument(
            f"Job.retryConfig.minBackoffDuration ({retry['minBackoffDuration']}) must not be greater than"
            f" maxBackoffDuration ({retry['maxBackoffDuration']})."
        )
    if int(retry["maxDoublings"]) < 0:
        raise InvalidArgument(f"Job.retryConfig.maxDoublings must not be negative, got {retry['maxDoublings']}.")


def _shown(call: Call, job: Resource) -> Resource:
    call.region.timetable.wake()
    return job
