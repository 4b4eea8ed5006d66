"""The backend of django-tasks: names, addresses, commits, refusals, results."""

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone
from django_tasks import TaskResultStatus, default_task_backend, task, task_backends
from django_tasks.exceptions import InvalidTaskError, TaskResultDoesNotExist

from app.organizations.models import Organization
from app.tasking import CloudTasksBackend, ImmediateBackend, QueueFailure, Submission, occurrence, submit
from app.tasking.memory import InMemoryTasks
from app.validations.tasks import run_validation
from tests.app.queueing.test_leases import job_of
from tests.app.tokens import TASKS, WORKER_URL

Commit = Callable[..., Any]
RAN: list[str] = []


@task(queue_name="workflows")
def note_down(name: str) -> None:
    RAN.append(name)


def test_a_task_becomes_a_request_to_the_worker(queues: InMemoryTasks, db: None) -> None:
    assert submit(run_validation, "7") is Submission.CREATED

    [made] = queues.tasks
    assert (made.queue, made.url) == ("validations", f"{WORKER_URL}/internal/run-validation/7")
    assert (made.service_account, made.audience) == (TASKS, WORKER_URL)
    assert (made.body, made.dispatch_deadline_seconds, made.schedule_time) == (b"{}", 600, None)
    assert made.name == "4a7d26b7-run-validation-7"


def test_a_task_is_enqueued_when_its_transaction_is_committed(
    queues: InMemoryTasks, db: None, django_capture_on_commit_callbacks: Commit
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        with transaction.atomic():
            result = run_validation.enqueue("7")
            assert queues.tasks == []
        with contextlib.suppress(ZeroDivisionError), transaction.atomic():
            run_validation.enqueue("8")
            raise ZeroDivisionError

    assert [made.url.rpartition("/")[2] for made in queues.tasks] == ["7"]
    assert (result.id, result.status) == ("run-validation/7", TaskResultStatus.READY)


def test_one_enqueue_is_one_task_however_often_it_is_repeated(queues: InMemoryTasks, db: None) -> None:
    answers = [submit(run_validation, "7"), submit(run_validation, "7"), submit(occurrence(run_validation, "2"), "7")]

    assert answers == [Submission.CREATED, Submission.WAITING, Submission.CREATED]
    assert len({made.name for made in queues.tasks}) == 2
    queues.take()
    assert submit(run_validation, "7") is Submission.GONE


def test_a_queue_that_fails_after_the_commit_does_not_fail_the_caller(
    queues: InMemoryTasks, db: None, django_capture_on_commit_callbacks: Commit, caplog: pytest.LogCaptureFixture
) -> None:
    queues.failure = "ServiceUnavailable: 503"

    with django_capture_on_commit_callbacks(execute=True):
        run_validation.enqueue("7")

    assert "a task could not be enqueued" in caplog.text
    with pytest.raises(QueueFailure, match="503"):
        submit(run_validation, "7")


def test_a_client_that_breaks_after_the_commit_does_not_fail_the_caller(
    queues: InMemoryTasks,
    db: None,
    django_capture_on_commit_callbacks: Commit,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The row is committed: a caller that is told of a failure would make a second one."""
    monkeypatch.setattr(queues, "create", lambda task: 1 / 0)

    with django_capture_on_commit_callbacks(execute=True):
        run_validation.enqueue("7")

    assert "a task could not be enqueued" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_task_can_be_delayed_for_thirty_days_and_no_longer(queues: InMemoryTasks, db: None) -> None:
    soon = timezone.now() + timedelta(days=29)
    submit(run_validation.using(run_after=soon), "7")

    assert queues.tasks[0].schedule_time == soon
    with pytest.raises(InvalidTaskError, match="at most 30 days ahead"):
        run_validation.using(run_after=timezone.now() + timedelta(days=31))
    with pytest.raises(InvalidTaskError, match="aware"):
        run_validation.using(run_after=datetime(2030, 1, 1))


@pytest.mark.parametrize(
    ("change", "said"),
    [({"priority": 5}, "Cloud Tasks has no priorities"), ({"queue_name": "elsewhere"}, "is not valid for backend")],
)
def test_what_cloud_tasks_has_not_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidTaskError, match=said):
        run_validation.using(**change)


@pytest.mark.parametrize(
    ("arguments", "named"), [((), {}), (("1", "2"), {}), (("a/b",), {}), (("",), {}), ((), {"job_id": "1"})]
)
def test_a_task_takes_one_id_and_nothing_else(arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    with pytest.raises(InvalidTaskError, match="takes one id"):
        run_validation.enqueue(*arguments, **named)


def test_a_result_is_read_from_the_row(organization: Organization) -> None:
    job = job_of(organization)

    result = run_validation.get_result(f"run-validation/{job.pk}")

    assert (result.status, result.args, result.enqueued_at) == (TaskResultStatus.READY, [str(job.pk)], job.created_at)
    job.state, job.sweep_at, job.finished_at = "SUCCESS", None, datetime(2026, 11, 23, tzinfo=UTC)
    job.verdict = "PASS"
    job.save()
    result.refresh()
    seen: Any = (result.status, result.return_value, result.finished_at)
    assert seen == (TaskResultStatus.SUCCESSFUL, "PASS", job.finished_at)


@pytest.mark.parametrize(
    "result_id",
    [
        "run-validation/00000000-0000-7000-8000-000000000000",
        "run-validation/7",
        "deliver-webhook/7",
        "advance-workflow/7",
        "run-step/7",
        "run-step/",
        "no-such-task/1",
        "x",
    ],
)
def test_an_unknown_result_does_not_exist(db: None, result_id: str) -> None:
    with pytest.raises(TaskResultDoesNotExist):
        default_task_backend.get_result(result_id)


def test_a_task_is_a_function_of_a_module() -> None:
    def elsewhere() -> Any:
        @task(queue_name="workflows")
        def note_down(name: str) -> None: ...

    with pytest.raises(InvalidTaskError, match="must be defined at a module level"):
        elsewhere()


def test_a_wrong_configuration_is_found_by_check() -> None:
    backend = CloudTasksBackend("default", {"OPTIONS": {"client": "x", "url": "https://w/path"}})

    assert [(e.id, e.msg.partition(": ")[2][:30]) for e in backend.check()] == [
        ("tasking.E001", "the option 'service_account' i"),
        ("tasking.E002", "url is 'https://w/path', but m"),
    ]
    assert list(task_backends["default"].check()) == []


def test_the_immediate_backend_runs_a_task_when_its_transaction_is_committed(
    db: None, django_capture_on_commit_callbacks: Commit
) -> None:
    RAN.clear()
    backend = ImmediateBackend("default", {"QUEUES": ["workflows"]})

    with django_capture_on_commit_callbacks(execute=True):
        result = backend.enqueue(note_down, ("one",), {})
        assert RAN == []

    assert RAN == ["one"]
    assert result.status == TaskResultStatus.SUCCESSFUL
