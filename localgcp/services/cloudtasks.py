"""Cloud Tasks: queues are plain resources with checked numbers; tasks are delivered by `localgcp.tasks`.

App Engine targets, queue-level HTTP targets and buffered tasks are refused: nothing here would act on them.
"""

import base64
import json
import re
import secrets
import sqlite3
from datetime import UTC, datetime
from typing import Any

from localgcp.clock import timestamp
from localgcp.errors import FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from localgcp.generic import existing, page
from localgcp.region import Region
from localgcp.service import Call, Service
from localgcp.store import Resource
from localgcp.targets import check_target
from localgcp.tasks.dispatcher import Dispatcher
from localgcp.tasks.policy import (
    MAX_DISPATCH_DEADLINE_SECONDS,
    MAX_SCHEDULE_SECONDS,
    MAX_TASK_BYTES,
    MIN_DISPATCH_DEADLINE_SECONDS,
    checked_rate_limits,
    checked_retry_config,
    seconds,
)

service = Service("cloudtasks:v2")
QUEUES = "projects.locations.queues"
service.allow(
    "cloudtasks.queues",
    QUEUES,
    pause="cloudtasks.queues.pause",
    resume="cloudtasks.queues.resume",
    purge="cloudtasks.queues.purge",
)
service.allow("cloudtasks.tasks", f"{QUEUES}.tasks", run="cloudtasks.tasks.run")
service.permissions["projects.locations.get"] = "cloudtasks.locations.get"
service.permissions["projects.locations.list"] = "cloudtasks.locations.list"

QUEUE_ID = re.compile(r"[A-Za-z0-9-]{1,100}")
TASK_ID = re.compile(r"[A-Za-z0-9_-]{1,500}")
RFC3339 = re.compile(r"(.*?)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")


@service.on_start
async def start(region: Region) -> None:
    region.dispatcher = Dispatcher(region)


@service.on_open
async def open_(region: Region) -> None:
    region.dispatcher.start()


@service.on_close
async def close(region: Region) -> None:
    await region.dispatcher.stop()


@service.method(f"{QUEUES}.create")
def create_queue(call: Call) -> Resource:
    name = call.body.get("name", "")
    if not name.startswith(f"{call.named}/queues/") or not QUEUE_ID.fullmatch(name.rpartition("/")[2]):
        raise InvalidArgument(
            f'Queue.name must be "{call.named}/queues/<QUEUE_ID>", where QUEUE_ID is 1 to 100 letters, digits and'
            f' hyphens; got "{name}".'
        )
    call.body |= _checked(call.body)
    call.body["state"] = "RUNNING"
    queue: Resource = call.proceed()
    return queue


@service.method(f"{QUEUES}.patch")
def patch_queue(call: Call) -> Resource:
    with call.store.transaction():
        if not call.store.exists(call.key):  # UpdateQueue creates what does not exist.
            call.check("cloudtasks.queues.create")
            return call.store.create(call.key, {"name": call.named, "state": "RUNNING", **_checked(call.body)})
        queue: Resource = call.proceed()
        queue = call.store.put(queue.key, {**queue, **_checked(queue)})
    call.region.dispatcher.wake(call.named)
    return queue


@service.method(f"{QUEUES}.delete")
def delete_queue(call: Call) -> Any:
    answer = call.proceed()
    call.region.dispatcher.forget(call.named)
    return answer


@service.method(f"{QUEUES}.pause", f"{QUEUES}.resume")
def set_state(call: Call) -> Resource:
    with call.store.transaction():
        queue = existing(call)
        queue["state"] = "PAUSED" if call.method.verb == "pause" else "RUNNING"
        call.store.put(queue.key, queue)
    call.region.dispatcher.wake(call.named)
    return queue


@service.method(f"{QUEUES}.purge")
def purge(call: Call) -> Resource:
    with call.store.transaction():
        queue = existing(call)
        queue["purgeTime"] = timestamp(call.region.clock.now())
        call.region.dispatcher.purge(call.named)
        return call.store.put(queue.key, queue)


@service.method(f"{QUEUES}.tasks.create")
def create_task(call: Call) -> dict[str, Any]:
    existing(call)
    task: dict[str, Any] = call.body.get("task") or {}
    _check_size(task)
    name = task.get("name") or f"{call.named}/tasks/{secrets.randbelow(9 * 10**18) + 10**18}"
    if not name.startswith(f"{call.named}/tasks/") or not TASK_ID.fullmatch(name.rpartition("/")[2]):
        raise InvalidArgument(
            f'Task.name must be "{call.named}/tasks/<TASK_ID>", where TASK_ID is 1 to 500 letters, digits, hyphens and'
            f' underscores; got "{name}".'
        )
    target = task.get("httpRequest")
    if target is None:
        raise Unimplemented("Only HTTP tasks are delivered by localgcp: set Task.httpRequest.")
    check_target(call, target, "Task.httpRequest", "url")
    if task.get("retryConfig"):
        checked_retry_config(task["retryConfig"])
    _check_deadline(task)
    now = call.region.clock.now()
    due = max(now, _moment(task["scheduleTime"], "Task.scheduleTime")) if task.get("scheduleTime") else now
    if (due - now).total_seconds() > MAX_SCHEDULE_SECONDS:
        raise InvalidArgument(
            f"Task.scheduleTime must be at most {MAX_SCHEDULE_SECONDS // 86400} days ahead, got {task['scheduleTime']}."
        )
    target.setdefault("httpMethod", "POST")
    call.region.dispatcher.add(call.named, name, {**task, "name": name}, due.timestamp())
    row = call.region.dispatcher.find(name)
    if row is None:  # delivered and gone before this line
        return {**task, "name": name, "scheduleTime": timestamp(due), "createTime": timestamp(now), "view": "BASIC"}
    return _shown(call, row, call.body.get("responseView"))


