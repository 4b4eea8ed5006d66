"""The one queue in memory that every thread's backend enqueues in."""

from typing import Final

from app.tasking.memory import InMemoryTasks

QUEUE: Final = InMemoryTasks()


def client() -> InMemoryTasks:
    """What `TASKS` names in tests."""
    return QUEUE
