"""Cloud Tasks through Google's client, over REST, with the workload's own identity."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, Final

from google.api_core.exceptions import (
    AlreadyExists,
    Conflict,
    GoogleAPICallError,
    InternalServerError,
    NotFound,
    RetryError,
    ServiceUnavailable,
    TooManyRequests,
)
from google.api_core.retry import Retry, if_exception_type
from google.auth.exceptions import GoogleAuthError
from google.cloud import tasks_v2
from google.protobuf import duration_pb2, timestamp_pb2
from requests import RequestException

from app.cloud.identity import credentials
from app.settings import env
from app.tasking.client import HttpTask, QueueFailure, TaskExists

# A customer waits for the answer behind a create. What does not get through in this time is the sweep's to enqueue.
_PATIENCE_SECONDS: Final = 3.0
_AGAIN: Final = Retry(
    predicate=if_exception_type(ServiceUnavailable, InternalServerError, TooManyRequests, RequestException),
    initial=0.1,
    maximum=0.8,
    timeout=_PATIENCE_SECONDS,
)
_PAGE: Final = 200


class GoogleTasks:
    """A `TaskClient`. Creating with a name is safe to repeat: the second answer is that the task exists."""

    def __init__(self, client: tasks_v2.CloudTasksClient, parent: str) -> None:
        """`parent` is `projects/<project>/locations/<location>`."""
        self._client = client
        self._parent = parent

    def create(self, task: HttpTask) -> None:
        request: dict[str, Any] = {
            "name": self._name(task.queue, task.name),
            "http_request": {
                "url": task.url,
                "http_method": tasks_v2.HttpMethod.POST,
                "headers": {"Content-Type": "application/json"},
                "body": task.body,
                "oidc_token": {"service_account_email": task.service_account, "audience": task.audience},
            },
        }
        if task.dispatch_deadline_seconds is not None:
            request["dispatch_deadline"] = duration_pb2.Duration(seconds=task.dispatch_deadline_seconds)
        if task.schedule_time is not None:
            schedule_time = timestamp_pb2.Timestamp()
            schedule_time.FromDatetime(task.schedule_time)
            request["schedule_time"] = schedule_time
        with _failures():
            try:
                self._client.create_task(
                    parent=self._queue(task.queue), task=request, retry=_AGAIN, timeout=_PATIENCE_SECONDS
                )
            # The REST transport calls both by one name; gRPC tells them apart.
            except (AlreadyExists, Conflict):
                raise TaskExists(task.name) from None

    def exists(self, queue: str, name: str) -> bool:
        with _failures():
            try:
                self._client.get_task(name=self._name(queue, name), retry=_AGAIN, timeout=_PATIENCE_SECONDS)
            except NotFound:
                return False
            return True

    def delete(self, queue: str, name: str) -> None:
        with _failures(), suppress(NotFound):
            self._client.delete_task(name=self._name(queue, name), retry=_AGAIN, timeout=_PATIENCE_SECONDS)

    def tasks_in(self, queue: str) -> Iterator[HttpTask]:
        with _failures():
            pages = self._client.list_tasks(
                request={
                    "parent": self._queue(queue),
                    "response_view": tasks_v2.Task.View.FULL,
                    "page_size": _PAGE,
                },
                retry=_AGAIN,
                timeout=10.0,
            )
            for found in pages:
                target = found.http_request
                yield HttpTask(
                    queue=queue,
                    name=found.name.rpartition("/")[2],
                    url=target.url,
                    service_account=target.oidc_token.service_account_email,
                    audience=target.oidc_token.audience,
                    body=target.body,
                )

    def _queue(self, queue: str) -> str:
        return f"{self._parent}/queues/{queue}"

    def _name(self, queue: str, name: str) -> str:
        return f"{self._queue(queue)}/tasks/{name}"


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except (GoogleAPICallError, RetryError, GoogleAuthError, RequestException) as error:
        raise QueueFailure(f"{type(error).__name__}: {str(error)[:500]}") from error


@cache
def client() -> GoogleTasks:
    """The region's Cloud Tasks, for `TASKS` in the settings."""
    # The client appends /v2/ itself; the variable ends with it, as the Pulumi provider wants.
    endpoint = env.cloud_tasks_endpoint.removesuffix("/").removesuffix("/v2")
    with _failures():
        found = tasks_v2.CloudTasksClient(
            credentials=credentials(), transport="rest", client_options={"api_endpoint": endpoint}
        )
    return GoogleTasks(found, f"projects/{env.google_cloud_project}/locations/{env.location}")
