"""The worker's internal addresses, called in this process with real tokens: Cloud Tasks and Scheduler by hand."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import urlsplit

from django.http import HttpResponse
from django.test import Client, TestCase, override_settings

from app.tasking import HttpTask
from app.tasking.memory import InMemoryTasks
from tests.app.tokens import SCHEDULER, TASKS, WORKER_URL, Issuer


class Worker:
    def __init__(self, queues: InMemoryTasks, issuer: Issuer | None = None) -> None:
        from tests.app.conftest import ISSUER

        self.queues = queues
        self.issuer = issuer or ISSUER

    def deliver(self, task: HttpTask, *, attempt: int = 1) -> Any:
        """One delivery of a task, as Cloud Tasks makes it."""
        headers = {
            "X-CloudTasks-QueueName": task.queue,
            "X-CloudTasks-TaskName": task.name,
            "X-CloudTasks-TaskRetryCount": str(attempt - 1),
        }
        return self.post(urlsplit(task.url).path, TASKS, headers=headers, body=task.body)

    def run(self, *, rounds: int = 20) -> list[int]:
        """Deliver what is enqueued, and what that enqueues, once each. The statuses of the answers."""
        statuses: list[int] = []
        for _ in range(rounds):
            taken = self.queues.take()
            if not taken:
                return statuses
            statuses += [self.deliver(task).status_code for task in taken]
        raise AssertionError(f"tasks enqueue tasks without end: {[task.url for task in self.queues.tasks]}")

    def scheduled(self, name: str) -> Any:
        return self.post(f"/internal/scheduled/{name}", SCHEDULER)

    def post(self, path: str, caller: str, *, headers: dict[str, str] | None = None, body: bytes = b"{}") -> Any:
        token = {"authorization": f"Bearer {self.issuer.token(caller)}"}
        # A test's transaction is never committed; what the worker enqueues on commit is.
        with _worker_urls(), TestCase.captureOnCommitCallbacks(execute=True):
            client = Client(headers={"host": urlsplit(WORKER_URL).netloc, "x-forwarded-proto": "https"})
            return client.post(path, body, content_type="application/json", headers=token | (headers or {}))


def _worker_urls() -> AbstractContextManager[Any]:
    return override_settings(ROOT_URLCONF="tests.app.worker_urls", ALLOWED_HOSTS=[".run.app"])


def statuses(answers: Iterable[HttpResponse]) -> list[int]:
    return [answer.status_code for answer in answers]
