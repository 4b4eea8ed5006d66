"""What a delivery's answer tells Cloud Tasks, and what is left of a task that fails to the last."""

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from app.dead_letters.letters import Letter
from app.dead_letters.models import DeadLetter
from app.queues import VALIDATIONS
from app.tasking import HttpTask
from app.tasking.memory import InMemoryTasks
from app.validations.models import State, ValidationJob
from tests.app.queueing.conftest import GOOD
from tests.app.tokens import TASKS
from tests.app.worker import Worker

Accept = Callable[..., Any]
OF_NO_ROW = Letter(
    queue="validations",
    task_name="by-hand",
    route="run-validation",
    task_id="by-hand",
    attempts=5,
    error_type="builtins.ValueError",
    error="",
    trace="",
    failed_at="2026-11-23T02:00:00+00:00",
)


@pytest.fixture
def enqueued(accept: Accept, queues: InMemoryTasks) -> HttpTask:
    """A good submission's task."""
    accept()
    [made] = queues.take()
    return made


@pytest.fixture
def broken(enqueued: HttpTask) -> HttpTask:
    """A task that always fails: its submission has disappeared."""
    default_storage.delete(ValidationJob.objects.get().media_name)
    return enqueued


def mend() -> None:
    default_storage.save(ValidationJob.objects.get().media_name, ContentFile(json.dumps(GOOD).encode()))


def test_a_duplicate_of_a_finished_task_is_acknowledged_and_changes_nothing(worker: Worker, enqueued: HttpTask) -> None:
    first = worker.deliver(enqueued)
    before = ValidationJob.objects.values().get()

    second = worker.deliver(enqueued)

    assert (first.status_code, second.status_code) == (204, 204)
    assert ValidationJob.objects.values().get() == before


def test_a_duplicate_that_meets_a_live_lease_is_retried(worker: Worker, enqueued: HttpTask) -> None:
    ValidationJob.objects.lease(ValidationJob.objects.get().pk, timedelta(seconds=30))

    answer = worker.deliver(enqueued)

    assert answer.status_code == 429
    assert 25 <= int(answer["Retry-After"]) <= 31


def test_a_live_lease_is_no_reason_for_a_dead_letter(worker: Worker, enqueued: HttpTask) -> None:
    ValidationJob.objects.lease(ValidationJob.objects.get().pk, timedelta(seconds=30))

    answer = worker.deliver(enqueued, attempt=VALIDATIONS.max_attempts)

    assert answer.status_code == 429
    assert not DeadLetter.objects.exists()


def test_a_dead_lease_is_taken_over(worker: Worker, enqueued: HttpTask) -> None:
    ValidationJob.objects.lease(ValidationJob.objects.get().pk, timedelta(seconds=-1))

    assert worker.deliver(enqueued).status_code == 204
    assert ValidationJob.objects.get().state == State.SUCCESS


def test_a_task_whose_row_is_gone_is_acknowledged(worker: Worker, enqueued: HttpTask) -> None:
    ValidationJob.objects.all().delete()

    assert worker.deliver(enqueued).status_code == 204


def test_a_task_about_what_can_be_no_row_has_no_address(worker: Worker, queues: InMemoryTasks, db: None) -> None:
    answers = [worker.post(f"/internal/run-validation/{name}", TASKS) for name in ("7", "by-hand", str(uuid4()))]

    assert [answer.status_code for answer in answers] == [404, 404, 204]
    assert queues.tasks == []


def test_a_failed_attempt_is_delivered_again_until_the_last(worker: Worker, broken: HttpTask) -> None:
    for attempt in range(1, VALIDATIONS.max_attempts):
        assert worker.deliver(broken, attempt=attempt).status_code == 500
        assert ValidationJob.objects.get().state == State.PENDING

    assert worker.deliver(broken, attempt=VALIDATIONS.max_attempts).status_code == 204
    job = ValidationJob.objects.get()
    assert (job.state, job.attempts, job.problem and job.problem["code"]) == (State.FAILED, 5, "internal-error")


