"""The worker as it is deployed: who may call it, over real HTTP, with real signatures."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.app import server
from tests.app.environment import environment
from tests.app.postgres import Postgres
from tests.app.tokens import SCHEDULER, TASKS, WORKER_URL, Issuer

TASK = "/internal/run-validation/01a208d1-a718-73a3-ac62-8e41cec07ead"
SCHEDULE = "/internal/scheduled/re-enqueue-pending"
STRANGER = "somebody@example.com"
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(frozen=True)
class Deployed:
    server: server.Server
    postgres: Postgres

    def post(self, path: str, token: str | None) -> httpx.Response:
        headers = {"host": WORKER_URL.removeprefix("https://")}
        if token is not None:
            headers["authorization"] = token
        with httpx.Client(base_url=self.server.url, headers=headers, timeout=30) as client:
            return client.post(path, json={})

    def lines(self, path: str) -> list[dict[str, object]]:
        """What was logged about requests of the path."""
        return [entry for entry in self.server.entries() if entry["message"].startswith(f"POST {path} ")]

    def rows(self) -> list[tuple[object, ...]]:
        with self.postgres.connect("validibot") as connection:
            return connection.execute(
                "SELECT state, attempts, lease_token FROM validations_validationjob "
                "UNION ALL SELECT queue, attempts, null FROM dead_letters_deadletter"
            ).fetchall()


@pytest.fixture(scope="module")
def deployed(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    postgres = Postgres.reserve()
    try:
        postgres.create()
        with postgres.connect() as admin:
            admin.execute("CREATE DATABASE validibot")
        base = environment(postgres.directory, tmp_path_factory.mktemp("media"))
        worker = base | {"VALIDIBOT_ROLE": "worker", "GOOGLE_OAUTH2_CUSTOM_ENDPOINT": issuer.url}
        finished = server.manage(base | {"VALIDIBOT_ROLE": "job"}, "migrate")
        assert finished.returncode == 0, finished.stdout + finished.stderr
        with postgres.connect("validibot") as rows:
            _insert_job(rows)
        with server.running(worker, tmp_path_factory.mktemp("worker") / "log") as running:
            yield Deployed(running, postgres)
    finally:
        postgres.destroy()


def _insert_job(rows: "psycopg.Connection[tuple[object, ...]]") -> None:
    rows.execute(
        "INSERT INTO organizations_organization (slug, name, data_region, created_at) VALUES ('d', 'D', 'AU', now())"
    )
    rows.execute(
        "INSERT INTO validations_validationjob (id, organization_id, validator, state, verdict, filename, media_name, "
        "content_type, content_bytes, content_sha256, errors, warnings, infos, findings_truncated, attempts, "
        "generation, sweeps, created_at, sweep_at) SELECT %s, id, 'cel', 'PENDING', '', '', 'x', '', 1, '', 0, 0, 0, "
        "false, 0, 0, 0, now(), now() + interval '1 hour' FROM organizations_organization",
        [TASK.rpartition("/")[2]],
    )


@pytest.mark.parametrize(
    ("authorization", "path", "status", "reason"),
    [
        (lambda i: None, TASK, 401, "the request has no token"),
        (lambda i: None, "/internal/run-validation/by-hand", 401, "the request has no token"),
        (lambda i: "Bearer", TASK, 401, "the request has no token"),
        (lambda i: f"Basic {i.token()}", TASK, 401, "the request has no token"),
        (lambda i: "Bearer not-a-token", TASK, 401, "the token is not acceptable: DecodeError"),
        (lambda i: f"Bearer {i.token(aud='https://another.run.app')}", TASK, 401, "the token is for another audience"),
        (lambda i: f"Bearer {i.token(aud=WORKER_URL + '/')}", TASK, 401, "the token is for another audience"),
        (lambda i: f"Bearer {i.token(aud=[WORKER_URL])}", TASK, 401, "the token is for another audience"),
        (lambda i: f"Bearer {i.token(SCHEDULER)}", TASK, 403, f"{SCHEDULER} is not a caller of this endpoint"),
        (lambda i: f"Bearer {i.token(TASKS)}", SCHEDULE, 403, f"{TASKS} is not a caller of this endpoint"),
        (lambda i: f"Bearer {i.token(STRANGER)}", TASK, 403, f"{STRANGER} is not a caller of this endpoint"),
        (lambda i: f"Bearer {i.token(exp=int(time.time()) - 60)}", TASK, 401, "the token has expired"),
        (lambda i: f"Bearer {i.token(exp=None)}", TASK, 401, "the token is not acceptable: MissingRequiredClaimError"),
        (lambda i: f"Bearer {i.token(iat=int(time.time()) + 600)}", TASK, 401,
         "the token is not acceptable: ImmatureSignatureError"),
        (lambda i: f"Bearer {i.unsigned()}", TASK, 401, "the token is not signed with RS256"),
        (lambda i: f"Bearer {i.token(key=OTHER_KEY)}", TASK, 401, "the token's signature is not the one of its key"),
        (lambda i: f"Bearer {i.token()[:-8]}AAAAAAAA", TASK, 401, "the token's signature is not the one of its key"),
        (lambda i: f"Bearer {i.token(iss='https://issuer.example')}", TASK, 401, "the token is of another issuer"),
        (lambda i: f"Bearer {i.token(email_verified=False)}", TASK, 401, "the token has no verified email"),
        (lambda i: f"Bearer {i.token(email_verified='true')}", TASK, 401, "the token has no verified email"),
        (lambda i: f"Bearer {i.token(email=None)}", TASK, 401, "the token has no verified email"),
    ],
)  # fmt: skip
def test_a_caller_that_is_not_the_one_is_refused_with_one_line_and_nothing_changes(
    deployed: Deployed,
    issuer: Issuer,
    authorization: Callable[[Issuer], str | None],
    path: str,
    status: int,
    reason: str,
) -> None:
    rows, before, logged = deployed.rows(), len(deployed.lines(path)), len(deployed.server.entries())

    answer = deployed.post(path, authorization(issuer))

    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["detail"] == "the caller is not accepted"
    assert deployed.rows() == rows
    lines = deployed.lines(path)[before:]
    assert [(line["refused"], line["severity"]) for line in lines] == [(reason, "WARNING")]
    assert len(deployed.server.entries()) == logged + 1
    assert "eyJ" not in deployed.server.log.read_text()


def test_a_token_signed_with_a_key_that_google_does_not_publish_is_refused(deployed: Deployed, issuer: Issuer) -> None:
    forger = Issuer(key_id="forged")

    answer = deployed.post(TASK, f"Bearer {forger.token()}")

    assert answer.status_code == 401
    assert deployed.lines(TASK)[-1]["refused"] == "the token is signed with a key that is not Google's"


def test_strangers_do_not_have_the_worker_ask_for_keys_without_end(deployed: Deployed, issuer: Issuer) -> None:
    forger = Issuer(key_id="forged")
    deployed.post(TASK, f"Bearer {issuer.token(SCHEDULER)}")
    asked = len(issuer.fetches)

    for _ in range(5):
        deployed.post(TASK, f"Bearer {forger.token()}")

    assert len(issuer.fetches) - asked <= 1


def test_the_callers_that_are_named_get_in(deployed: Deployed, issuer: Issuer) -> None:
    swept = deployed.post(SCHEDULE, f"Bearer {issuer.token(SCHEDULER)}")
    ran = deployed.post(TASK, f"Bearer {issuer.token(TASKS)}")

    assert (swept.status_code, swept.json()["failed"]) == (200, [])
    assert ran.status_code == 500  # its submission does not exist; it was let in, and tried
    assert [row[:2] for row in deployed.rows()] == [("PENDING", 1)]
    assert deployed.lines(TASK)[-1]["caller"] == TASKS


@pytest.mark.parametrize(("method", "path"), [("GET", TASK), ("PUT", SCHEDULE)])
def test_only_post_is_answered(deployed: Deployed, issuer: Issuer, method: str, path: str) -> None:
    caller = TASKS if path == TASK else SCHEDULER
    headers = {"authorization": f"Bearer {issuer.token(caller)}"}

    assert httpx.request(method, deployed.server.url + path, headers=headers).status_code == 405


@pytest.mark.parametrize("path", ["/", "/admin/", "/api/validations", "/api/docs", "/internal/", "/internal/nothing/1"])
def test_the_worker_serves_nothing_else(deployed: Deployed, issuer: Issuer, path: str) -> None:
    assert deployed.post(path, f"Bearer {issuer.token(TASKS)}").status_code == 404
