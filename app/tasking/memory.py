"""Cloud Tasks in memory, for tests: queues, names that stay taken, and failures on demand. Nothing is delivered by
itself; a test takes the tasks and delivers them when and as often as it likes.
"""

from collections.abc import Iterator

from app.tasking.client import HttpTask, QueueFailure, TaskExists


class InMemoryTasks:
    """A `TaskClient`. `failure` makes every call fail with that text."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.tasks: list[HttpTask] = []
        self.failure = ""
        self._names: set[tuple[str, str]] = set()

    def create(self, task: HttpTask) -> None:
        self._fail()
        if (task.queue, task.name) in self._names:
            raise TaskExists(task.name)
        self._names.add((task.queue, task.name))
        self.tasks.append(task)

    def exists(self, queue: str, name: str) -> bool:
        self._fail()
        return any((task.queue, task.name) == (queue, name) for task in self.tasks)

    def delete(self, queue: str, name: str) -> None:
        self._fail()
        self.tasks = [task for task in self.tasks if (task.queue, task.name) != (queue, name)]

    def tasks_in(self, queue: str) -> Iterator[HttpTask]:
        self._fail()
        return iter([task for task in self.tasks if task.queue == queue])

    def take(self) -> list[HttpTask]:
        """Every task, gone from its queue as after a delivery. The names stay taken."""
        taken, self.tasks = self.tasks, []
        return taken

    def forget_names(self) -> None:
        """As Cloud Tasks does hours after a task is gone."""
        self._names = {(task.queue, task.name) for task in self.tasks}

    def _fail(self) -> None:
        if self.failure:
            raise QueueFailure(self.failure)
