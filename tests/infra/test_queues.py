"""Queues and schedules, from their rows."""

import pulumi
import pytest

from app.queues import QueueSpec
from app.schedules import ScheduleSpec
from infra.components.queues import Queues, QueuesArgs
from infra.components.schedules import Schedules, SchedulesArgs
from tests.infra.recording import record

REPORTS = QueueSpec(
    name="reports",
    max_dispatches_per_second=5,
    max_concurrent_dispatches=2,
    max_attempts=3,
    dispatch_deadline_seconds=60,
)
NIGHTLY = ScheduleSpec(name="tidy-up", cron="15 3 * * 1-5", is_regional=True, attempt_deadline_seconds=60)
BACKOFF = {"minBackoffDuration": "5s", "maxBackoffDuration": "3600s", "maxRetryDuration": "0s", "maxDoublings": 5}
HOURLY = ScheduleSpec(name="look", cron="*/30 * * * *", retry_count=0)


def test_a_row_becomes_a_queue_and_a_paused_dead_letter_queue() -> None:
    def program() -> None:
        member = {w: pulumi.Output.from_input(f"serviceAccount:{w}@p") for w in ("web", "worker")}
        Queues(
            "queues",
            QueuesArgs(
                project="validibot-au",
                location="australia-southeast1",
                deletion_protection=True,
                member_by_workload=member,
                tasks_account=pulumi.Output.from_input("projects/validibot-au/serviceAccounts/tasks@p"),
                specs=(REPORTS,),
            ),
        )

    recorded = [r for r in record(program) if r.type == "gcp:cloudtasks/queue:Queue"]
    queues = {r.inputs["name"]: r.inputs for r in recorded}

    assert queues.keys() == {"reports", "reports-dead-letters"}
    assert queues["reports"]["rateLimits"] == {"maxDispatchesPerSecond": 5, "maxConcurrentDispatches": 2}
    assert queues["reports"]["retryConfig"] == {
        "maxAttempts": 3,
        "minBackoff": "2s",
        "maxBackoff": "60s",
        "maxDoublings": 5,
    }
    assert queues["reports-dead-letters"]["desiredState"] == "PAUSED"
    assert all(r.protect for r in recorded)


def test_a_row_becomes_a_job_in_the_zone_that_it_says() -> None:
    def program() -> None:
        Schedules(
            "schedules",
            SchedulesArgs(
                project="validibot-au",
                location="australia-southeast1",
                time_zone="Australia/Sydney",
                worker_url=pulumi.Output.from_input("https://worker"),
                scheduler_email=pulumi.Output.from_input("scheduler@p"),
                specs=(NIGHTLY, HOURLY),
            ),
        )

    jobs = {r.inputs["name"]: r.inputs for r in record(program) if r.type == "gcp:cloudscheduler/job:Job"}

    assert jobs.keys() == {"tidy-up", "look"}
    assert jobs["tidy-up"] == {
        "name": "tidy-up",
        "project": "validibot-au",
        "region": "australia-southeast1",
        "schedule": "15 3 * * 1-5",
        "timeZone": "Australia/Sydney",
        "attemptDeadline": "60s",
        "retryConfig": {**BACKOFF, "retryCount": 3},
        "httpTarget": {
            "uri": "https://worker/internal/scheduled/tidy-up",
            "httpMethod": "POST",
            "oidcToken": {"serviceAccountEmail": "scheduler@p", "audience": "https://worker"},
        },
    }
    assert (jobs["look"]["timeZone"], jobs["look"]["retryConfig"]) == ("Etc/UTC", {**BACKOFF, "retryCount": 0})


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("max_dispatches_per_second", 501, "1 to 500"),
        ("max_concurrent_dispatches", 5001, "1 to 5000"),
        ("max_attempts", 0, "1 to 100"),
        ("dispatch_deadline_seconds", 14, "15 to 1800"),
        ("dispatch_deadline_seconds", 1801, "15 to 1800"),
        ("max_doublings", 17, "0 to 16"),
        ("min_backoff_seconds", 61, "more than max_backoff_seconds"),
        ("name", "Reports", "lower-case"),
    ],
)
def test_a_queue_that_google_would_refuse_is_refused_here(field: str, value: object, said: str) -> None:
    row = {
        "name": "reports",
        "max_dispatches_per_second": 5,
        "max_concurrent_dispatches": 2,
        "max_attempts": 3,
        "dispatch_deadline_seconds": 60,
    }
    with pytest.raises(ValueError, match=said):
        QueueSpec(**{**row, field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("cron", "* * * *", "five fields"),
        ("cron", "60 * * * *", "not 0 to 59"),
        ("cron", "0 0 0 * *", "not 1 to 31"),
        ("cron", "@daily", "five fields"),
        ("attempt_deadline_seconds", 1801, "15 to 1800"),
        ("retry_count", 6, "0 to 5"),
    ],
)
def test_a_schedule_that_google_would_refuse_is_refused_here(field: str, value: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ScheduleSpec(**{"name": "look", "cron": "*/30 * * * *", field: value})  # type: ignore[arg-type]
