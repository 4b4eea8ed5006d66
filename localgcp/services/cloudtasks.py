"""Cloud Tasks: queues are plain resources with checked numbers; tasks are delivered by `localgcp.tasks`.

App Engine targets, pull tasks, buffered tasks and batches are refused: nothing here would act on them.
"""

import base64
import json
import re
import sqlite3
from datetime import UTC, datetime
from typing import Any

from localgcp.clock import moment, seconds, timestamp
from localgcp.errors import AlreadyExists, InvalidArgument, NotFound, Unimplemented
from localgcp.generic import resource_schema
from localgcp.identifiers import numeric_id
from localgcp.region import Region
from localgcp.service import Call, Service
from localgcp.store import Resource
from localgcp.targets import check_headers, check_target, check_tokens
from localgcp.tasks.dispatcher import Dispatcher
from localgcp.tasks.overrides import WHERE as HTTP_TARGET
from localgcp.tasks.overrides import check_http_target, headers_of
from localgcp.tasks.policy import (
    DEFAULT_DISPATCH_DEADLINE_SECONDS,
    MAX_DISPATCH_DEADLINE_SECONDS,
    MAX_SCHEDULE_SECONDS,
    MAX_TASK_BYTES,
    MIN_DISPATCH_DEADLINE_SECONDS,
    checked_rate_limits,
    checked_retry_config,
)
from localgcp.validation import without_nulls

service = Service("cloudtasks:v2")
QUEUES = "projects.locations.queues"
service.allow(
    "cloudtasks.queues",
    QUEUES,
    pause="cloudtasks.queues.pause",
    resume="cloudtasks.queues.resume",
    purge="cloudtasks.queues.purge",
)
service.allow(
    "cloudtasks.tasks",
    f"{QUEUES}.tasks",
    run="cloudtasks.tasks.run",
    buffer="cloudtasks.tasks.create",
    batchCreate="cloudtasks.tasks.create",
    batchDelete="cloudtasks.tasks.delete",
)
service.permissions["projects.locations.get"] = "cloudtasks.locations.get"
service.permissions["projects.locations.list"] = "cloudtasks.locations.list"
service.permissions["projects.locations.getCmekConfig"] = "cloudtasks.cmekConfig.get"
service.permissions["projects.locations.updateCmekConfig"] = "cloudtasks.cmekConfig.update"

MAX_PAGE_SIZE = 1000
QUEUE_ID = re.compile(r"[A-Za-z0-9-]{1,100}")
TASK_ID = re.compile(r"[A-Za-z0-9_-]{1,500}")


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
    call.body = without_nulls(call.body)
    _check_name(call.named, call.body.get("name", ""))
    call.body |= _checked(call, call.body)
    call.body["state"] = "RUNNING"
    if call.store.exists(f"cloudtasks/{call.body['name']}"):
        raise AlreadyExists("Queue already exists")
    queue: Resource = call.proceed()
    return queue


@service.method(f"{QUEUES}.get")
def get_queue(call: Call) -> Resource:
    return _queue(call)


@service.method(f"{QUEUES}.patch")
def patch_queue(call: Call) -> Resource:
    with call.store.transaction():
        if not call.store.exists(call.key):  # UpdateQueue creates what does not exist.
            call.check("cloudtasks.queues.create")
            _check_name(call.named.rpartition("/queues/")[0], call.named)
            said = without_nulls(call.body)
            return call.store.create(call.key, {**said, **_checked(call, said), "name": call.named, "state": "RUNNING"})
        if call.query.get("updateMask") in (None, "", "*"):  # "If empty, then all fields will be updated."
            call.query["updateMask"] = ",".join(resource_schema(call))
        queue: Resource = call.proceed()
        queue = call.store.put(queue.key, {**queue, **_checked(call, queue)})
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
        queue = _queue(call)
        queue["state"] = "PAUSED" if call.method.verb == "pause" else "RUNNING"
        call.store.put(queue.key, queue)
    call.region.dispatcher.wake(call.named)
    return queue


@service.method(f"{QUEUES}.purge")
def purge(call: Call) -> Resource:
    with call.store.transaction():
        queue = _queue(call)
        queue["purgeTime"] = timestamp(call.region.clock.now())
        call.region.dispatcher.purge(call.named)
        return call.store.put(queue.key, queue)