def test_the_last_attempt_leaves_a_row_and_a_parked_copy(
    worker: Worker, broken: HttpTask, queues: InMemoryTasks, caplog: pytest.LogCaptureFixture
) -> None:
    worker.deliver(broken, attempt=5)

    letter = DeadLetter.objects.get()
    job = ValidationJob.objects.get()
    assert (letter.queue, letter.task_name, letter.attempts) == ("validations", broken.name, 5)
    assert (letter.route, letter.task_id, letter.state) == ("run-validation", str(job.pk), "WAITING")
    assert (letter.error_type, letter.is_parked) == ("builtins.FileNotFoundError", True)
    [parked] = queues.tasks
    assert (parked.queue, parked.url) == ("validations-dead-letters", broken.url)
    assert json.loads(parked.body)["dead_letter"]["trace"] == letter.trace
    events: list[Any] = [record.msg for record in caplog.records]
    counted = [event["dead_letter"]["queue"] for event in events if event["event"] == "dead letter"]
    assert counted == ["validations"]


def test_a_last_attempt_that_is_delivered_twice_is_one_dead_letter(
    worker: Worker, broken: HttpTask, queues: InMemoryTasks
) -> None:
    worker.deliver(broken, attempt=5)
    ValidationJob.objects.update(state=State.PENDING, finished_at=None, sweep_at=timezone.now(), problem=None)

    assert worker.deliver(broken, attempt=5).status_code == 204
    assert (DeadLetter.objects.count(), len(queues.tasks)) == (1, 1)


