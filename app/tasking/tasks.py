"""Tasks of this backend: a name for each enqueue, and where a result is read from."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from django_tasks.base import Task, TaskResultStatus

if TYPE_CHECKING:
    from app.tasking.backends import Submission

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How far a task is, as the row that it works on says. Cloud Tasks itself keeps no results."""

    status: TaskResultStatus
    enqueued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    return_value: Any = None
    error: str = ""


class TryLater(Exception):
    """Nothing is wrong with the task, but it cannot run at this moment: have it delivered again."""

    def __init__(self, reason: str, seconds: int) -> None:
        super().__init__(reason)
        self.seconds = seconds


class TargetFailed(Exception):
    """Somebody else's server does not answer as it should. After the last attempt the row says so, and that is all:
    there is nothing here that anybody could mend, so no dead letter is left.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudTask(Task[P, T]):
    """`@task(queue_name=…, outcome=…)`. Each of the three is told the id that was enqueued."""

    occurrence: str = ""
    outcome: Callable[[str], Outcome | None] | None = field(default=None, compare=False)
    """How far the task is; None for an unknown id."""
    gives_up: Callable[[str, str], None] | None = field(default=None, compare=False)
    """The last attempt failed, with this error: bring the row to an end. Runs in a transaction, perhaps twice."""
    reopens: Callable[[str], str] | None = field(default=None, compare=False)
    """Have the row wait for its task again, and say which occurrence that is. Runs in a transaction."""

    @property
    def route(self) -> str:
        """`run_validation` is `run-validation` in addresses and in names of tasks."""
        return self.name.replace("_", "-")


def occurrence(task: Task[P, T], name: str) -> Task[P, T]:
    """The same task, to be enqueued once for each `name`: two enqueues of one id are one task, unless this differs.

    Letters, digits, hyphens and underscores.
    """
    return replace(cast("CloudTask[P, T]", task), occurrence=name)


def submit(task: Task[..., Any], id_: str) -> "Submission":
    """Enqueue at this moment, whatever transaction is open, and say what became of it.

    For those who look after rows that should have been picked up: the answer tells a task that waits from one whose
    name is used up. Raises: QueueFailure.
    """
    from app.tasking.backends import CloudTasksBackend, ImmediateBackend

    backend = task.get_backend()
    if not isinstance(backend, CloudTasksBackend | ImmediateBackend):
        raise TypeError(f"the backend {backend.alias!r} is a {type(backend).__name__}, which cannot submit")
    return backend.submit(task, id_)
