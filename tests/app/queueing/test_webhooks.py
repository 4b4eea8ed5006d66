"""Webhooks: told once, signed, tried again, and never sent into our own network."""

import base64
import hashlib
import hmac
import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from app.queues import WEBHOOKS
from app.tasking.memory import InMemoryTasks
from app.validations import results
from app.validations.models import ValidationJob
from app.webhooks import sending
from app.webhooks.models import DeliveryState, WebhookDelivery, WebhookEndpoint
from tests.app.worker import Worker
from tests.localgcp.targets import Target, serving, trickling

Accept = Callable[..., Any]


@pytest.fixture
def sink() -> Iterator[Target]:
    with serving() as target:
        yield target


@pytest.fixture
def endpoint(sink: Target, api_key: Any) -> WebhookEndpoint:
    call_command("create_webhook_endpoint", "--organization=demo", f"--url={sink.url}?for=us", "--internal")
    return WebhookEndpoint.objects.get()


def last(queues: InMemoryTasks, worker: Worker) -> Any:
    """The last attempt of the webhook that is enqueued."""
    [task] = queues.take()
    return worker.deliver(task, attempt=WEBHOOKS.max_attempts)


def test_the_end_of_a_job_is_told_with_a_signature(
    accept: Accept, worker: Worker, endpoint: WebhookEndpoint, sink: Target
) -> None:
    accept()

    worker.run()

    [message] = sink.deliveries
    job = ValidationJob.objects.get()
    told = json.loads(message.body)
    assert (message.method, message.path, told["type"]) == ("POST", "/hook?for=us", "validation.finished")
    assert told["data"] == {
        "id": str(job.id),
        "url": f"https://au.validibot.com/api/validations/{job.id}",
        "validator": "json-schema",
        "state": "SUCCESS",
        "verdict": "PASS",
        "errors": 0,
        "warnings": 0,
        "infos": 0,
        "finished_at": job.finished_at.isoformat() if job.finished_at else None,
    }
    headers = {name.lower(): text for name, text in message.headers.items()}
    assert headers["webhook-id"] == f"msg_{job.id}-0"
    assert abs(int(headers["webhook-timestamp"]) - timezone.now().timestamp()) < 60
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + message.body
    key = base64.b64decode(endpoint.secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


def test_a_synchronous_validation_is_told_too(
    submit: Any, worker: Worker, endpoint: WebhookEndpoint, sink: Target, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        submit(validator="json-schema", document=1, schema={"type": "string"})

    worker.run()

    assert [json.loads(m.body)["data"]["verdict"] for m in sink.deliveries] == ["FAIL"]


def test_one_end_is_one_message_however_often_it_is_delivered(
    accept: Accept, worker: Worker, queues: InMemoryTasks, endpoint: WebhookEndpoint, sink: Target
) -> None:
    accept()
    [job_task] = queues.take()
    worker.deliver(job_task)
    worker.deliver(job_task)
    [message_task] = queues.take()
    answers = [worker.deliver(message_task).status_code for _ in range(3)]
    results.announce_end(ValidationJob.objects.get())

    assert answers == [204, 204, 204]
    assert len(sink.deliveries) == WebhookDelivery.objects.count() == 1
    assert worker.run() == []


def test_a_message_that_is_refused_is_sent_again_under_its_id(
    accept: Accept, worker: Worker, queues: InMemoryTasks, endpoint: WebhookEndpoint, sink: Target
) -> None:
    accept()
    worker.deliver(queues.take()[0])
    sink.answers(500, 302, 204)
    [task] = queues.take()

    answers = [worker.deliver(task, attempt=n).status_code for n in (1, 2, 3)]

    assert answers == [503, 503, 204]
    assert len({m.headers["webhook-id"] for m in sink.deliveries}) == 1
    row = WebhookDelivery.objects.get()
    assert (row.state, row.attempts, row.last_status, row.last_error) == ("DELIVERED", 3, 204, "")


def test_a_receiver_that_fails_to_the_last_is_no_dead_letter_and_can_be_told_again(
    api: Client, accept: Accept, worker: Worker, queues: InMemoryTasks, endpoint: WebhookEndpoint, sink: Target,
    django_capture_on_commit_callbacks: Any,
) -> None:  # fmt: skip
    accept()
    worker.deliver(queues.take()[0])
    sink.answers(500)
    assert last(queues, worker).status_code == 204
    url = f"/api/webhooks/{endpoint.id}/deliveries"
    [failed] = api.get(f"{url}?state=FAILED").json()["items"]
    assert (failed["state"], failed["last_error"]) == ("FAILED", "the endpoint answered 500")
    assert queues.tasks == []  # nothing is parked

    sink.answers(200)
    with django_capture_on_commit_callbacks(execute=True):
        again = api.post(f"{url}/{failed['id']}/redeliver")
    assert (again.status_code, again.json()["state"]) == (202, "PENDING")
    assert worker.run() == [204]

    assert api.get(url).json()["items"][0]["state"] == "DELIVERED"
    assert api.post(f"{url}/{failed['id']}/redeliver").status_code == 409


def test_a_receiver_that_is_gone_is_switched_off(
    accept: Accept, worker: Worker, queues: InMemoryTasks, endpoint: WebhookEndpoint, sink: Target
) -> None:
    sink.answers(410)
    accept()
    worker.run()
    accept()
    worker.run()

    endpoint.refresh_from_db()
    assert (endpoint.is_active, len(sink.deliveries)) == (False, 1)
    assert WebhookDelivery.objects.get().state == DeliveryState.FAILED


def test_while_a_secret_is_replaced_both_sign(
    api: Client, accept: Accept, worker: Worker, endpoint: WebhookEndpoint, sink: Target
) -> None:
    old = endpoint.secret
    new = api.post(f"/api/webhooks/{endpoint.id}/rotate-secret").json()["secret"]
    accept()
    worker.run()

    endpoint.refresh_from_db()
    assert (endpoint.secrets, old != new) == ([new, old], True)
    assert len(sink.deliveries[0].headers["webhook-signature"].split(" ")) == 2
    WebhookEndpoint.objects.update(previous_secret_until=timezone.now())
    assert WebhookEndpoint.objects.get().secrets == [new]


def test_a_secret_that_replaces_another_at_the_same_moment_stays_valid(
    transactional_db: None, api: Client, endpoint: WebhookEndpoint
) -> None:
    def rotate() -> str:
        try:
            return str(api.post(f"/api/webhooks/{endpoint.id}/rotate-secret").json()["secret"])
        finally:
            connection.close()

    def is_awaited() -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
            return bool(cursor.fetchone()[0])

    with ThreadPoolExecutor(1) as thread:
        with transaction.atomic():
            WebhookEndpoint.objects.update(secret="whsec_of_the_first")
            second = thread.submit(rotate)
            assert next(found for found in (is_awaited() for _ in range(100_000)) if found)

    endpoint.refresh_from_db()
    assert endpoint.secrets == [second.result(), "whsec_of_the_first"]


def test_the_api_makes_lists_and_deletes_endpoints(api: Client) -> None:
    made = api.post(
        "/api/webhooks", {"url": "https://hooks.example.com/x", "events": ["validation.finished"]}, "application/json"
    )

    assert made.status_code == 201, made.content
    assert made.json()["secret"].startswith("whsec_")
    [listed] = api.get("/api/webhooks").json()["items"]
    assert listed == {name: text for name, text in made.json().items() if name != "secret"}
    assert api.delete(f"/api/webhooks/{listed['id']}").status_code == 204
    assert api.get(f"/api/webhooks/{listed['id']}").status_code == 404


def test_an_endpoint_that_is_sent_again_is_made_once(api: Client) -> None:
    def create(body: dict[str, Any]) -> Any:
        return api.post("/api/webhooks", body, "application/json", headers={"idempotency-key": "k"})

    refused = create({"url": "http://hooks.example.com/x"})
    first, second = (create({"url": "https://hooks.example.com/x"}) for _ in range(2))
    other = create({"url": "https://hooks.example.com/y"})

    assert [answer.status_code for answer in (refused, first, second, other)] == [422, 201, 201, 422]
    assert second.json() == first.json()
    assert second.headers["location"] == f"/api/webhooks/{first.json()['id']}"
    assert ("idempotency-replayed" in first.headers, second.headers["idempotency-replayed"]) == (False, "true")
    assert other.json()["type"].endswith("/idempotency-key-reused")
    assert WebhookEndpoint.objects.count() == 1
    api.delete(f"/api/webhooks/{first.json()['id']}")
    assert create({"url": "https://hooks.example.com/x"}).status_code == 404


def test_an_organisation_has_ten_endpoints_at_most(api: Client) -> None:
    answers = [
        api.post("/api/webhooks", {"url": f"https://hooks.example.com/{n}"}, "application/json").status_code
        for n in range(11)
    ]

    assert answers == [201] * 10 + [409]


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://169.254.169.254/computeMetadata/v1/",
        "https://10.0.0.1/",
        "https://[::ffff:10.0.0.1]/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f.0.0.1/",
        "https://127.0.0.1./",
        "https://localhost/",
        "https://a.localhost./",
        "https://metadata.google.internal/",
        "https://metadata/",
        "https://a..example.com/",
        "https://user:pass@hooks.example.com/",
        "https://hooks.example.com:22/",
        "https://hooks.example.com/ x",
        "https:///nowhere",
        "ftp://hooks.example.com/",
    ],
)
def test_an_address_that_is_not_on_the_internet_is_refused(api: Client, url: str) -> None:
    answer = api.post("/api/webhooks", {"url": url}, "application/json")

    assert (answer.status_code, answer.json()["type"]) == (422, "https://validibot.com/problems/webhook-url")


