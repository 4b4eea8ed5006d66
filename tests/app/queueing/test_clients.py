"""One contract, two clients: Google's, against a region, and the one in memory that tests use."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.utils import timezone
from google.cloud import tasks_v2

from app.cloud.tasks import GoogleTasks
from app.tasking import HttpTask, QueueFailure, TaskClient, TaskExists
from app.tasking.memory import InMemoryTasks
from tests.localgcp.fixtures import Region, served, temporary_data_dir

LOCATION = "projects/contract/locations/australia-southeast1"
TASK = HttpTask(
    queue="jobs",
    name="a-task_1",
    url="http://127.0.0.1:9/internal/run-validation/1",
    service_account="validibot-tasks@contract.iam.gserviceaccount.com",
    audience="http://127.0.0.1:9",
    body=b'{"parked": true}',
    dispatch_deadline_seconds=600,
)


@pytest.fixture(scope="module")
def region() -> Iterator[Region]:
    with temporary_data_dir() as data_dir, served(data_dir) as region:
        region.account("contract", "validibot-tasks")
        yield region


@pytest.fixture(params=["in memory", "google"])
def client(request: pytest.FixtureRequest) -> Iterator[TaskClient]:
    if request.param == "in memory":
        yield InMemoryTasks()
        return
    tasks = request.getfixturevalue("region").client(tasks_v2.CloudTasksClient)
    queue = tasks.create_queue(parent=LOCATION, queue={"name": f"{LOCATION}/queues/jobs"}).name
    tasks.pause_queue(name=queue)
    yield GoogleTasks(tasks, LOCATION)
    tasks.delete_queue(name=queue)


def test_a_task_is_kept_as_it_was_made(client: TaskClient) -> None:
    client.create(TASK)

    [found] = client.tasks_in("jobs")
    assert (found.queue, found.name, found.url, found.body) == (TASK.queue, TASK.name, TASK.url, TASK.body)
    assert (found.service_account, found.audience) == (TASK.service_account, TASK.audience)


def test_a_name_is_taken_also_when_its_task_is_gone(client: TaskClient) -> None:
    client.create(TASK)
    with pytest.raises(TaskExists):
        client.create(TASK)
    assert client.exists("jobs", TASK.name)

    client.delete("jobs", TASK.name)

    assert not client.exists("jobs", TASK.name)
    with pytest.raises(TaskExists):
        client.create(TASK)


def test_what_is_not_there_is_deleted_already(client: TaskClient) -> None:
    client.delete("jobs", "no-such-task")

    assert not client.exists("jobs", "no-such-task")
    assert list(client.tasks_in("jobs")) == []


def test_a_queue_that_is_not_there_is_a_failure(region: Region) -> None:
    client = GoogleTasks(region.client(tasks_v2.CloudTasksClient), LOCATION)

    with pytest.raises(QueueFailure, match="NotFound"):
        client.create(TASK)
    with pytest.raises(QueueFailure):
        list(client.tasks_in("nowhere"))


def test_a_task_is_kept_until_its_time(region: Region) -> None:
    tasks = region.client(tasks_v2.CloudTasksClient)
    queue = tasks.create_queue(parent=LOCATION, queue={"name": f"{LOCATION}/queues/later"}).name
    soon = timezone.now().replace(microsecond=0) + timedelta(days=2)

    GoogleTasks(tasks, LOCATION).create(
        HttpTask(
            queue="later",
            name="x",
            url=TASK.url,
            service_account=TASK.service_account,
            audience=TASK.audience,
            schedule_time=soon,
            dispatch_deadline_seconds=30,
        )
    )

    [kept] = tasks.list_tasks(parent=queue)
    assert kept.schedule_time == soon
    assert kept.dispatch_deadline == timedelta(seconds=30)
