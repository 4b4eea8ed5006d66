"""Validations that the worker runs: accepted, enqueued, delivered once, twice, or not at all."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from app.tasking.memory import InMemoryTasks
from app.validations.models import ValidationJob
from tests.app.worker import Worker

GOOD = {"validator": "json-schema", "document": {"id": 7}, "schema": {"required": ["id"]}, "filename": "order.json"}
Commit = Callable[..., Any]


@pytest.fixture
def accept(api: Client, django_capture_on_commit_callbacks: Commit) -> Callable[..., Any]:
    """Submit to be validated later, and commit."""

    def accept(submission: dict[str, Any] = GOOD, **headers: str) -> Any:
        with django_capture_on_commit_callbacks(execute=True):
            return api.post(
                "/api/validations",
                json.dumps(submission),
                content_type="application/json",
                headers={"prefer": "respond-async"} | headers,
            )

    return accept


def test_an_accepted_submission_is_validated_by_the_worker(
    api: Client, accept: Callable[..., Any], queues: InMemoryTasks, worker: Worker
) -> None:
    answer = accept()

    assert answer.status_code == 202, answer.content
    job = ValidationJob.objects.get()
    assert answer["Location"] == f"/api/validations/{job.id}"
    assert (answer["Retry-After"], answer["Preference-Applied"]) == ("2", "respond-async")
    assert {k: answer.json()[k] for k in ("state", "verdict", "validator", "filename", "finished_at")} == {
        "state": "PENDING",
        "verdict": None,
        "validator": "json-schema",
        "filename": "order.json",
        "finished_at": None,
    }
    assert worker.run() == [204]
    seen = api.get(answer["Location"]).json()
    assert (seen["state"], seen["verdict"], seen["findings"]) == ("SUCCESS", "PASS", [])