@pytest.mark.parametrize(
    ("body", "content_type", "status", "problem"),
    [
        (b'{"url": "https://hooks.example.com/", "description": "\\u0000"}', "application/json", 422, "bad-encoding"),
        (b'{"url": "https://hooks.example.com/", "description": "\\ud800"}', "application/json", 422, "bad-encoding"),
        (b'{"url": "https://hooks.example.com/", "url": "x"}', "application/json", 422, "duplicate-name"),
        (b'{"url": "https://hooks.example.com/", "secret": "x"}', "application/json", 422, "invalid-request"),
        (b'{"url": "https://hooks.example.com/", "events": ["x"]}', "application/json", 422, "invalid-request"),
        (b'{"url": ', "application/json", 400, "malformed-request"),
        (b'{"description": "' + b"x" * 1024 * 1024 + b'"}', "application/json", 413, "too-large"),
        (b"url=https://hooks.example.com/", "application/x-www-form-urlencoded", 415, "unsupported-media-type"),
    ],
)
def test_an_endpoint_that_cannot_be_read_is_a_problem(
    api: Client, body: bytes, content_type: str, status: int, problem: str
) -> None:
    answer = api.post("/api/webhooks", body, content_type)

    assert (answer.status_code, answer.json()["type"]) == (status, f"https://validibot.com/problems/{problem}")
    assert not WebhookEndpoint.objects.exists()


