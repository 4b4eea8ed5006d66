"""`/api/validations`, done later: accepted, watched, cancelled, sent twice."""

import json
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.storage import default_storage
from django.db import connection
from django.db.models.signals import post_save
from django.test import Client
from django.utils import timezone

from app.idempotency.models import IdempotencyKey
from app.leases import LeaseLost
from app.organizations.models import ApiKey, ApiKeyText, Organization
from app.regions import DataRegion
from app.settings import env
from app.tasking.memory import InMemoryTasks
from app.validations import results
from app.validations.models import State, ValidationJob
from app.validations.sandbox import pool
from tests.app.queueing.conftest import GOOD
from tests.app.worker import Worker

Accept = Callable[..., Any]
BAD_RULE = {"validator": "cel", "document": 1, "rules": [{"expression": "this is no CEL"}]}


def test_an_accepted_submission_is_validated_by_the_worker(api: Client, accept: Accept, worker: Worker) -> None:
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


@pytest.mark.parametrize(
    ("size", "query", "status"),
    [
        (env.sync_max_bytes - 1000, "", 201),
        (env.sync_max_bytes + 1, "", 202),
        (env.sync_max_bytes + 1, "?mode=sync", 201),
        (10, "?mode=async", 202),
        (10, "?mode=sometimes", 422),
    ],
)
def test_the_size_decides_unless_the_client_asks(submit_to: Any, size: int, query: str, status: int) -> None:
    submission = {"validator": "json-schema", "document": {"text": "x" * size}, "schema": True}

    assert submit_to(query, submission).status_code == status


@pytest.fixture
def submit_to(api: Client) -> Callable[[str, Any], Any]:
    return lambda query, body: api.post(f"/api/validations{query}", body, content_type="application/json")


@pytest.mark.parametrize(
    ("prefer", "status"),
    [("wait=5, Respond-Async; x=1", 202), ("no-respond-async", 201), ("wait=5", 201)],
)
def test_a_preference_is_a_whole_word(accept: Accept, prefer: str, status: int) -> None:
    assert accept(prefer=prefer).status_code == status


def test_what_can_be_told_at_once_is_refused_at_once(accept: Accept, queues: InMemoryTasks) -> None:
    answer = accept({"validator": "no-such", "document": 1})

    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "validator")
    assert (ValidationJob.objects.count(), queues.tasks) == (0, [])


def test_what_is_found_out_later_fails_the_job_and_says_why(api: Client, accept: Accept, worker: Worker) -> None:
    answer = accept(BAD_RULE)
    assert answer.status_code == 202

    assert worker.run() == [204]

    seen = api.get(answer["Location"]).json()
    assert (seen["state"], seen["verdict"], seen["problem"]["code"]) == ("FAILED", None, "bad-rule")
    assert seen["problem"]["remedy"]


def test_a_poll_is_answered_304_until_something_has_changed(api: Client, accept: Accept, worker: Worker) -> None:
    url = accept()["Location"]

    first = api.get(url)
    assert (first.status_code, first["Retry-After"]) == (200, "2")
    again = api.get(url, headers={"if-none-match": f'"other", W/{first["ETag"]}'})
    assert (again.status_code, again.content, again["ETag"]) == (304, b"", first["ETag"])
    assert api.get(url, headers={"if-none-match": "*"}).status_code == 304
    worker.run()
    last = api.get(url, headers={"if-none-match": first["ETag"]})

    assert (last.status_code, last.json()["state"]) == (200, "SUCCESS")
    assert "Retry-After" not in last
    assert last["ETag"] != first["ETag"]


def test_a_cancelled_job_is_never_run(api: Client, accept: Accept, worker: Worker) -> None:
    url = accept()["Location"]

    answers = [api.post(f"{url}/cancel"), api.post(f"{url}/cancel")]

    assert [(a.status_code, a.json()["state"]) for a in answers] == [(200, "CANCELLED")] * 2
    assert worker.run() == [204]
    job = ValidationJob.objects.get()
    assert (job.state, job.attempts, job.verdict, job.sweep_at) == (State.CANCELLED, 0, "", None)


