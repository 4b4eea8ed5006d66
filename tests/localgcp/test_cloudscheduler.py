"""Cloud Scheduler, seen by Google's client and by the target it calls."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from google.api_core.exceptions import BadRequest, Conflict, NotFound
from google.cloud import scheduler_v1

from localgcp.services.cloudscheduler import next_time
from tests.localgcp.fixtures import Region
from tests.localgcp.targets import Target, serving

SYDNEY = "Australia/Sydney"


@pytest.fixture
def target() -> Iterator[Target]:
    with serving() as target:
        yield target


@pytest.fixture
def scheduler(region: Region) -> scheduler_v1.CloudSchedulerClient:
    return region.client(scheduler_v1.CloudSchedulerClient)


@pytest.fixture
def location(project: str) -> str:
    return f"projects/{project}/locations/australia-southeast1"


def job(location: str, url: str, **settings: object) -> dict[str, object]:
    return {
        "name": f"{location}/jobs/sweep",
        "schedule": "0 3 * * *",
        "time_zone": SYDNEY,
        "http_target": {"uri": url, "body": b"{}"},
        **settings,
    }


def test_a_job_fires_when_its_time_comes(moved: Region, location: str, target: Target) -> None:
    scheduler = moved.client(scheduler_v1.CloudSchedulerClient)
    created = scheduler.create_job(parent=location, job=job(location, target.url))
    assert created.state == scheduler_v1.Job.State.ENABLED

    moved.core.clock.advance(timedelta(days=1))
    (delivery,) = target.wait_for(1)

    assert delivery.headers["User-Agent"] == "Google-Cloud-Scheduler"
    assert delivery.headers["X-CloudScheduler"] == "true"
    assert delivery.headers["X-CloudScheduler-JobName"] == "sweep"
    assert delivery.body == b"{}"


def test_a_job_can_be_run_at_once(scheduler: scheduler_v1.CloudSchedulerClient, location: str, target: Target) -> None:
    created = scheduler.create_job(parent=location, job=job(location, target.url))

    scheduler.run_job(name=created.name)

    target.wait_for(1)


def test_a_failed_run_is_retried_as_configured_and_leaves_its_status(
    scheduler: scheduler_v1.CloudSchedulerClient, location: str, target: Target
) -> None:
    target.answers(503, 503, 503)
    retry = {"retry_count": 2, "min_backoff_duration": timedelta(milliseconds=100)}
    created = scheduler.create_job(parent=location, job=job(location, target.url, retry_config=retry))

    scheduler.run_job(name=created.name)
    target.wait_for(3)

    status = next(found for found in (scheduler.get_job(name=created.name).status for _ in range(500)) if found.code)
    assert status.code == 13
    assert len(target.deliveries) == 3


def test_a_paused_job_does_not_fire_until_it_is_resumed(moved: Region, location: str, target: Target) -> None:
    scheduler = moved.client(scheduler_v1.CloudSchedulerClient)
    name = scheduler.create_job(parent=location, job=job(location, target.url)).name
    assert scheduler.pause_job(name=name).state == scheduler_v1.Job.State.PAUSED

    moved.core.clock.advance(timedelta(days=1))
    witness = f"{location}/jobs/witness"
    with serving() as other:
        scheduler.create_job(parent=location, job={**job(location, other.url), "name": witness})
        scheduler.run_job(name=witness)
        other.wait_for(1)
    assert target.deliveries == []

    scheduler.resume_job(name=name)
    moved.core.clock.advance(timedelta(days=1))
    target.wait_for(1)


def test_jobs_are_updated_listed_and_deleted(
    scheduler: scheduler_v1.CloudSchedulerClient, location: str, target: Target
) -> None:
    created = scheduler.create_job(parent=location, job=job(location, target.url))
    with pytest.raises(Conflict):
        scheduler.create_job(parent=location, job=job(location, target.url))

    updated = scheduler.update_job(
        job={"name": created.name, "schedule": "*/5 * * * *"}, update_mask={"paths": ["schedule"]}
    )

    assert updated.schedule == "*/5 * * * *"
    assert updated.time_zone == SYDNEY
    assert [found.name for found in scheduler.list_jobs(parent=location)] == [created.name]
    scheduler.delete_job(name=created.name)
    with pytest.raises(NotFound):
        scheduler.get_job(name=created.name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "every day"}, "cron expression"),
        ({"schedule": "61 * * * *"}, "cron expression"),
        ({"time_zone": "Mars/Olympus"}, "tz database"),
        ({"attempt_deadline": timedelta(hours=1)}, "between"),
        ({"retry_config": {"retry_count": 6}}, "from 0 to 5"),
        ({"http_target": {"uri": "nowhere"}}, "must begin with"),
    ],
)
def test_a_bad_job_is_refused_by_name(
    scheduler: scheduler_v1.CloudSchedulerClient, location: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(BadRequest, match=message):
        scheduler.create_job(parent=location, job={**job(location, "http://127.0.0.1:9/"), **settings})


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        # Sydney's clocks went from 02:00 to 03:00 on 4 October 2026, and from 03:00 back to 02:00 on 5 April 2026.
        ("0 3 * * *", datetime(2026, 10, 2, 18, tzinfo=UTC), datetime(2026, 10, 3, 16, tzinfo=UTC)),
        ("0 3 * * *", datetime(2026, 10, 1, 18, tzinfo=UTC), datetime(2026, 10, 2, 17, tzinfo=UTC)),
        ("0 4 * * *", datetime(2026, 4, 4, 12, tzinfo=UTC), datetime(2026, 4, 4, 18, tzinfo=UTC)),
    ],
)
def test_a_schedule_follows_the_zone_through_summer_time(schedule: str, after: datetime, expected: datetime) -> None:
    assert next_time({"schedule": schedule, "timeZone": SYDNEY}, after) == expected
