"""A queue in a test's hands: it delivers in any order, as often as it likes, and on as many threads."""

from dataclasses import dataclass
from random import Random
from typing import Any

from app.leases import LeaseHeld
from app.tasking import HttpTask, TryLater
from app.tasking.memory import InMemoryTasks
from app.workflows.tasks import advance_workflow, run_step

_TASKS: dict[str, Any] = {"advance-workflow": advance_workflow, "run-step": run_step}


@dataclass
class Queue:
    tasks: InMemoryTasks

    def take(self) -> list[HttpTask]:
        return self.tasks.take()

    def until_empty(self, random: Random | None = None) -> int:
        """Deliver until nothing is left; with `random`, in its order, some of it twice and some of it never."""
        delivered = 0
        while tasks := self.take():
            if random is not None:
                tasks += [task for task in tasks if random.random() < 0.4]
                tasks = [task for task in tasks if random.random() > 0.05]
                random.shuffle(tasks)
            for task in tasks:
                deliver(task)
                delivered += 1
        return delivered


def deliver(task: HttpTask) -> bool:
    """As the worker does, but for the token. False: the queue would come again."""
    _, route, id_ = task.url.rsplit("/", 2)
    if route not in _TASKS:
        return True  # somebody else's, such as a webhook's
    try:
        _TASKS[route].call(id_)
    except (LeaseHeld, TryLater):
        return False
    return True
