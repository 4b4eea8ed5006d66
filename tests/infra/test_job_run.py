"""JobRun: one execution for each image, waited for, and a failure that stops the update."""

import json
from typing import Any

import pytest

from infra.job_run import JobFailed, JobRunProvider, run
from tests.infra.google import FakeGoogle

IMAGE = "australia-southeast1-docker.pkg.dev/validibot-au/validibot/app@sha256:" + "a" * 64
PROPS: dict[str, Any] = {
    "project": "validibot-au",
    "location": "australia-southeast1",
    "job": "validibot-migrate",
    "image": IMAGE,
    "database": "validibot-au:australia-southeast1:validibot-au-pg",
    "timeout_seconds": 60,
}
JOB = "/v2/projects/validibot-au/locations/australia-southeast1/jobs/validibot-migrate"
OPERATION = "projects/validibot-au/locations/australia-southeast1/operations/o-1"
EXECUTION = f"{JOB.removeprefix('/v2/')}/executions/validibot-migrate-abc"


@pytest.fixture
def google() -> FakeGoogle:
    google = FakeGoogle()
    google.on(f"GET {JOB}", {"template": {"template": {"containers": [{"image": IMAGE}]}}})
    google.on(f"POST {JOB}:run", {"name": OPERATION, "metadata": {"name": EXECUTION}})
    running = {"name": OPERATION, "metadata": {"name": EXECUTION}}
    done = running | {"done": True, "response": {"name": EXECUTION, "succeededCount": 1}}
    google.on(f"GET /v2/{OPERATION}", running, done)
    return google


def test_the_execution_is_waited_for_and_named(google: FakeGoogle) -> None:
    assert run(google.client(), PROPS) == "validibot-migrate-abc"
    assert google.asked() == [f"GET {JOB}", f"POST {JOB}:run", *[f"GET /v2/{OPERATION}"] * 2]


@pytest.mark.parametrize(
    "end",
    [
        {"error": {"code": 10, "message": "Task 0 failed with exit code 1"}},
        {"error": {"message": "Task 0 failed with exit code 1"}, "response": {"name": EXECUTION}},
    ],
)
def test_a_failed_execution_fails_with_its_last_log_lines(google: FakeGoogle, end: dict[str, Any]) -> None:
    google.on(f"GET /v2/{OPERATION}", {"name": OPERATION, "metadata": {"name": EXECUTION}, "done": True} | end)
    entries = [{"jsonPayload": {"message": "column does not exist"}}, {"textPayload": "Applying 0002"}]
    google.on("POST /v2/entries:list", {"entries": entries})

    with pytest.raises(JobFailed) as caught:
        run(google.client(), PROPS)

    assert str(caught.value) == (
        "execution validibot-migrate-abc of job validibot-migrate failed: Task 0 failed with exit code 1\n"
        "Applying 0002\ncolumn does not exist"
    )
    asked = json.loads(google.requests[-1].content)
    assert 'labels."run.googleapis.com/execution_name"="validibot-migrate-abc"' in asked["filter"]


def test_a_task_that_failed_without_an_error_of_the_operation_is_a_failure_too(google: FakeGoogle) -> None:
    response = {"name": EXECUTION, "failedCount": 1}
    google.on(f"GET /v2/{OPERATION}", {"name": OPERATION, "done": True, "response": response})

    with pytest.raises(JobFailed, match="a task failed"):
        run(google.client(), PROPS)


def test_a_job_of_another_image_is_not_run(google: FakeGoogle) -> None:
    with pytest.raises(JobFailed, match="somebody else changes it"):
        run(google.client(), PROPS | {"image": IMAGE.replace("a" * 64, "b" * 64)})

    assert google.asked() == [f"GET {JOB}"]


@pytest.mark.parametrize("key", ["image", "job", "database"])
def test_another_image_job_or_database_runs_the_job_again(key: str) -> None:
    provider = JobRunProvider()

    assert provider.diff("id", PROPS, PROPS | {"timeout_seconds": 1}).changes is False
    diff = provider.diff("id", PROPS, PROPS | {key: "another"})
    assert (diff.changes, diff.replaces, diff.delete_before_replace) == (True, [key], False)