def test_a_job_that_is_cancelled_while_it_runs_keeps_nothing_of_its_result(
    api: Client, accept: Accept, queues: InMemoryTasks, worker: Worker
) -> None:
    url = accept()["Location"]
    with ValidationJob.objects.leased(ValidationJob.objects.get().pk, timedelta(minutes=1)) as running:
        outcome = pool().run(json.dumps(GOOD).encode(), "application/json")
        assert api.post(f"{url}/cancel").status_code == 200

        with pytest.raises(LeaseLost):
            results.succeed(running, outcome)

    assert worker.run() == [204]
    seen = api.get(url).json()
    assert (seen["state"], seen["verdict"], seen["findings"]) == ("CANCELLED", None, [])


def test_a_finished_job_cannot_be_cancelled(api: Client, accept: Accept, worker: Worker) -> None:
    url = accept()["Location"]
    worker.run()

    answer = api.post(f"{url}/cancel")

    assert (answer.status_code, answer.json()["type"]) == (409, "https://validibot.com/problems/already-finished")
    assert api.get(url).json()["state"] == "SUCCESS"


def test_another_organisations_job_cannot_be_cancelled(accept: Accept, db: None) -> None:
    url = accept()["Location"]
    text = ApiKeyText.generate(DataRegion.AU)
    other = Organization.objects.create(slug="other", name="Other", data_region="AU")
    ApiKey.objects.create(organization=other, sha256=text.sha256)
    client = Client(headers={"host": "au.validibot.com", "authorization": f"Bearer {text.text}"})

    assert client.post(f"{url}/cancel").status_code == 404
    assert ValidationJob.objects.get().state == State.PENDING


def test_the_list_is_filtered(api: Client, accept: Accept, submit: Any, worker: Worker) -> None:
    passed = accept().json()["id"]
    worker.run()
    failed = accept(BAD_RULE).json()["id"]
    worker.run()
    split = timezone.now()
    wrong = submit(validator="json-schema", document=1, schema={"type": "string"}).json()["id"]
    waiting = accept().json()["id"]

    def ids(query: str) -> list[str]:
        answer = api.get(f"/api/validations?{query}")
        assert answer.status_code == 200, answer.content
        return [item["id"] for item in answer.json()["items"]]

    moment = split.isoformat().replace("+00:00", "Z")
    assert ids("") == [waiting, wrong, failed, passed]
    assert ids("state=PENDING") == [waiting]
    assert ids("state=FAILED") == [failed]
    assert ids("verdict=FAIL") == [wrong]
    assert ids("validator=cel") == [failed]
    assert ids(f"created_before={moment}") == [failed, passed]
    assert ids(f"created_from={moment}&validator=json-schema&state=SUCCESS") == [wrong]
    assert api.get("/api/validations?created_from=2026-01-01T00:00:00").status_code == 422


@pytest.mark.parametrize("kind", ["respond-async", "wait"])
def test_a_request_with_a_key_that_is_sent_again_makes_one_job(
    accept: Accept, queues: InMemoryTasks, kind: str
) -> None:
    answers = [accept(prefer=kind, idempotency_key="order 7") for _ in range(2)]

    assert answers[0].status_code == answers[1].status_code == (202 if kind == "respond-async" else 201)
    assert answers[0].json() == answers[1].json()
    assert answers[0]["Location"] == answers[1]["Location"]
    assert [a.get("Idempotency-Replayed") for a in answers] == [None, "true"]
    assert ValidationJob.objects.count() == 1
    assert len(queues.tasks) == (1 if kind == "respond-async" else 0)


def test_a_key_is_not_for_another_request(accept: Accept) -> None:
    accept(idempotency_key="order 7")

    answer = accept(GOOD | {"filename": "other.json"}, idempotency_key="order 7")

    assert (answer.status_code, answer.json()["type"]) == (422, "https://validibot.com/problems/idempotency-key-reused")
    assert ValidationJob.objects.count() == 1


