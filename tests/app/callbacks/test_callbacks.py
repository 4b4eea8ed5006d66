"""Callbacks over HTTP: who may call, what a repeat does, and that a refusal changes nothing."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from app.callbacks import receipts
from app.callbacks.models import CallbackReceipt
from app.callbacks.signing import Keyring, sign
from app.organizations.models import Organization
from app.outbox import Deadline
from app.simulations.models import SimulationJob
from tests.app.environment import CALLBACK_KEYS
from tests.app.tokens import Issuer

HEADERS = {"host": "au.validibot.com", "x-forwarded-proto": "https"}
KEYS = Keyring.parse(CALLBACK_KEYS)
REPORT = {"status": "SUCCESS", "output_envelope": "outputs/7/envelope.json", "output_sha256": "a" * 64}
Send = Callable[..., Any]


@pytest.fixture
def job(organization: Organization) -> SimulationJob:
    deadline = timezone.now() + timedelta(hours=1)
    return SimulationJob.objects.create(organization=organization, kind="FMI", deadline_at=deadline)


def path_of(job_id: UUID) -> str:
    return f"/callbacks/simulation/{job_id}"


def signed(path: str, body: bytes, *, seconds_ago: int = 0, key_id: str = "") -> dict[str, str]:
    now = timezone.now() - timedelta(seconds=seconds_ago)
    return sign(KEYS, "POST", path, body, now, key_id=key_id).headers()


def send(path: str, body: bytes, headers: dict[str, str]) -> Any:
    return Client(headers=HEADERS | headers).post(path, body, content_type="application/json")


def unchanged(job: SimulationJob) -> bool:
    job.refresh_from_db()
    return (job.state, job.output_envelope) == ("PENDING", "") and not CallbackReceipt.objects.exists()


@pytest.mark.parametrize("key_id", ["k1", "k0"])
def test_a_signed_callback_ends_its_job(job: SimulationJob, key_id: str) -> None:
    path, body = path_of(job.id), json.dumps(REPORT).encode()

    answer = send(path, body, signed(path, body, key_id=key_id))

    job.refresh_from_db()
    assert (answer.status_code, answer.json()["state"]) == (200, "SUCCESS")
    assert (job.state, job.output_envelope, job.output_sha256) == ("SUCCESS", "outputs/7/envelope.json", "a" * 64)


def test_the_same_report_again_has_the_same_answer_and_no_effect(job: SimulationJob) -> None:
    path, body = path_of(job.id), json.dumps(REPORT).encode()

    answers = [send(path, body, signed(path, body)).json() for _ in range(3)]

    assert answers == [answers[0]] * 3
    ended = SimulationJob.objects.get().finished_at
    send(path, body, signed(path, body))
    assert SimulationJob.objects.get().finished_at == ended


def test_another_report_about_an_ended_job_is_refused(job: SimulationJob) -> None:
    path, body = path_of(job.id), json.dumps(REPORT).encode()
    send(path, body, signed(path, body))
    other = json.dumps({"status": "FAILED", "code": "late"}).encode()

    answer = send(path, other, signed(path, other))

    job.refresh_from_db()
    assert (answer.status_code, job.state, job.problem) == (409, "SUCCESS", None)


def test_a_replayed_request_is_refused_and_logged_once(job: SimulationJob, capsys: pytest.CaptureFixture[str]) -> None:
    path, body = path_of(job.id), json.dumps(REPORT).encode()
    headers = signed(path, body)
    send(path, body, headers)
    capsys.readouterr()

    answer = send(path, body, headers)

    assert answer.status_code == 401
    assert answer.json()["detail"] == "the callback is not accepted"
    assert CallbackReceipt.objects.count() == 1


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (lambda path, body: (body + b" ", signed(path, body)), "the signature is not"),
        (lambda path, body: (body, signed(path, body, seconds_ago=301)), "the timestamp is"),
        (lambda path, body: (body, signed(path, body) | {"Validibot-Key-Id": "k9"}), "the key 'k9' is unknown"),
        (lambda path, body: (body, signed(path[:-1] + "0", body)), "the signature is not"),
        (lambda path, body: (body, {}), "the key '' is unknown"),
        (lambda path, body: (body, {"authorization": "Bearer eyJhbGciOiJub25lIn0.e30."}), "RS256"),
        (lambda path, body: (body, {"authorization": "Bearer x"}), "the token is not acceptable"),
    ],
)
def test_what_is_not_authentic_is_refused_with_one_line_and_changes_nothing(
    job: SimulationJob,
    caplog: pytest.LogCaptureFixture,
    alter: Callable[[str, bytes], tuple[bytes, dict[str, str]]],
    reason: str,
) -> None:
    path = path_of(job.id)
    body, headers = alter(path, json.dumps(REPORT).encode())

    answer = send(path, body, headers)

    assert (answer.status_code, unchanged(job)) == (401, True)
    (line,) = [record for record in caplog.records if record.name.startswith("app")]
    logged: Any = line.msg
    assert reason in logged["refused"]


def test_a_body_is_not_parsed_before_its_sender_is_known(job: SimulationJob) -> None:
    path = path_of(job.id)

    assert send(path, b"{not json", {}).status_code == 401
    assert send(path, b"{not json", signed(path, b"{not json")).status_code == 422
    assert unchanged(job)


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"status": "DONE"},
        REPORT | {"extra": 1},
        REPORT | {"output_sha256": "x"},
        REPORT | {"is_retryable": "yes"},
        REPORT | {"output_envelope": "outputs/\x00"},
        {"status": "FAILED", "detail": "\x00"},
        {"status": "FAILED", "code": "\ud800"},
        [],
    ],
)
def test_a_report_of_another_shape_is_refused_and_may_be_sent_again(job: SimulationJob, report: Any) -> None:
    path, body = path_of(job.id), json.dumps(report).encode()
    headers = signed(path, body)

    assert [send(path, body, headers).status_code for _ in range(2)] == [422, 422]
    assert unchanged(job)


def test_a_callback_about_nothing_is_answered_404(job: SimulationJob) -> None:
    body = json.dumps(REPORT).encode()

    for path in (path_of(uuid4()), f"/callbacks/other/{job.id}"):
        assert send(path, body, signed(path, body)).status_code == 404
    assert unchanged(job)


def test_a_body_over_the_limit_is_refused(job: SimulationJob) -> None:
    path, body = path_of(job.id), b" " * (64 * 1024 + 1)

    assert send(path, body, signed(path, body)).status_code == 413


def test_receipts_are_kept_for_thirty_days(job: SimulationJob) -> None:
    path, body = path_of(job.id), json.dumps(REPORT).encode()
    send(path, body, signed(path, body))
    receipt = CallbackReceipt.objects.get()

    counts = []
    for age in (timedelta(days=29, hours=23), timedelta(days=30, seconds=1)):
        CallbackReceipt.objects.filter(pk=receipt.pk).update(received_at=timezone.now() - age)
        counts.append(receipts.purge(Deadline.after(10)))

    assert counts == [{"receipts": 0}, {"receipts": 1}]


WEB = "https://au.validibot.com"
JOBS = "energyplus@validibot-test.iam.gserviceaccount.com"


def test_a_jobs_service_account_calls_back_with_a_token(job: SimulationJob, issuer: Issuer) -> None:
    path, body = path_of(job.id), json.dumps(REPORT).encode()
    headers = {"authorization": f"Bearer {issuer.token(JOBS, aud=WEB)}"}

    answers = [send(path, body, headers) for _ in range(2)]

    job.refresh_from_db()
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    assert job.state == "SUCCESS"
    assert set(CallbackReceipt.objects.values_list("signed_by", flat=True)) == {JOBS}


@pytest.mark.parametrize(
    "claims",
    [
        {"email": "validibot-tasks@validibot-test.iam.gserviceaccount.com"},
        {"aud": "https://us.validibot.com"},
        {"exp": 1},
        {"email_verified": False},
        {"iss": "https://accounts.example"},
    ],
)
def test_any_other_token_is_refused(job: SimulationJob, issuer: Issuer, claims: dict[str, Any]) -> None:
    path, body = path_of(job.id), json.dumps(REPORT).encode()
    token = issuer.token(**({"email": JOBS, "aud": WEB} | claims))

    answer = send(path, body, {"authorization": f"Bearer {token}"})

    assert (answer.status_code, unchanged(job)) == (401, True)


def test_a_token_does_not_stand_in_for_a_bad_signature(job: SimulationJob, issuer: Issuer) -> None:
    path, body = path_of(job.id), json.dumps(REPORT).encode()
    headers = signed(path, b"other") | {"authorization": f"Bearer {issuer.token(JOBS, aud=WEB)}"}

    assert send(path, body, headers).status_code == 401
    assert unchanged(job)


def test_two_callbacks_at_once_have_one_effect_and_one_answer(transactional_db: None) -> None:
    organization = Organization.objects.create(slug="demo", name="Demo", data_region="AU")
    deadline = timezone.now() + timedelta(hours=1)
    job = SimulationJob.objects.create(organization=organization, kind="FMI", deadline_at=deadline)
    path, body = path_of(job.id), json.dumps(REPORT).encode()
    headers = [signed(path, body)] * 4 + [signed(path, body) for _ in range(4)]

    def call(headers: dict[str, str]) -> int:
        try:
            return int(send(path, body, headers).status_code)
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as threads:
        statuses = sorted(threads.map(call, headers))

    assert statuses == [200] * 5 + [401] * 3  # the four with one nonce are one callback and three replays
    assert CallbackReceipt.objects.count() == 5
    job.refresh_from_db()
    assert job.state == "SUCCESS"


def test_a_callback_that_meets_a_failing_database_is_to_be_sent_again(transactional_db: None) -> None:
    organization = Organization.objects.create(slug="demo", name="Demo", data_region="AU")
    deadline = timezone.now() + timedelta(hours=1)
    job = SimulationJob.objects.create(organization=organization, kind="FMI", deadline_at=deadline)
    path, body = path_of(job.id), json.dumps(REPORT).encode()
    headers = signed(path, body)

    def call() -> Any:
        try:
            with transaction.atomic():
                connection.cursor().execute("SET LOCAL lock_timeout = '100ms'")
                answer = send(path, body, headers)
                transaction.set_rollback(True)
                return answer
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as other, transaction.atomic():
        SimulationJob.objects.select_for_update().get(id=job.id)
        answer = other.submit(call).result(timeout=30)

    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert send(path, body, headers).status_code == 200  # the nonce was not used up