@service.method(f"{QUEUES}.tasks.get")
def get_task(call: Call) -> dict[str, Any]:
    return _shown(call, _task(call), call.query.get("responseView"))


@service.method(f"{QUEUES}.tasks.list")
def list_tasks(call: Call) -> dict[str, Any]:
    existing(call)
    view = call.query.get("responseView")
    tasks = [_shown(call, row, view) for row in call.region.dispatcher.list(call.named)]
    return page(call, [Resource(f"cloudtasks/{task['name']}", task) for task in tasks])


@service.method(f"{QUEUES}.tasks.delete")
def delete_task(call: Call) -> dict[str, Any]:
    call.region.dispatcher.remove(call.named)
    return {}


@service.method(f"{QUEUES}.tasks.run")
async def run_task(call: Call) -> dict[str, Any]:
    row = await call.region.run_in_thread(_task, call)
    queue = call.named.rpartition("/tasks/")[0]
    call.region.spawn(call.region.dispatcher.force(queue, call.named))
    return _shown(call, row, call.body.get("responseView"))


def _checked(queue: dict[str, Any]) -> dict[str, Any]:
    if queue.get("appEngineRoutingOverride") or queue.get("httpTarget"):
        raise Unimplemented("localgcp applies no queue-level target: set the target in the task.")
    return {
        "rateLimits": checked_rate_limits(queue.get("rateLimits") or {}),
        "retryConfig": checked_retry_config(queue.get("retryConfig") or {}),
    }


def _check_size(task: dict[str, Any]) -> None:
    size = len(base64.b64decode(task.get("httpRequest", {}).get("body", ""))) + len(
        json.dumps({**task, "httpRequest": {**task.get("httpRequest", {}), "body": ""}})
    )
    if size > MAX_TASK_BYTES:
        raise InvalidArgument(f"Task size too large: {size} bytes, and at most {MAX_TASK_BYTES} are allowed.")


def _check_deadline(task: dict[str, Any]) -> None:
    if "dispatchDeadline" not in task:
        return
    deadline = seconds(task["dispatchDeadline"])
    if not MIN_DISPATCH_DEADLINE_SECONDS <= deadline <= MAX_DISPATCH_DEADLINE_SECONDS:
        raise InvalidArgument(f"Task.dispatchDeadline must be between [15s, 30m], got {task['dispatchDeadline']}.")


def _moment(text: str, where: str) -> datetime:
    """A google-datetime, with up to nine digits of a second, of which Python keeps six."""
    match = RFC3339.fullmatch(text)
    try:
        if match is None:
            raise ValueError(text)
        base, fraction, zone = match.groups()
        moment = datetime.fromisoformat(f"{base}.{(fraction or '0')[:6]:0<6}{'+00:00' if zone == 'Z' else zone}")
    except ValueError:
        raise InvalidArgument(f"{where} is not an RFC 3339 timestamp: {text}") from None
    return moment.astimezone(UTC)


def _task(call: Call) -> sqlite3.Row:
    row = call.region.dispatcher.find(call.named)
    if row is None:
        queue = call.named.rpartition("/tasks/")[0]
        if not call.store.exists(f"cloudtasks/{queue}"):
            raise FailedPrecondition("Queue does not exist.")
        raise NotFound("The task no longer exists, though a task with this name existed recently, or never did.")
    return row


def _shown(call: Call, row: sqlite3.Row, view: str | None) -> dict[str, Any]:
    task: dict[str, Any] = json.loads(row["body"])
    task |= {
        "scheduleTime": timestamp(datetime.fromtimestamp(row["due"], UTC)),
        "createTime": timestamp(datetime.fromtimestamp(int(row["created"]), UTC)),
        "dispatchCount": row["dispatches"],
        "responseCount": row["responses"],
        "view": "FULL" if view == "FULL" else "BASIC",
    }
    if row["first_dispatch"] is not None:
        task["firstAttempt"] = {"dispatchTime": timestamp(datetime.fromtimestamp(row["first_dispatch"], UTC))}
    if row["last_attempt"]:
        task["lastAttempt"] = json.loads(row["last_attempt"])
    if view == "FULL":
        call.check("cloudtasks.tasks.fullView")
    else:
        task["httpRequest"] = {name: value for name, value in task["httpRequest"].items() if name != "body"}
    return task
