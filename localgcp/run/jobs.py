"""Executions of jobs: tasks with an index each, several at a time, retried, timed out, cancelled.

Every state is stored before it is told. An execution that was running when localgcp died has failed, and says so.
"""

import asyncio
import contextlib
import logging
import secrets
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from localgcp.build.images import image_store
from localgcp.clock import seconds, timestamp
from localgcp.errors import ApiError
from localgcp.run import resources
from localgcp.run.process import Process
from localgcp.run.program import StartFailed, discard, prepare
from localgcp.store import Resource

if TYPE_CHECKING:
    from localgcp.region import Region

EXECUTION_TYPE = "type.googleapis.com/google.cloud.run.v2.Execution"
SCHEMA = "CREATE TABLE IF NOT EXISTS run_executions (key TEXT PRIMARY KEY, operation TEXT NOT NULL);"
#: Fields of a job that its executions write.
JOB_FIELDS = ("executionCount", "latestCreatedExecution")
#: What is true of an execution, beside whether it has `Completed`, once its tasks may run.
STARTED = ("ResourcesAvailable", "Started", "ContainerReady")
#: `parallelism: 0` means as many as possible; more than this at once helps nobody on one machine.
MAX_PARALLEL_TASKS = 10

log = logging.getLogger(__name__)
_runners: "WeakKeyDictionary[Region, _Runner]" = WeakKeyDictionary()


class ExecutionFailed(ApiError):
    """A task ran out of attempts, or the execution was cancelled."""

    status, code, default_reason, rpc_code = 500, "UNKNOWN", "unknown", 2


def open_runner(region: "Region") -> None:
    _runners[region] = _Runner(region)


async def close_runner(region: "Region") -> None:
    await _runners[region].close()


def new_execution(
    region: "Region", job: Resource, overrides: Mapping[str, Any], email: str | None, *, suffix: str = ""
) -> Resource:
    """The execution that a run of the job makes, with what the run overrides; not stored yet."""
    template = job["template"]
    task = dict(template["template"])
    container = dict(task["containers"][0])
    for override in overrides.get("containerOverrides", ()):
        if override.get("clearArgs"):
            container["args"] = []
        elif override.get("args"):
            container["args"] = override["args"]
        names = {item["name"] for item in override.get("env", ())}
        if names:
            kept = [item for item in container.get("env", ()) if item["name"] not in names]
            container["env"] = [*kept, *override["env"]]
    task["containers"] = [container]
    if overrides.get("timeout"):
        task["timeout"] = overrides["timeout"]
    count = overrides.get("taskCount") or template["taskCount"]
    name = job.key.rpartition("/")[2]
    suffix = suffix or "".join(secrets.choice("bcdfghjklmnpqrstvwxz2456789") for _ in range(5))
    key = f"{job.key}/executions/{name}-{suffix}"
    now = timestamp(region.clock.now())
    body = {
        "name": key.partition("/")[2],
        **resources.stamps(region, email),
        "job": name,
        "launchStage": job["launchStage"],
        "parallelism": template.get("parallelism") or min(count, MAX_PARALLEL_TASKS),
        "taskCount": count,
        "template": task,
        "labels": {**template.get("labels", {}), "run.googleapis.com/job": name},
        "annotations": template.get("annotations", {}),
        "reconciling": True,
        "observedGeneration": "1",
        "conditions": [resources.condition("Completed", now, pending=True)],
        "etag": resources.new_etag(),
        "logUri": f"{region.settings.api_url}/_localgcp/logs?project={job.key.split('/')[2]}",
    }
    del body["lastModifier"]
    return Resource(key, body)


