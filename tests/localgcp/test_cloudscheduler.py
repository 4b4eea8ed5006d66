"""Cloud Scheduler, seen by Google's client and by the target it calls."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from google.api_core.exceptions import BadRequest, Conflict, MethodNotImplemented, NotFound
from google.cloud import scheduler_v1, scheduler_v1beta1

from localgcp.services.cloudscheduler import next_time
from tests.localgcp.fixtures import Region, served, temporary_data_dir
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
    assert (created.state, created.attempt_deadline) == (scheduler_v1.Job.State.ENABLED, timedelta(minutes=3))

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
    assert (status.code, status.message) == (14, "UNAVAILABLE(14): HTTP status code 503")
    assert len(target.deliveries) == 3


def test_a_duration_without_a_count_has_a_job_retried_as_long_as_it_says(
    moved: Region, location: str, target: Target
) -> None:
    scheduler = moved.client(scheduler_v1.CloudSchedulerClient)
    target.answers(500)
    retry = {"max_retry_duration": timedelta(hours=1), "min_backoff_duration": timedelta(milliseconds=50)}
    created = scheduler.create_job(
        parent=location, job=job(location, target.url, retry_config={**retry, "max_doublings": 0})
    )

    scheduler.run_job(name=created.name)
    target.wait_for(4)
    moved.core.clock.advance(timedelta(hours=1))
    scheduler.run_job(name=created.name)  # begins when the run before has given up

    runs = next(found for found in (schedule_times(target, count) for count in range(5, 100)) if len(found) == 2)
    assert runs[1] - runs[0] >= timedelta(hours=1)


def schedule_times(target: Target, count: int) -> list[datetime]:
    """Of the runs that the first `count` deliveries belong to."""
    texts = {delivery.headers["X-CloudScheduler-ScheduleTime"] for delivery in target.wait_for(count)}
    return sorted(datetime.fromisoformat(text) for text in texts)


def test_a_firing_that_finds_the_last_one_at_work_comes_after_it(
    scheduler: scheduler_v1.CloudSchedulerClient, location: str, target: Target
) -> None:
    created = scheduler.create_job(parent=location, job=job(location, target.url))
    target.hold_seconds = 0.5

    scheduler.run_job(name=created.name)
    target.wait_for(1)
    scheduler.run_job(name=created.name)
    first, second = target.wait_for(2)

    assert second.at - first.at >= 0.5


def test_a_run_that_a_kill_interrupts_is_made_again(location: str, target: Target) -> None:
    target.hold_seconds = 30
    with temporary_data_dir() as data_dir:
        with served(data_dir) as region:
            scheduler = region.client(scheduler_v1.CloudSchedulerClient)
            name = scheduler.create_job(parent=location, job=job(location, target.url)).name
            scheduler.run_job(name=name)
            target.wait_for(1)
        target.hold_seconds = 0
        with served(data_dir) as region:
            first, second = target.wait_for(2)
            again = region.client(scheduler_v1.CloudSchedulerClient)
            next(found for found in (again.get_job(name=name) for _ in range(500)) if found.last_attempt_time)
        with served(data_dir) as region:
            witness = region.client(scheduler_v1.CloudSchedulerClient)
            with serving() as other:
                witness.create_job(parent=location, job={**job(location, other.url), "name": f"{location}/jobs/other"})
                witness.run_job(name=f"{location}/jobs/other")
                other.wait_for(1)

    assert len(target.deliveries) == 2
    assert first.headers["X-CloudScheduler-ScheduleTime"] == second.headers["X-CloudScheduler-ScheduleTime"]


def test_a_body_has_a_type_and_no_header_replaces_googles(
    scheduler: scheduler_v1.CloudSchedulerClient, location: str, target: Target
) -> None:
    headers = {"user-agent": "mine", "X-CloudScheduler": "false", "X-Google-A": "a", "X-Own": "yes"}
    created = scheduler.create_job(
        parent=location,
        job=job(location, target.url, http_target={"uri": target.url, "body": b"{}", "headers": headers}),
    )
    scheduler.run_job(name=created.name)
    (first,) = target.wait_for(1)
    typed = {"uri": target.url, "body": b"{}", "headers": {"content-type": "application/json"}}
    scheduler.update_job(job={"name": created.name, "http_target": typed}, update_mask={"paths": ["http_target"]})
    scheduler.run_job(name=created.name)
    _, second = target.wait_for(2)

    assert first.headers["Content-Type"] == "application/octet-stream"
    assert (first.headers["User-Agent"], first.headers["X-CloudScheduler"]) == ("Google-Cloud-Scheduler", "true")
    assert ("X-Google-A" in first.headers, first.headers["X-Own"]) == (False, "yes")
    assert second.headers["Content-Type"] == "application/json"


def test_english_and_the_documents_own_spelling_of_utc_are_schedules_too(
    scheduler: scheduler_v1.CloudSchedulerClient, location: str, target: Target
) -> None:
    created = scheduler.create_job(
        parent=location, job=job(location, target.url, schedule="every 5 minutes", time_zone="utc")
    )

    assert timedelta(minutes=4) < created.schedule_time - datetime.now(UTC) <= timedelta(minutes=5)


def test_a_job_that_is_not_named_is_given_a_name(
    scheduler: scheduler_v1.CloudSchedulerClient, location: str, target: Target
) -> None:
    created = scheduler.create_job(parent=location, job={**job(location, target.url), "name": ""})

    assert created.name.startswith(f"{location}/jobs/")
    assert scheduler.get_job(name=created.name).schedule == "0 3 * * *"


def test_a_job_keeps_its_one_target_when_another_kind_is_refused(
    scheduler: scheduler_v1.CloudSchedulerClient, location: str, target: Target
) -> None:
    created = scheduler.create_job(parent=location, job=job(location, target.url))
    other = {"name": created.name, "pubsub_target": {"topic_name": "projects/x/topics/y", "data": b"z"}}

    with pytest.raises(MethodNotImplemented, match="Only HTTP jobs"):
        scheduler.update_job(job=other, update_mask={"paths": ["pubsub_target"]})

    (kept,) = scheduler.list_jobs(parent=location)
    assert kept.http_target.uri == target.url


def test_a_null_is_a_field_that_was_left_out(region: Region, location: str, target: Target) -> None:
    jobs = region.api("cloudscheduler", "v1").projects().locations().jobs()
    body = {"attemptDeadline": None, "retryConfig": None, "timeZone": None, "description": None}
    said = {"name": f"{location}/jobs/sweep", "schedule": "0 3 * * *", "httpTarget": {"uri": target.url, "body": None}}

    made = jobs.create(parent=location, body={**said, **body}).execute()

    assert made["attemptDeadline"] == "180s"


def test_the_beta_client_sees_the_same_jobs(
    region: Region, scheduler: scheduler_v1.CloudSchedulerClient, location: str, target: Target
) -> None:
    beta = region.client(scheduler_v1beta1.CloudSchedulerClient)
    created = beta.create_job(parent=location, job=job(location, target.url))

    assert [found.name for found in scheduler.list_jobs(parent=location)] == [created.name]


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
    cleared = scheduler.update_job(job={"name": created.name}, update_mask={"paths": ["attempt_deadline"]})
    assert cleared.attempt_deadline == timedelta(minutes=3)
    assert [found.name for found in scheduler.list_jobs(parent=location)] == [created.name]
    scheduler.delete_job(name=created.name)
    with pytest.raises(NotFound):
        scheduler.get_job(name=created.name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": ""}, "it is empty"),
        ({"schedule": "every day"}, "neither five fields of cron nor"),
        ({"schedule": "61 * * * *"}, '"61" is not 0 to 59'),
        ({"schedule": "0 0 31 2 *"}, "there is no such day"),
        ({"time_zone": "Mars/Olympus"}, "tz database"),
        ({"time_zone": "Europe"}, "tz database"),
        ({"description": "x" * 501}, "more than 500 characters"),
        ({"retry_config": {"max_retry_duration": timedelta(seconds=-1)}}, "must not be negative"),
        ({"retry_config": {"min_backoff_duration": timedelta(hours=2)}}, "must not be greater than"),
        ({"http_target": {"uri": "http://x/", "headers": {"X-A": "a\nb"}}}, "must be printable ASCII"),
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
