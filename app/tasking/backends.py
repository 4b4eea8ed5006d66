"""The backends: Cloud Tasks, and the immediate one for a machine without it."""

import hashlib
import re
from collections.abc import Iterable
from datetime import timedelta
from enum import Enum
from functools import cached_property, partial
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlsplit

import structlog
from django.core import checks
from django.db import transaction
from django.utils import timezone
from django.utils.module_loading import import_string
from django_tasks.backends import immediate
from django_tasks.backends.base import BaseTaskBackend
from django_tasks.base import Task, TaskError, TaskResult, TaskResultStatus
from django_tasks.exceptions import InvalidTaskError, TaskResultDoesNotExist
from django_tasks.signals import task_enqueued

from app.tasking.client import HttpTask, QueueFailure, TaskClient, TaskExists
from app.tasking.tasks import CloudTask, Outcome

T = TypeVar("T")
log = structlog.get_logger(__name__)

# Cloud Tasks, "Quotas and limits", read 2026-11.
MAX_SCHEDULE: Final = timedelta(days=30)
_WORD: Final = re.compile(r"[A-Za-z0-9_-]{1,200}")
_OPTIONS: Final = ("client", "url", "service_account")


# By alias and route. Django keeps a backend per thread, and a task is declared in one of them only.
_TASKS: Final[dict[str, dict[str, CloudTask[Any, Any]]]] = {}


class Submission(Enum):
    CREATED = "created"
    WAITING = "waiting"
    """A task of this name is in the queue: it will be delivered."""
    GONE = "gone"
    """A task of this name was in the queue and is no longer: this name delivers nothing any more."""


class _OneId(BaseTaskBackend):
    """What both backends have in common: a task takes one id, and its result is read from a row."""

    task_class = CloudTask
    supports_get_result = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        self._task_by_route = _TASKS.setdefault(alias, {})

    def validate_task(self, task: Task[Any, Any]) -> None:
        if task.priority != 0:
            raise InvalidTaskError("Cloud Tasks has no priorities: give urgent tasks a queue of their own")
        super().validate_task(task)
        if task.takes_context:
            raise InvalidTaskError(f"{task.module_path} takes a context, which a task of one id has no use for")
        if not isinstance(task, CloudTask):
            return
        if task.occurrence and not _WORD.fullmatch(task.occurrence):
            raise InvalidTaskError(f"occurrence {task.occurrence!r} is not letters, digits, hyphens and underscores")
        known = self._task_by_route.setdefault(task.route, task)
        if known.func is not task.func:
            raise InvalidTaskError(f"{known.module_path} and {task.module_path} share the address {task.route}")

    def get_result(self, result_id: str) -> TaskResult[Any]:
        """`run-validation/7`. Raises: TaskResultDoesNotExist, also for a task whose module was never imported."""
        route, _, id_ = result_id.partition("/")
        task = self._task_by_route.get(route)
        outcome = task.outcome(id_) if task is not None and task.outcome is not None else None
        if task is None or outcome is None:
            raise TaskResultDoesNotExist(result_id)
        return self._result(task, id_, outcome)

    def _result(self, task: CloudTask[Any, T], id_: str, outcome: Outcome) -> TaskResult[T]:
        error = [TaskError(exception_class_path="builtins.Exception", traceback=outcome.error)] if outcome.error else []
        result: TaskResult[T] = TaskResult(
            task=task,
            id=f"{task.route}/{id_}",
            status=outcome.status,
            enqueued_at=outcome.enqueued_at,
            started_at=outcome.started_at,
            last_attempted_at=outcome.started_at,
            finished_at=outcome.finished_at,
            args=[id_],
            kwargs={},
            backend=self.alias,
            errors=error,
            worker_ids=[],
        )
        object.__setattr__(result, "_return_value", outcome.return_value)  # a frozen dataclass, as in django-tasks
        return result