def test_without_its_row_the_copy_alone_survives_and_the_sweep_reads_it_back(
    worker: Worker, broken: HttpTask, queues: InMemoryTasks
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE dead_letters_deadletter RENAME TO lost")
    assert worker.deliver(broken, attempt=5).status_code == 204
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE lost RENAME TO dead_letters_deadletter")
    assert (DeadLetter.objects.count(), len(queues.tasks)) == (0, 1)
    assert ValidationJob.objects.get().state == State.PENDING

    swept = worker.scheduled("sweep-dead-letters").json()["counts"]

    assert swept == {"read back": 1, "unparked": 0, "foreign": 0, "done since": 0}
    letter = DeadLetter.objects.get()
    assert (letter.error_type, letter.attempts, letter.is_parked) == ("builtins.FileNotFoundError", 5, True)
    assert ValidationJob.objects.get().state == State.FAILED
    assert worker.scheduled("sweep-dead-letters").json()["counts"]["read back"] == 0


def test_a_copy_of_a_job_that_was_done_after_all_is_no_dead_letter(
    worker: Worker, broken: HttpTask, queues: InMemoryTasks
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE dead_letters_deadletter RENAME TO lost")
    worker.deliver(broken, attempt=5)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE lost RENAME TO dead_letters_deadletter")
    mend()
    ValidationJob.objects.update(sweep_at=timezone.now() - timedelta(minutes=1))
    worker.scheduled("re-enqueue-pending")
    [parked, again] = queues.tasks
    assert worker.deliver(again).status_code == 204

    swept = worker.scheduled("sweep-dead-letters").json()["counts"]

    assert swept == {"read back": 0, "unparked": 0, "foreign": 0, "done since": 1}
    assert (DeadLetter.objects.count(), parked in queues.tasks) == (0, False)
    assert ValidationJob.objects.get().state == State.SUCCESS


def test_without_queue_the_row_alone_survives(worker: Worker, broken: HttpTask, queues: InMemoryTasks) -> None:
    queues.failure = "ServiceUnavailable"

    assert worker.deliver(broken, attempt=5).status_code == 204
    assert DeadLetter.objects.get().is_parked is False


def test_without_both_the_task_is_not_acknowledged(worker: Worker, broken: HttpTask, queues: InMemoryTasks) -> None:
    queues.failure = "ServiceUnavailable"
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE dead_letters_deadletter RENAME TO lost")

    assert worker.deliver(broken, attempt=5).status_code == 500


def test_a_requeued_dead_letter_runs_from_its_first_attempt_and_is_done(
    worker: Worker, broken: HttpTask, queues: InMemoryTasks, api: Client
) -> None:
    worker.deliver(broken, attempt=5)
    mend()

    call_command("dead_letters", "requeue", str(DeadLetter.objects.get().pk), stdout=StringIO())

    letter, job = DeadLetter.objects.get(), ValidationJob.objects.get()
    assert (letter.state, letter.is_parked, letter.enqueue_at) == ("REQUEUED", False, None)
    assert (job.state, job.attempts) == (State.PENDING, 0)
    assert [task.queue for task in queues.tasks] == ["validations"]
    assert worker.run() == [204]
    answer = api.get(f"/api/validations/{job.pk}").json()
    assert (answer["state"], answer["verdict"], answer["problem"]) == ("SUCCESS", "PASS", None)


def test_a_requeue_that_the_queue_refuses_is_enqueued_by_the_next_sweep(
    worker: Worker, broken: HttpTask, queues: InMemoryTasks
) -> None:
    worker.deliver(broken, attempt=5)
    mend()
    queues.failure = "ServiceUnavailable"
    call_command("dead_letters", "requeue", str(DeadLetter.objects.get().pk), stdout=StringIO())
    queues.failure = ""
    DeadLetter.objects.update(enqueue_at=timezone.now() - timedelta(minutes=2))

    assert worker.scheduled("re-enqueue-pending").json()["counts"]["requeued"] == 1
    assert worker.scheduled("re-enqueue-pending").json()["counts"]["requeued"] == 0
    assert worker.run() == [204]
    assert ValidationJob.objects.get().state == State.SUCCESS
    assert [task.queue for task in queues.tasks] == []


def test_a_purged_dead_letter_leaves_its_row_and_no_copy(
    worker: Worker, broken: HttpTask, queues: InMemoryTasks
) -> None:
    worker.deliver(broken, attempt=5)
    call_command("dead_letters", "purge", str(DeadLetter.objects.get().pk), stdout=StringIO())

    worker.scheduled("sweep-dead-letters")

    letter = DeadLetter.objects.get()
    assert (letter.state, letter.is_parked, queues.tasks) == ("PURGED", False, [])
    with pytest.raises(CommandError, match="is PURGED since"):
        call_command("dead_letters", "requeue", str(letter.pk), stdout=StringIO())


def test_the_command_lists_and_shows(worker: Worker, broken: HttpTask) -> None:
    worker.deliver(broken, attempt=5)
    letter = DeadLetter.objects.get()
    listed, shown = StringIO(), StringIO()

    call_command("dead_letters", "list", "--queue=validations", "--json", stdout=listed)
    call_command("dead_letters", "show", str(letter.pk), stdout=shown)

    assert [row["task_id"] for row in json.loads(listed.getvalue())] == [letter.task_id]
    assert json.loads(shown.getvalue())["error_type"] == "builtins.FileNotFoundError"
    with pytest.raises(CommandError, match="there is no dead letter 0"):
        call_command("dead_letters", "show", "0")


def test_the_command_says_how_many_it_does_not_list(worker: Worker, broken: HttpTask) -> None:
    worker.deliver(broken, attempt=5)
    first = DeadLetter.objects.get()
    second = DeadLetter.objects.create(
        **{name: getattr(first, name) for name in ("queue", "route", "attempts", "error_type", "failed_at")},
        task_id="x",
    )
    listed = StringIO()

    call_command("dead_letters", "list", "--limit=1", stdout=listed)

    rows = listed.getvalue().splitlines()
    assert [row.partition("\t")[0] for row in rows] == [str(second.pk), "the newest 1 of 2 dead letters"]


def test_the_admin_requeues_and_purges(worker: Worker, broken: HttpTask, queues: InMemoryTasks) -> None:
    worker.deliver(broken, attempt=5)
    User.objects.create_superuser("root", password="a-long-enough-password")
    browser = Client(headers={"host": "au.validibot.com", "x-forwarded-proto": "https"})
    browser.login(username="root", password="a-long-enough-password")
    letter = DeadLetter.objects.get()
    page = f"/admin/dead_letters/deadletter/{letter.pk}/change/"

    assert "FileNotFoundError" in browser.get(page).content.decode()
    browser.post("/admin/dead_letters/deadletter/", {"action": "requeue", "_selected_action": [letter.pk]})

    letter.refresh_from_db()
    assert letter.state == "REQUEUED"
    assert [task.queue for task in queues.tasks] == ["validations"]


@pytest.mark.parametrize(
    "body", [b"not ours", b"[]", b'{"dead_letter": {}}', json.dumps({"dead_letter": asdict(OF_NO_ROW)}).encode()]
)
def test_what_somebody_else_parked_is_left_alone(worker: Worker, db: None, queues: InMemoryTasks, body: bytes) -> None:
    foreign = HttpTask(
        queue="workflows-dead-letters", name="x", url="https://x", service_account="x", audience="x", body=body
    )
    queues.create(foreign)

    swept = worker.scheduled("sweep-dead-letters").json()["counts"]
    assert swept == {"read back": 0, "unparked": 0, "foreign": 1, "done since": 0}
    assert queues.tasks == [foreign]