def begin(region: "Region", job: Resource, execution: Resource) -> dict[str, Any]:
    """Store the execution with its tasks, let it run, and answer the operation that ends with it."""
    _, _, project, _, location, *_ = job.key.split("/")
    operation_name = f"projects/{project}/locations/{location}/operations/{secrets.token_hex(16)}"
    with region.store.transaction() as tx:
        current = region.store.get(job.key)
        current["executionCount"] = current.get("executionCount", 0) + 1
        current["latestCreatedExecution"] = {
            "name": execution.key.rpartition("/")[2],
            "createTime": execution["createTime"],
            "completionStatus": "EXECUTION_RUNNING",
        }
        region.store.put(job.key, current)
        stored = region.store.create(execution.key, execution)
        tx.execute("INSERT INTO run_executions (key, operation) VALUES (?, ?)", (execution.key, operation_name))
        for index in range(execution["taskCount"]):
            region.store.create(*_new_task(region, execution, index))
        operation = {
            "name": operation_name,
            "done": False,
            "metadata": {"@type": EXECUTION_TYPE, **stored},
        }
        region.store.put(f"run/{operation_name}", operation)
    _runners[region].begin(execution.key)
    return operation


def wait(region: "Region", key: str) -> str | None:
    """From a worker thread: the error of the execution, when it has ended; None when it succeeded."""
    _runners[region].wait(key)
    completed = region.store.get(key)["conditions"][0]
    return None if completed["state"] == "CONDITION_SUCCEEDED" else str(completed.get("message", ""))


def cancel(region: "Region", key: str) -> None:
    """Returns when every task of the execution has ended."""
    _runners[region].cancel(key)


def cancel_below(region: "Region", key: str) -> None:
    for execution in _runners[region].running_below(key):
        _runners[region].cancel(execution)


def fail_interrupted(region: "Region") -> None:
    region.store.define(SCHEMA)
    interrupted = "The execution was interrupted by a restart of localgcp. Run the job again."
    for execution in region.store.scan("run/projects/"):
        is_execution = len(execution.key.split("/")) == 9 and "/executions/" in execution.key
        if is_execution and "completionTime" not in execution:
            for task in region.store.list(execution.key, "tasks"):
                if "completionTime" not in task:
                    _write_task(region, task.key, "failed", error="The task was interrupted by a restart of localgcp.")
            _complete(region, execution.key, interrupted)


def _new_task(region: "Region", execution: Resource, index: int) -> tuple[str, dict[str, Any]]:
    name = f"{execution.key.rpartition('/')[2]}-task{index}"
    key = f"{execution.key}/tasks/{name}"
    task = execution["template"]
    now = timestamp(region.clock.now())
    body = {
        "name": key.partition("/")[2],
        **resources.stamps(region, None),
        "job": execution["job"],
        "execution": execution.key.rpartition("/")[2],
        "index": index,
        "reconciling": True,
        "conditions": [resources.condition("Completed", now, pending=True)],
        **{field: value for field, value in task.items() if field != "encryptionKey"},
        "etag": resources.new_etag(),
    }
    for field in ("creator", "lastModifier"):
        del body[field]
    return key, body


