"""Cloud Scheduler: HTTP jobs that fire by cron in a time zone, retry, and can be run at once or paused.

Pub/Sub and App Engine targets are refused. A local time that a change to summer time skips does not fire; one that
occurs twice fires once.
"""

import asyncio
import base64
import contextlib
import json
import logging
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import CroniterBadCronError, croniter

from localgcp.clock import timestamp
from localgcp.errors import InvalidArgument, Unimplemented
from localgcp.generic import existing
from localgcp.region import Region
from localgcp.service import Call, Service
from localgcp.store import Resource
from localgcp.targets import Answer, Caller, NoResponse, check_target
from localgcp.tasks.policy import Retry, seconds

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
log = logging.getLogger(__name__)


class Timetable:
    """Fires the enabled jobs. One run of a job at a time: a firing that finds the last one still busy is skipped."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._running: dict[str, asyncio.Task[None]] = {}
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
        while True:
            self._changed.clear()
            jobs = await self._region.run_in_thread(self._enabled)
            now = self._region.clock.now()
            moments = [now + timedelta(minutes=5)]
            for job in jobs:
                due = datetime.fromisoformat(job["scheduleTime"])
                if due <= now:
                    due = await self._region.run_in_thread(self._reschedule, job.key)
                    self.fire(job)
                moments.append(due)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), max(0.0, (min(moments) - now).total_seconds()))

    def fire(self, job: Resource) -> None:
        """Start a run. Call on the event loop."""
        if job.key in self._running:
            log.warning("%s is still running: this firing is skipped", job["name"])
            return
        run = self._loop.create_task(self._fire(job))
        self._running[job.key] = run
        run.add_done_callback(lambda _: self._running.pop(job.key, None))

    def _enabled(self) -> list[Resource]:
        jobs = self._region.store.scan("cloudscheduler/")
        return [job for job in jobs if job.get("state") == "ENABLED" and "/jobs/" in job.key]

    def _reschedule(self, key: str) -> datetime:
        with self._region.store.transaction():
            job = self._region.store.find(key)
            now = self._region.clock.now()
            if job is None:
                return now + timedelta(minutes=5)
            due = next_time(job, now)
            self._region.store.put(key, {**job, "scheduleTime": timestamp(due)})
            return due

    async def _fire(self, job: Resource) -> None:
        retry = {**DEFAULT_RETRY, **job.get("retryConfig", {})}
        backoff = Retry(
            max_attempts=int(retry["retryCount"]) + 1,
            max_retry_seconds=seconds(retry["maxRetryDuration"]),
            min_backoff_seconds=seconds(retry["minBackoffDuration"]),
            max_backoff_seconds=seconds(retry["maxBackoffDuration"]),
            max_doublings=int(retry["maxDoublings"]),
        )
        first = self._region.clock.now()
        for attempt in range(1, backoff.max_attempts + 1):
            answer, reason = await self._attempt(job)
            await self._region.run_in_thread(self._record, job, answer, reason)
            if answer is not None and answer.is_success:
                return
            elapsed = (self._region.clock.now() - first).total_seconds()
            if attempt == backoff.max_attempts or 0 < backoff.max_retry_seconds <= elapsed:
                break
            await asyncio.sleep(backoff.backoff_seconds(attempt))
        log.warning("%s failed", job["name"])

    async def _attempt(self, job: Resource) -> tuple[Answer | None, str]:
        target = job["httpTarget"]
        headers = {
            **target.get("headers", {}),
            "User-Agent": "Google-Cloud-Scheduler",
            "X-CloudScheduler": "true",
            "X-CloudScheduler-JobName": job["name"].rpartition("/")[2],
            "X-CloudScheduler-ScheduleTime": job["scheduleTime"],
        }
        headers |= await self._caller.authorization(target, target["uri"])
        try:
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

    def _record(self, job: Resource, answer: Answer | None, reason: str) -> None:
        with self._region.store.transaction():
            current = self._region.store.find(job.key)
            if current is None:
                return
            current["lastAttemptTime"] = timestamp(self._region.clock.now())
            current["status"] = {}
            if answer is None:
                current["status"] = {"code": 4 if reason.startswith("DEADLINE") else 14, "message": reason}
            elif not answer.is_success:
                current["status"] = {"code": 13 if answer.status >= 500 else 2, "message": f"HTTP {answer.status}"}
            self._region.store.put(job.key, current)


def next_time(job: dict[str, Any], after: datetime) -> datetime:
    """The next moment of the job's schedule. Raises InvalidArgument for a bad schedule or time zone."""
    schedule, zone_name = job.get("schedule", ""), job.get("timeZone") or "UTC"
    try:
        zone = ZoneInfo(zone_name)
    except (ZoneInfoNotFoundError, ValueError):
        raise InvalidArgument(f"Job.timeZone is not a name of the tz database: {zone_name}") from None
    if len(schedule.split()) != 5:
        raise InvalidArgument(f'Schedule has an invalid format: "{schedule}" is not a cron expression of five fields.')
    try:
        moment: datetime = croniter(schedule, after.astimezone(zone)).get_next(datetime)
    except (CroniterBadCronError, ValueError, KeyError):
        raise InvalidArgument(f'Schedule has an invalid format: "{schedule}" is not a cron expression.') from None
    return moment.astimezone(UTC)


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
    name = call.body.get("name", "")
    if not name.startswith(f"{call.named}/jobs/") or not JOB_ID.fullmatch(name.rpartition("/")[2]):
        raise InvalidArgument(
            f'Job.name must be "{call.named}/jobs/<JOB_ID>", where JOB_ID is 1 to 500 letters, digits, hyphens and'
            f' underscores; got "{name}".'
        )
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
    job = await call.region.run_in_thread(existing, call)
    call.region.timetable.fire(Resource(job.key, {**job, "scheduleTime": timestamp(call.region.clock.now())}))
    return job


def _check(call: Call, job: dict[str, Any]) -> None:
    target = job.get("httpTarget")
    if target is None:
        raise Unimplemented("Only HTTP jobs are fired by localgcp: set Job.httpTarget.")
    check_target(call, target, "Job.httpTarget", "uri")
    size = len(json.dumps(job))
    if size > MAX_JOB_BYTES:
        raise InvalidArgument(f"Job size too large: {size} bytes, and at most {MAX_JOB_BYTES} are allowed.")
    deadline = seconds(job.get("attemptDeadline", DEFAULT_ATTEMPT_DEADLINE))
    if not 15 <= deadline <= 1800:
        raise InvalidArgument(f"Job.attemptDeadline must be between [15s, 30m], got {job['attemptDeadline']}.")
    count = int(job.get("retryConfig", {}).get("retryCount", 0))
    if not 0 <= count <= MAX_RETRY_COUNT:
        raise InvalidArgument(f"Job.retryConfig.retryCount must be from 0 to {MAX_RETRY_COUNT}, got {count}.")


def _shown(call: Call, job: Resource) -> Resource:
    call.region.timetable.wake()
    return job