def _the_id(task: Task[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    if kwargs or len(args) != 1 or not _WORD.fullmatch(str(args[0])):
        raise InvalidTaskError(
            f"{task.module_path} takes one id, of letters, digits, hyphens and underscores: what a task works on is in "
            "the database, not in the queue"
        )
    return str(args[0])


class CloudTasksBackend(_OneId):
    """Enqueues on commit. What fails there is logged and not raised: the caller's row is committed, and a sweep of such
    rows, by `app.tasking.submit`, is what enqueues them then.
    """

    supports_defer = True

    def validate_task(self, task: Task[Any, Any]) -> None:
        super().validate_task(task)
        if task.run_after is not None and task.run_after - timezone.now() > MAX_SCHEDULE:
            raise InvalidTaskError(f"run_after is {task.run_after}, but Cloud Tasks takes at most 30 days ahead")

    def enqueue(self, task: Task[Any, T], args: Any, kwargs: Any) -> TaskResult[T]:
        self.validate_task(task)
        id_ = _the_id(task, args, kwargs)
        cloud_task = cast("CloudTask[Any, T]", task)
        ready = Outcome(status=TaskResultStatus.READY, enqueued_at=timezone.now())
        result = self._result(cloud_task, id_, ready)
        transaction.on_commit(partial(self._create_quietly, self.http_task(cloud_task, id_), result))
        return result

    def submit(self, task: Task[..., Any], id_: str) -> Submission:
        """Enqueue at this moment. Raises: QueueFailure."""
        self.validate_task(task)
        http_task = self.http_task(cast("CloudTask[Any, Any]", task), _the_id(task, (id_,), {}))
        try:
            self.client.create(http_task)
        except TaskExists:
            waits = self.client.exists(http_task.queue, http_task.name)
            return Submission.WAITING if waits else Submission.GONE
        return Submission.CREATED

    def http_task(self, task: CloudTask[Any, Any], id_: str) -> HttpTask:
        url: str = self.options["url"]
        words = "-".join(filter(None, (task.route, id_, task.occurrence)))
        # Ids follow time, and Cloud Tasks asks for names that do not begin alike: it shards by them (tasks.create).
        shard = hashlib.sha256(words.encode()).hexdigest()[:8]
        return HttpTask(
            queue=task.queue_name,
            name=f"{shard}-{words}",
            url=f"{url}/internal/{task.route}/{id_}",
            service_account=self.options["service_account"],
            audience=url,
            schedule_time=task.run_after,
            dispatch_deadline_seconds=self.options.get("dispatch_deadline_seconds", {}).get(task.queue_name),
        )

    @cached_property
    def client(self) -> TaskClient:
        return cast(TaskClient, import_string(self.options["client"])())

    def _create_quietly(self, http_task: HttpTask, result: TaskResult[Any]) -> None:
        try:
            self.client.create(http_task)
        except TaskExists:
            log.info("the task is enqueued already", queue=http_task.queue, task=http_task.name)
        except QueueFailure as failure:
            log.warning("a task could not be enqueued", queue=http_task.queue, task=http_task.name, reason=str(failure))
        except Exception as error:
            # Whatever it is, the row is committed, and a caller that is told of a failure would make a second one.
            log.exception("a task could not be enqueued", exc_info=error, queue=http_task.queue, task=http_task.name)
        else:
            task_enqueued.send(type(self), task_result=result)

    def check(self, **kwargs: Any) -> Iterable[checks.CheckMessage]:
        for name in _OPTIONS:
            if not self.options.get(name):
                yield checks.Error(f"TASKS[{self.alias!r}]: the option {name!r} is not set", id="tasking.E001")
        parts = urlsplit(self.options.get("url", ""))
        if self.options.get("url") and (parts.scheme not in ("http", "https") or not parts.netloc or parts.path):
            yield checks.Error(
                f"TASKS[{self.alias!r}]: url is {self.options['url']!r}, but must be https://<host>, without a path",
                hint="It is the audience of the tokens, too, which is compared letter by letter.",
                id="tasking.E002",
            )


class ImmediateBackend(_OneId, immediate.ImmediateBackend):
    """Runs a task in the process that enqueues it, when its transaction is committed. Nothing runs twice, or later."""

    supports_async_task = False
    supports_priority = False

    def enqueue(self, task: Task[Any, T], args: Any, kwargs: Any) -> TaskResult[T]:
        self.validate_task(task)
        ready = Outcome(status=TaskResultStatus.READY)
        result = self._result(cast("CloudTask[Any, T]", task), _the_id(task, args, kwargs), ready)
        transaction.on_commit(partial(self._execute_task, result))
        return result

    def submit(self, task: Task[..., Any], id_: str) -> Submission:
        self.enqueue(task, (id_,), {})
        return Submission.CREATED
