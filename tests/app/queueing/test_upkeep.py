"""Sweep, reaper and purges: what the queue lost, what the dead held, what has expired; and that none reads a table."""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import default_storage
from django.db import connection
from django.test import Client
from django.utils import timezone

from app import outbox
from app.dead_letters.models import DeadLetter
from app.idempotency.models import IdempotencyKey
from app.internal import schedules
from app.internal.callers import Callers
from app.internal.urls import urlpatterns
from app.organizations.models import Organization
from app.outbox import Deadline
from app.schedules import SCHEDULES
from app.tasking.memory import InMemoryTasks
from app.validations.models import State, ValidationJob
from tests.app.queueing.test_leases import job_of
from tests.app.tokens import SCHEDULER, TASKS
from tests.app.worker import Worker

Accept = Callable[..., Any]


def late() -> None:
    """As when a minute has passed."""
    ValidationJob.objects.filter(state="PENDING").update(sweep_at=timezone.now() - timedelta(hours=1))


def counts(answer: Any) -> dict[str, int]:
    assert answer.status_code == 200, answer.content
    return {name: count for name, count in answer.json()["counts"].items() if count}


def test_every_row_has_a_handler_and_every_handler_a_row() -> None:
    assert schedules.HANDLERS.keys() == {spec.name for spec in SCHEDULES}
    assert all(schedules.HANDLERS.values())


def test_a_job_whose_task_never_reached_the_queue_is_enqueued_by_the_sweep(
    accept: Accept, queues: InMemoryTasks, worker: Worker
) -> None:
    queues.failure = "ServiceUnavailable"
    assert accept().status_code == 202
    queues.failure = ""
    assert counts(worker.scheduled("re-enqueue-pending")) == {}  # a minute has not passed

    late()

    assert counts(worker.scheduled("re-enqueue-pending")) == {"enqueued": 1}
    assert worker.run() == [204]
    assert ValidationJob.objects.get().state == State.SUCCESS


def test_a_job_that_waits_in_the_queue_is_not_enqueued_twice(
    accept: Accept, queues: InMemoryTasks, worker: Worker
) -> None:
    accept()
    late()

    assert counts(worker.scheduled("re-enqueue-pending")) == {"waiting": 1}
    assert len(queues.tasks) == 1
    job = ValidationJob.objects.get()
    assert job.sweep_at is not None
    assert timedelta(seconds=50) < job.sweep_at - timezone.now() <= timedelta(minutes=1)


def test_the_pause_between_two_sweeps_of_a_job_grows_to_sixteen_minutes(accept: Accept, worker: Worker) -> None:
    accept()
    pauses = []
    for _ in range(6):
        late()
        worker.scheduled("re-enqueue-pending")
        pauses.append(round((ValidationJob.objects.get().sweep_at - timezone.now()).total_seconds() / 60))  # type: ignore[operator]

    assert pauses == [1, 2, 4, 8, 16, 16]


def test_a_job_whose_task_the_queue_lost_goes_on_under_another_name(
    accept: Accept, queues: InMemoryTasks, worker: Worker
) -> None:
    accept()
    [lost] = queues.take()  # out of attempts before it reached us, or purged
    late()

    assert counts(worker.scheduled("re-enqueue-pending")) == {"enqueued anew": 1}
    assert [task.url for task in queues.tasks] == [lost.url]
    assert queues.tasks[0].name.endswith("-1")
    assert worker.run() == [204]
    assert ValidationJob.objects.get().state == State.SUCCESS


def test_a_queue_that_does_not_answer_stops_the_sweep_and_costs_no_pause(
    accept: Accept, queues: InMemoryTasks, worker: Worker
) -> None:
    accept()
    late()
    queues.failure = "ServiceUnavailable"

    answer = worker.scheduled("re-enqueue-pending")

    assert (answer.status_code, answer.json()["failed"]) == (500, ["QueueFailure"])
    job = ValidationJob.objects.get()
    assert (job.sweeps, job.state) == (0, State.PENDING)


@pytest.mark.django_db(transaction=True)
def test_after_a_part_that_lost_its_connection_the_next_one_has_another() -> None:
    def asks(_: Deadline) -> dict[str, int]:
        Organization.objects.exists()
        return {"answers": 1}

    def loses_it(deadline: Deadline) -> dict[str, int]:
        connection.ensure_connection()
        connection.connection.close()
        return asks(deadline)

    answer = schedules.run(SCHEDULES[0], (loses_it, asks))

    report = json.loads(answer.content)
    assert (answer.status_code, report["failed"], report["counts"]) == (500, ["OperationalError"], {"answers": 1})


