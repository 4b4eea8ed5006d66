"""What the backend needs of Cloud Tasks, and the errors a caller can act on.

Exception
├── TaskExists
└── QueueFailure
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


class TaskExists(Exception):
    """A task of this name is in the queue, or was so recently that Cloud Tasks keeps the name from being used again."""


class QueueFailure(Exception):
    """Cloud Tasks does not answer, or refuses. The message says which; nothing was enqueued, or nobody can tell."""


@dataclass(frozen=True, kw_only=True)
class HttpTask:
    """A task as Cloud Tasks keeps it. `queue` and `name` are the last parts of their resource names."""

    queue: str
    name: str
    url: str
    service_account: str
    audience: str
    body: bytes = b"{}"
    schedule_time: datetime | None = None
    dispatch_deadline_seconds: int | None = None


class TaskClient(Protocol):
    def create(self, task: HttpTask) -> None:
        """Raises: TaskExists; QueueFailure."""

    def exists(self, queue: str, name: str) -> bool:
        """Whether the task waits in the queue or is being delivered. Raises: QueueFailure."""

    def delete(self, queue: str, name: str) -> None:
        """A task that is not there is deleted already. Raises: QueueFailure."""

    def tasks_in(self, queue: str) -> Iterator[HttpTask]:
        """Every task in the queue, with its body. Raises: QueueFailure."""