class _Runner:
    def __init__(self, region: "Region") -> None:
        self._region = region
        self._loop = asyncio.get_running_loop()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._cancelled: set[str] = set()

    def begin(self, key: str) -> None:
        asyncio.run_coroutine_threadsafe(self._spawn(key), self._loop).result()

    def cancel(self, key: str) -> None:
        asyncio.run_coroutine_threadsafe(self._cancel(key), self._loop).result()

    def wait(self, key: str) -> None:
        asyncio.run_coroutine_threadsafe(self._wait(key), self._loop).result()

    def running_below(self, key: str) -> list[str]:
        return [execution for execution in list(self._running) if execution == key or execution.startswith(f"{key}/")]

    async def close(self) -> None:
        """The region stops: what runs is ended, and will be found interrupted."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _spawn(self, key: str) -> None:
        self._running[key] = asyncio.create_task(self._run(key))

    async def _wait(self, key: str) -> None:
        task = self._running.get(key)
        if task is not None:
            await asyncio.wait({task})

    async def _cancel(self, key: str) -> None:
        task = self._running.get(key)
        if task is None:
            return
        self._cancelled.add(key)
        task.cancel()
        await asyncio.wait({task})

    async def _run(self, key: str) -> None:
        region = self._region
        execution = await region.run_in_thread(region.store.get, key)
        error: str | None = None
        is_closing = False
        try:
            places = asyncio.Semaphore(execution["parallelism"])
            now = timestamp(region.clock.now())
            conditions = [*execution["conditions"], *(resources.condition(kind, now) for kind in STARTED)]
            started = {"startTime": now, "runningCount": 0, "conditions": conditions}
            await region.run_in_thread(_update, region, key, started)
            tasks = await region.run_in_thread(region.store.list, key, "tasks")
            failures = await asyncio.gather(*(self._run_task(execution, task, places) for task in tasks))
            error = next((failure for failure in failures if failure is not None), None)
        except asyncio.CancelledError:
            is_closing = key not in self._cancelled
            error = "The execution was cancelled."
        except Exception:
            log.exception("execution %s", key)
            error = "Internal error: the log of localgcp has the cause."
        finally:
            self._running.pop(key, None)
            if not is_closing:
                await region.run_in_thread(_complete, region, key, error)
            self._cancelled.discard(key)

    async def _run_task(self, execution: Resource, task: Resource, places: asyncio.Semaphore) -> str | None:
        """The reason why the task failed for good; None when it succeeded."""
        region = self._region
        retries = int(execution["template"]["maxRetries"])
        async with places:
            for attempt in range(retries + 1):
                await region.run_in_thread(_write_task, region, task.key, "running", attempt)
                try:
                    error, status = await self._attempt(execution, task, attempt)
                except asyncio.CancelledError:
                    if execution.key in self._cancelled:
                        _write_task(region, task.key, "cancelled", attempt, error="The task was cancelled.")
                    raise
                if error is None:
                    await region.run_in_thread(_write_task, region, task.key, "succeeded", attempt, None, status)
                    return None
                if attempt < retries:
                    await region.run_in_thread(_retried, region, execution.key)
                    continue
                await region.run_in_thread(_write_task, region, task.key, "failed", attempt, error, status)
                return f"Task {task.key.rpartition('/')[2]} failed with message: {error}"
        return None

    async def _attempt(self, execution: Resource, task: Resource, attempt: int) -> tuple[str | None, int | None]:
        """One process from start to end: the error, and the exit status where there was one."""
        region = self._region
        _, _, project, _, location, _, job, _, name = execution.key.split("/")
        identifier = secrets.token_hex(24)
        home = region.settings.data_dir / "run" / "instances" / identifier[:16]
        names = {
            "CLOUD_RUN_JOB": job,
            "CLOUD_RUN_EXECUTION": name,
            "CLOUD_RUN_TASK_INDEX": str(task["index"]),
            "CLOUD_RUN_TASK_ATTEMPT": str(attempt),
            "CLOUD_RUN_TASK_COUNT": str(execution["taskCount"]),
        }
        workload = resources.workload_of(region, "Job", project, location, execution["template"], names)
        labels = {
            "run.googleapis.com/execution_name": name,
            "run.googleapis.com/task_index": str(task["index"]),
            "run.googleapis.com/task_attempt": str(attempt),
            "instanceId": identifier,
        }
        resource = {
            "type": "cloud_run_job",
            "labels": {"project_id": project, "location": location, "job_name": job},
        }

        def write(log_name: str, entry: Mapping[str, Any]) -> None:
            merged = {**labels, **entry.get("labels", {})}
            region.logs.write_entry(project, log_name, {**entry, "resource": resource, "labels": merged})

        try:
            program = await region.run_in_thread(prepare, region, image_store(region), workload, identifier, home)
        except StartFailed as error:
            await region.run_in_thread(shutil.rmtree, home, True)
            write("run.googleapis.com/varlog/system", {"textPayload": str(error), "severity": "ERROR"})
            return str(error), None
        for note in program.notes:
            write("run.googleapis.com/varlog/system", {"textPayload": note, "severity": "ERROR"})
        process = Process(region, identifier, program, write)
        try:
            await process.start()
            ended = asyncio.create_task(process.wait())
            try:
                timeout = seconds(execution["template"]["timeout"])
                done, _ = await asyncio.wait({ended}, timeout=timeout)
                if not done:
                    await process.stop()
                    await ended
                    write("run.googleapis.com/varlog/system", {"textPayload": TIMED_OUT, "severity": "ERROR"})
                    return TIMED_OUT, None
            except asyncio.CancelledError:
                await process.stop()
                await ended
                raise
            status = ended.result()
        except OSError as error:
            return f"The container could not be started: {error.strerror}: {error.filename}", None
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(asyncio.ensure_future(region.run_in_thread(discard, region, program)))
        if status == 0:
            return None, 0
        if status < 0:
            return f"The container was ended by signal {-status}.", 128 - status
        return "The container exited with an error.", status


TIMED_OUT = "The configured timeout was reached."


def _update(region: "Region", key: str, changes: Mapping[str, Any]) -> None:
    with region.store.transaction():
        current = region.store.find(key)
        if current is not None:
            region.store.put(key, {**current, **changes})


def _retried(region: "Region", key: str) -> None:
    with region.store.transaction():
        current = region.store.find(key)
        if current is not None:
            region.store.put(key, {**current, "retriedCount": current.get("retriedCount", 0) + 1})


def _write_task(
    region: "Region",
    key: str,
    state: str,
    attempt: int | None = None,
    error: str | None = None,
    status: int | None = None,
) -> None:
    """Write a task's state, and count again what the execution says of all of them."""
    now = timestamp(region.clock.now())
    with region.store.transaction():
        task = region.store.find(key)
        if task is None:
            return
        if attempt is not None:
            task["retried"] = attempt
        if state == "running":
            task.setdefault("startTime", now)
        else:
            task |= {
                "completionTime": now,
                "reconciling": False,
                "conditions": [_completed(now, error, is_cancelled=state == "cancelled")],
                "lastAttemptResult": {
                    "status": {"code": 0} if error is None else {"code": 2, "message": error},
                    **({"exitCode": status} if status is not None else {}),
                },
            }
        task["updateTime"] = now
        region.store.put(key, task)
        execution_key = key.rpartition("/tasks/")[0]
        execution = region.store.find(execution_key)
        if execution is None:
            return
        states = [_state_of(other) for other in region.store.list(execution_key, "tasks")]
        counts = {f"{name}Count": states.count(name) for name in ("running", "succeeded", "failed", "cancelled")}
        region.store.put(execution_key, {**execution, **counts, "updateTime": now})