def test_a_name_that_leads_into_a_private_network_is_not_called(
    accept: Accept, worker: Worker, api_key: Any, sink: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = sink.url.rpartition(":")[2].partition("/")[0]
    resolve = socket.getaddrinfo

    def in_the_private_network(host: Any, *arguments: Any, **named: Any) -> Any:
        return resolve("127.0.0.1" if host == "hooks.example.com" else host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", in_the_private_network)
    WebhookEndpoint.objects.create(organization=api_key.organization, url="https://hooks.example.com:8443/x")
    accept()
    worker.run()

    told = WebhookDelivery.objects.get().last_error
    assert told == "hooks.example.com leads to an address that is not on the internet"
    assert sink.deliveries == []
    with pytest.raises(CommandError, match="https://"):
        call_command("create_webhook_endpoint", "--organization=demo", f"--url=http://localhost:{port}/")


def test_another_organisations_endpoint_does_not_exist(api: Client, endpoint: WebhookEndpoint) -> None:
    from app.organizations.models import ApiKey, ApiKeyText, Organization
    from app.regions import DataRegion

    text = ApiKeyText.generate(DataRegion.AU)
    other = Organization.objects.create(slug="other", name="Other", data_region="AU")
    ApiKey.objects.create(organization=other, sha256=text.sha256)
    client = Client(headers={"host": "au.validibot.com", "authorization": f"Bearer {text.text}"})

    assert client.get("/api/webhooks").json() == {"items": []}
    assert client.post(f"/api/webhooks/{endpoint.id}/rotate-secret").status_code == 404
    assert client.delete(f"/api/webhooks/{endpoint.id}").status_code == 404


@pytest.mark.timeout(30)
@pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 200 OK\r\nX-Long: "])
def test_a_receiver_that_never_comes_to_an_end_does_not_hold_the_worker(beginning: bytes) -> None:
    with trickling(beginning) as url, pytest.raises(sending.Unreachable, match="no answer from"):
        sending.post(url, b"{}", {}, is_internal=True, read_seconds=0.3)