def test_a_form_that_is_sent_again_may_have_another_boundary(api: Client) -> None:
    """Most HTTP libraries draw a new one for each attempt."""
    form = '--{0}\r\nContent-Disposition: form-data; name="{1}"\r\n\r\n{2}\r\n'
    fields = {"validator": "json-schema", "schema": "{}", "document": "[1]"}

    def send(boundary: str, **changed: str) -> Any:
        parts = [form.format(boundary, name, text) for name, text in (fields | changed).items()]
        body = "".join(parts) + f"--{boundary}--\r\n"
        content_type = f"multipart/form-data; boundary={boundary}"
        return api.post("/api/validations", body, content_type, headers={"idempotency-key": "form"})

    first, again, other = send("one"), send("another"), send("one", document="[2]")

    assert (first.status_code, again.status_code, other.status_code) == (201, 201, 422)
    assert (again.json(), again["Idempotency-Replayed"]) == (first.json(), "true")


def test_a_refused_request_leaves_its_key_free(accept: Accept) -> None:
    assert accept({"validator": "cel"} | {"document": 1, "schema": 1}, idempotency_key="k").status_code == 422

    assert accept(idempotency_key="k").status_code == 202


def test_a_key_whose_request_died_is_free_after_a_while(accept: Accept) -> None:
    accept(idempotency_key="k")
    ValidationJob.objects.all().delete()
    IdempotencyKey.objects.update(status=None, held_until=timezone.now() + timedelta(seconds=5))
    held = accept(idempotency_key="k")
    IdempotencyKey.objects.update(held_until=timezone.now() - timedelta(seconds=1))

    assert (held.status_code, held["Retry-After"]) == (409, "2")
    assert accept(idempotency_key="k").status_code == 202
    assert ValidationJob.objects.count() == 1


def test_a_request_that_took_so_long_that_another_has_its_key_makes_nothing(
    accept: Accept, queues: InMemoryTasks
) -> None:
    def take_over(**_: Any) -> None:
        IdempotencyKey.objects.update(token=uuid.uuid4())

    post_save.connect(take_over, sender=ValidationJob)
    try:
        answer = accept(idempotency_key="k")
    finally:
        post_save.disconnect(take_over, sender=ValidationJob)

    assert (answer.status_code, answer["Retry-After"]) == (409, "1")
    assert (ValidationJob.objects.count(), queues.tasks) == (0, [])


def test_a_key_of_yesterday_is_free(accept: Accept, worker: Worker) -> None:
    accept(idempotency_key="k")
    IdempotencyKey.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    assert accept(GOOD | {"filename": "x"}, idempotency_key="k").status_code == 202
    assert ValidationJob.objects.count() == 2


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there"])
def test_a_key_that_is_none_is_refused(accept: Accept, key: str) -> None:
    assert accept(idempotency_key=key).status_code == 422


@pytest.mark.django_db(transaction=True)
def test_requests_with_one_key_at_once_make_one_job(queues: InMemoryTasks) -> None:
    text = ApiKeyText.generate(DataRegion.AU)
    organization = Organization.objects.create(slug="demo", name="Demo", data_region="AU")
    ApiKey.objects.create(organization=organization, sha256=text.sha256)
    start = threading.Barrier(4)
    answers: list[int] = []

    def send() -> None:
        client = Client(headers={"host": "au.validibot.com", "authorization": f"Bearer {text.text}"})
        start.wait(timeout=10)
        answer: Any = client.post(
            "/api/validations?mode=async",
            json.dumps(GOOD),
            content_type="application/json",
            headers={"idempotency-key": "k"},
        )
        answers.append(answer.status_code)
        connection.close()

    senders = [threading.Thread(target=send) for _ in range(4)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(timeout=30)

    assert len(answers) == 4
    assert 202 in answers
    assert set(answers) <= {202, 409}
    assert (ValidationJob.objects.count(), len(queues.tasks)) == (1, 1)


def test_a_submission_is_stored_before_the_row_that_names_it(accept: Accept) -> None:
    accept()

    with default_storage.open(ValidationJob.objects.get().media_name) as stored:
        assert json.load(stored) == GOOD


def test_a_failed_job_that_was_given_up_twice_ends_once(accept: Accept) -> None:
    accept()
    job = ValidationJob.objects.get()

    results.give_up(str(job.pk), "x")
    first = ValidationJob.objects.values().get()
    results.give_up(str(job.pk), "y")

    assert ValidationJob.objects.values().get() == first