def _state_of(task: Mapping[str, Any]) -> str:
    if "completionTime" not in task:
        return "running" if "startTime" in task else "pending"
    last = task["conditions"][0]
    if last["state"] == "CONDITION_SUCCEEDED":
        return "succeeded"
    return "cancelled" if last.get("executionReason") == "CANCELLED" else "failed"


def _completed(now: str, error: str | None, *, is_cancelled: bool) -> dict[str, Any]:
    result = resources.condition("Completed", now, error=error)
    if error is not None:
        result["executionReason"] = "CANCELLED" if is_cancelled else "NON_ZERO_EXIT_CODE"
    return result


def _complete(region: "Region", key: str, error: str | None) -> None:
    """The execution's last state, and with it the operation's."""
    now = timestamp(region.clock.now())
    with region.store.transaction():
        execution = region.store.find(key)
        if execution is None:
            return
        execution |= {
            "completionTime": now,
            "updateTime": now,
            "reconciling": False,
            "runningCount": 0,
            "conditions": [
                _completed(now, error, is_cancelled=bool(execution.get("cancelledCount"))),
                *execution["conditions"][1:],
            ],
        }
        region.store.put(key, execution)
        job_key = key.rpartition("/executions/")[0]
        job = region.store.find(job_key)
        latest = job.get("latestCreatedExecution", {}) if job is not None else {}
        if job is not None and latest.get("name") == key.rpartition("/")[2]:
            cancelled = bool(execution.get("cancelledCount"))
            outcome = "EXECUTION_CANCELLED" if cancelled else "EXECUTION_FAILED" if error else "EXECUTION_SUCCEEDED"
            job["latestCreatedExecution"] = {**latest, "completionTime": now, "completionStatus": outcome}
            region.store.put(job_key, job)
        row = region.store.row("SELECT operation FROM run_executions WHERE key = ?", (key,))
        operation_key = f"run/{row['operation']}" if row is not None else ""
        operation = region.store.find(operation_key)
        if operation is None:
            return
        body = {"@type": EXECUTION_TYPE, **execution}
        operation |= {"done": True, "metadata": body}
        if error is None:
            operation["response"] = body
        else:
            operation["error"] = ExecutionFailed(error).to_status()
        region.store.put(operation_key, operation)