def test_a_job_whose_worker_died_waits_again_and_is_run(accept: Accept, queues: InMemoryTasks, worker: Worker) -> None:
    accept()
    queues.take()
    ValidationJob.objects.lease(ValidationJob.objects.get().pk, timedelta(seconds=-1))

    assert counts(worker.scheduled("reap-stuck-runs")) == {"reaped": 1}
    assert counts(worker.scheduled("re-enqueue-pending")) == {"enqueued anew": 1}
    assert worker.run() == [204]
    assert (ValidationJob.objects.get().state, ValidationJob.objects.get().attempts) == (State.SUCCESS, 2)


def test_a_job_whose_worker_lives_is_left_alone(accept: Accept, worker: Worker) -> None:
    accept()
    ValidationJob.objects.lease(ValidationJob.objects.get().pk, timedelta(minutes=1))

    assert counts(worker.scheduled("reap-stuck-runs")) == {}
    assert ValidationJob.objects.get().state == State.RUNNING


def test_a_job_that_kills_every_worker_is_given_up_with_a_dead_letter(
    accept: Accept, queues: InMemoryTasks, worker: Worker
) -> None:
    accept()
    queues.take()
    job_id = ValidationJob.objects.get().pk
    ValidationJob.objects.update(attempts=outbox.MAX_ATTEMPTS - 1)
    ValidationJob.objects.lease(job_id, timedelta(seconds=-1))

    assert counts(worker.scheduled("reap-stuck-runs")) == {"reaped": 1, "given up": 1}
    assert ValidationJob.objects.get().state == State.FAILED
    letter = DeadLetter.objects.get()
    assert (letter.error_type, letter.attempts) == ("app.validations.upkeep.WorkerDied", 15)
    assert [task.queue for task in queues.tasks] == ["validations-dead-letters"]


def test_an_expired_submission_is_deleted_and_its_result_stays(api: Client, accept: Accept, worker: Worker) -> None:
    url = accept()["Location"]
    worker.run()
    accept()
    done, waiting = ValidationJob.objects.order_by("id")
    ValidationJob.objects.update(submission_expires_at=timezone.now())

    assert counts(worker.scheduled("purge-expired-submissions")) == {"submissions": 1}
    assert counts(worker.scheduled("purge-expired-submissions")) == {}
    assert not default_storage.exists(done.media_name)
    assert default_storage.exists(waiting.media_name)
    assert api.get(url).json()["verdict"] == "PASS"


def test_sessions_and_keys_that_expired_are_deleted_and_no_others(organization: Organization, worker: Worker) -> None:
    now = timezone.now()
    for n in range(3):
        Session.objects.create(session_key=str(n), session_data="", expire_date=now + timedelta(minutes=n - 1))
        IdempotencyKey.objects.create(
            organization=organization,
            key=str(n),
            request_sha256="",
            token="00000000-0000-0000-0000-000000000000",
            held_until=now,
            expires_at=now + timedelta(minutes=n - 1),
        )

    assert counts(worker.scheduled("clear-sessions")) == {"sessions": 2}
    assert counts(worker.scheduled("purge-idempotency-keys")) == {"keys": 2}
    assert (Session.objects.get().pk, IdempotencyKey.objects.get().key) == ("2", "2")


def test_a_part_that_fails_does_not_keep_the_others_from_running(db: None) -> None:
    ran: list[str] = []

    def fails(deadline: outbox.Deadline) -> dict[str, int]:
        raise ZeroDivisionError

    def works(deadline: outbox.Deadline) -> dict[str, int]:
        ran.append("works")
        return {"rows": 3}

    answer = schedules.run(SCHEDULES[0], (fails, works))

    assert (answer.status_code, ran) == (500, ["works"])
    assert b'"counts": {"rows": 3}, "failed": ["ZeroDivisionError"]' in answer.content


def test_a_sweep_is_bounded_by_its_deadline(organization: Organization, queues: InMemoryTasks) -> None:
    job_of(organization)
    late()

    from app.validations import upkeep

    assert upkeep.sweep(outbox.Deadline.after(0)) == {"enqueued": 0, "waiting": 0, "enqueued anew": 0}
    assert queues.tasks == []