@service.method(f"{QUEUES}.tasks.create")
def create_task(call: Call) -> dict[str, Any]:
    _queue(call)
    task: dict[str, Any] = without_nulls(call.body.get("task") or {})
    _check_size(task)
    name = task.get("name") or f"{call.named}/tasks/{numeric_id()}"
    _check_task_name(call.named, name)
    target = task.get("httpRequest")
    if target is None or "appEngineHttpRequest" in task or "pullMessage" in task:
        raise Unimplemented("Only HTTP tasks are delivered by localgcp: set Task.httpRequest, and no other payload.")
    check_target(call, target, "Task.httpRequest", "url")
    if task.get("retryConfig"):
        checked_retry_config(task["retryConfig"])
    _check_deadline(task)
    now = call.region.clock.now()
    due = max(now, moment(task["scheduleTime"])) if task.get("scheduleTime") else now
    if (due - now).total_seconds() > MAX_SCHEDULE_SECONDS:
        raise InvalidArgument(
            f"Task.scheduleTime must be at most {MAX_SCHEDULE_SECONDS // 86400} days ahead, got {task['scheduleTime']}."
        )
    target.setdefault("httpMethod", "POST")
    # A task says what it is sent with.
    own = {name: value for name, value in target.get("headers", {}).items() if name.lower() != "user-agent"}
    target["headers"] = own | {"User-Agent": "Google-Cloud-Tasks"}
    task.setdefault("dispatchDeadline", f"{DEFAULT_DISPATCH_DEADLINE_SECONDS:g}s")
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
    _queue(call)
    size, token = int(call.query.get("pageSize") or MAX_PAGE_SIZE), call.query.get("pageToken", "")
    if size < 0:
        raise InvalidArgument(f"The page size must not be negative, got {size}")
    if not re.fullmatch(r"[0-9]{0,18}", token):
        raise InvalidArgument("The page token is not one that this list answered", location="pageToken")
    size = min(size, MAX_PAGE_SIZE)
    rows = call.region.dispatcher.page(call.named, int(token or 0), size + 1)
    view = call.query.get("responseView")
    answer: dict[str, Any] = {"tasks": [_shown(call, row, view) for row in rows[:size]]} if rows else {}
    if len(rows) > size:
        answer["nextPageToken"] = str(rows[size - 1]["seq"])
    return answer


@service.method(f"{QUEUES}.tasks.delete")
def delete_task(call: Call) -> dict[str, Any]:
    call.region.dispatcher.remove(call.named)
    return {}


@service.method(f"{QUEUES}.tasks.run")
async def run_task(call: Call) -> dict[str, Any]:
    await call.region.run_in_thread(_task, call)
    row = await call.region.dispatcher.force(call.named.rpartition("/tasks/")[0], call.named)
    return _shown(call, row, call.body.get("responseView"))


def _check_name(parent: str, name: str) -> None:
    if not name.startswith(f"{parent}/queues/") or not QUEUE_ID.fullmatch(name.rpartition("/")[2]):
        raise InvalidArgument(
            f'Queue.name must be "{parent}/queues/<QUEUE_ID>", where QUEUE_ID is 1 to 100 letters, digits and hyphens;'
            f' got "{name}".'
        )


def _check_task_name(queue: str, name: str) -> None:
    named, found, task_id = name.rpartition("/tasks/")
    if not found:
        raise InvalidArgument(
            'Task name must be formatted: "projects/<PROJECT_ID>/locations/<LOCATION_ID>/queues/<QUEUE_ID>/tasks/'
            '<TASK_ID>"'
        )
    if named != queue:
        raise InvalidArgument(
            f"The queue name from request ('{queue}') must be the same as the queue name in the named task ('{named}')."
        )
    if not TASK_ID.fullmatch(task_id):
        raise InvalidArgument(
            f'Task ID "{task_id}" can contain only letters ([A-Za-z]), numbers ([0-9]), hyphens (-), or underscores'
            " (_). Task ID must between 1 and 500 characters."
        )


def _checked(call: Call, queue: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a queue with defaults filled in. Raises InvalidArgument, PermissionDenied, Unimplemented."""
    if any(queue.get(name) for name in ("appEngineRoutingOverride", "appEngineHttpQueue")):
        raise Unimplemented("localgcp has no App Engine: use HTTP tasks.")
    if queue.get("type") == "PULL":
        raise Unimplemented("localgcp has no pull queues: use HTTP tasks.")
    target = queue.get("httpTarget") or {}
    check_http_target(target)
    check_headers(
        {entry["header"]["key"]: entry["header"].get("value", "") for entry in headers_of(target)}, HTTP_TARGET
    )
    check_tokens(call, target, HTTP_TARGET)
    ratio = (queue.get("stackdriverLoggingConfig") or {}).get("samplingRatio", 0)
    if not 0 <= ratio <= 1:
        raise InvalidArgument(f"Queue.stackdriverLoggingConfig.samplingRatio must be from 0.0 to 1.0, got {ratio:g}.")
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


def _queue(call: Call) -> Resource:
    queue = call.store.find(call.key)
    if queue is None:
        raise NotFound(
            "Queue does not exist. If you just created the queue, wait at least a minute for the queue to initialize."
        )
    return queue


def _task(call: Call) -> sqlite3.Row:
    row = call.region.dispatcher.find(call.named)
    if row is None:
        if call.region.dispatcher.is_reserved(call.named):
            raise NotFound(
                "The task no longer exists, though a task with this name existed recently. The task either"
                " successfully completed or was deleted."
            )
        raise NotFound("Requested entity was not found.")
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