FILL = """
    INSERT INTO validations_validationjob (
        id, organization_id, validator, state, verdict, filename, media_name, content_type, content_bytes,
        content_sha256, errors, warnings, infos, findings_truncated, attempts, generation, sweeps, created_at,
        sweep_at, lease_token, lease_expires_at, finished_at, submission_expires_at
    )
    SELECT
        gen_random_uuid(), %s, 'cel', state, verdict, '', '', '', 1, '', 0, 0, 0, false, 0, 0, 0, now(),
        CASE WHEN state = 'PENDING' THEN now() + (n - 40000) * interval '1 second' / 100 END,
        CASE WHEN state = 'RUNNING' THEN gen_random_uuid() END,
        CASE WHEN state = 'RUNNING' THEN now() + (n - 20) * interval '1 second' END,
        CASE WHEN state = 'SUCCESS' THEN now() END,
        now() + (n - 100) * interval '1 minute'
    FROM (
        SELECT n,
            CASE WHEN n %% 2 = 0 THEN 'SUCCESS' WHEN n %% 1001 = 0 THEN 'RUNNING' ELSE 'PENDING' END AS state,
            CASE WHEN n %% 2 = 0 THEN 'PASS' ELSE '' END AS verdict
        FROM generate_series(1, %s) AS n
    ) AS rows
"""
PURGE = """
    SELECT * FROM validations_validationjob WHERE submission_expires_at <= now()
    ORDER BY submission_expires_at LIMIT 50 FOR UPDATE SKIP LOCKED
"""


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (outbox.SWEEP.format(table="validations_validationjob").replace("%s", "200"), "validationjob_to_sweep"),
        (outbox.REAP.format(table="validations_validationjob").replace("%s", "200"), "validationjob_to_reap"),
        (PURGE, "validationjob_to_purge"),
    ],
    ids=["sweep", "reap", "purge"],
)
def test_no_schedule_reads_the_table_of_jobs(organization: Organization, statement: str, index: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(FILL, [organization.pk, 60_000])
        cursor.execute("ANALYZE validations_validationjob")
        cursor.execute(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) {statement}")
        plan = "\n".join(row[0] for row in cursor.fetchall())

    assert f"Index Scan using {index}" in plan, plan
    assert "Seq Scan" not in plan, plan
    assert "Sort" not in plan, plan
    read = [float(n) for n in re.findall(rf"Index Scan using {index}.*?rows=([\d.]+)", plan)]
    assert read, plan
    assert max(read) <= 200, plan


@pytest.mark.parametrize(
    ("table", "key", "column"),
    [("django_session", "session_key", "expire_date"), ("idempotency_idempotencykey", "id", "expires_at")],
)
def test_no_purge_reads_its_table(organization: Organization, table: str, key: str, column: str) -> None:
    fill = {
        "django_session": "INSERT INTO django_session SELECT n::text, '', now() + n * interval '1 second' "
        "FROM generate_series(-500, 40000) AS n",
        "idempotency_idempotencykey": "INSERT INTO idempotency_idempotencykey (organization_id, key, request_sha256, "
        "token, held_until, resource_id, created_at, expires_at) SELECT %s, n::text, '', gen_random_uuid(), now(), '', "
        "now(), now() + n * interval '1 second' FROM generate_series(-500, 40000) AS n",
    }[table]
    statement = outbox.DELETE.format(table=table, key=key, column=column)
    with connection.cursor() as cursor:
        cursor.execute(fill, [organization.pk] if "%s" in fill else [])
        cursor.execute(f"ANALYZE {table}")
        cursor.execute(f"EXPLAIN (COSTS OFF) {statement}", [timezone.now(), 1000])
        plan = "\n".join(row[0] for row in cursor.fetchall())

    assert "Seq Scan" not in plan, plan
    assert column in plan, plan


def test_every_internal_address_names_its_callers(db: None) -> None:
    views: list[tuple[str, Any]] = [(str(address.pattern), address.callback) for address in urlpatterns]
    callers = {
        pattern.partition("/")[0]: view.callers.emails
        for pattern, view in views
        if not pattern.startswith("callbacks/")  # a signature of the sender's, or a token
    }

    assert callers == {
        "run-validation": {TASKS},
        "deliver-webhook": {TASKS},
        "advance-workflow": {TASKS},
        "run-step": {TASKS},
        "scheduled": {SCHEDULER},
    }
    with pytest.raises(ImproperlyConfigured, match="has no caller"):
        Callers()
    with pytest.raises(ImproperlyConfigured, match="has no caller"):
        Callers("")
