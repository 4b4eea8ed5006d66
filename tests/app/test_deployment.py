"""The application as it is deployed: gunicorn, tokens as passwords, a schema that another user owns, buckets."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from app.organizations.models import ApiKeyText
from app.regions import DataRegion
from tests.app import google, server
from tests.app.environment import environment
from tests.app.postgres import Postgres

MIGRATE, WEB, WORKER = (f"validibot-{name}@validibot-test.iam" for name in ("migrate", "web", "worker"))
SUBMISSION = {"validator": "json-schema", "document": {"id": 1}, "schema": {"required": ["id"]}}
COUNTS = "SELECT (SELECT count(*) FROM organizations_organization), (SELECT count(*) FROM organizations_apikey)"


@dataclass
class Region:
    """A migrated database and a stand-in for Google, with the environments of the migrate job and the web service."""

    postgres: Postgres
    google: google.Google
    migrate: dict[str, str]
    web: dict[str, str]
    key: ApiKeyText

    @property
    def bearer(self) -> str:
        return f"Bearer {self.key.text}"

    def rows(self, user: str = WEB) -> "psycopg.Connection[tuple[object, ...]]":
        return self.postgres.connect("validibot", user, "token-1")


@pytest.fixture(scope="module")
def region() -> Iterator[Region]:
    postgres = Postgres.reserve()
    try:
        postgres.create()
        with postgres.connect() as admin:
            for user in (MIGRATE, WEB, WORKER):
                admin.execute(f"CREATE ROLE \"{user}\" LOGIN PASSWORD 'token-1'")
            admin.execute(f'CREATE DATABASE validibot OWNER "{MIGRATE}"')
        with google.running() as stand_in:
            base = environment(postgres.directory, Path("/nonexistent")) | stand_in.environment
            del base["VALIDIBOT_DATABASE_PASSWORD"]  # so the access token is the password
            base |= {"VALIDIBOT_MEDIA_BUCKET": "validibot-test-media"}
            migrate = base | {
                "VALIDIBOT_ROLE": "job",
                "VALIDIBOT_DATABASE_USER": MIGRATE,
                "VALIDIBOT_DATABASE_ROW_USERS": f"{WEB}, {WORKER}",
                "VALIDIBOT_STATIC_BUCKET": "validibot-test-static",
            }
            web = base | {"VALIDIBOT_DATABASE_USER": WEB, "VALIDIBOT_DATABASE_POOL_MAX": "4"}
            key = ApiKeyText.generate(DataRegion.AU)
            region = Region(postgres, stand_in, migrate, web, key)
            finished = server.manage(migrate, "migrate_region")
            assert finished.returncode == 0, finished.stdout + finished.stderr
            _create_organization(region)
            yield region
    finally:
        postgres.destroy()


@pytest.fixture(scope="module")
def web(region: Region, tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.Server]:
    with server.running(region.web, tmp_path_factory.mktemp("web") / "log") as running:
        yield running


def _create_organization(region: Region) -> "subprocess.CompletedProcess[str]":
    return server.manage(
        region.web | {"VALIDIBOT_ROLE": "job"},
        *("create_organization", "--slug=demo", "--name=Demo", "--data-region=AU"),
        f"--api-key-hash={region.key.sha256}",
    )


def test_a_submission_is_validated_and_its_object_is_created_under_the_services_identity(
    region: Region, web: server.Server
) -> None:
    with web.client(authorization=region.bearer) as client:
        answer = client.post("/api/validations", json=SUBMISSION)

        assert answer.status_code == 201, answer.text
        assert client.get(answer.headers["location"]).json()["verdict"] == "PASS"
    stored = region.google.uploads[-1]
    assert stored["name"].endswith(answer.json()["id"])
    assert (stored["bucket"], stored["ifGenerationMatch"]) == ("validibot-test-media", "0")
    assert stored["bearer"] == "token-1"


def test_a_missing_storage_permission_is_named_and_leaves_no_row(region: Region, web: server.Server) -> None:
    with region.rows() as rows, web.client(authorization=region.bearer) as client:
        before = rows.execute("SELECT count(*) FROM validations_validationjob").fetchone()
        region.google.refused_permission = "storage.objects.create"
        try:
            answer = client.post("/api/validations", json=SUBMISSION)
        finally:
            region.google.refused_permission = ""
        after = rows.execute("SELECT count(*) FROM validations_validationjob").fetchone()

    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert "storage.objects.create" in answer.json()["detail"]
    assert "gserviceaccount" not in answer.text
    assert before == after
    assert [e["permission"] for e in web.entries() if "permission" in e] == ["storage.objects.create"]


def test_migrating_and_creating_again_changes_nothing(region: Region) -> None:
    with region.rows() as rows:
        before = rows.execute(COUNTS).fetchall()
        uploaded = len(region.google.uploads)

        migrated, created = server.manage(region.migrate, "migrate_region"), _create_organization(region)

        assert (migrated.returncode, created.returncode) == (0, 0), migrated.stderr + created.stderr
        assert "No migrations to apply" in migrated.stdout
        assert created.stdout.splitlines() == [
            "organisation demo: exists",
            f"API key {region.key.sha256[:8]}…: exists",
        ]
        after = rows.execute(COUNTS).fetchall()
    assert before == after == [(1, 1)]
    assert len(region.google.uploads) >= uploaded
    assert region.key.text not in migrated.stdout + created.stdout


@pytest.mark.parametrize("user", [WEB, WORKER])
@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE validations_finding",
        "ALTER TABLE organizations_apikey ADD COLUMN x int",
        "TRUNCATE validations_finding",
        "CREATE TABLE mine (x int)",
        "CREATE SCHEMA mine",
        "DELETE FROM django_migrations",
        "UPDATE organizations_organization SET data_region = 'US'",
        "CREATE ROLE mine",
    ],
)
def test_a_services_user_changes_rows_and_nothing_else(region: Region, user: str, statement: str) -> None:
    with region.rows(user) as rows:
        with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.IntegrityConstraintViolation)):
            rows.execute(statement)
        rows.execute("SELECT * FROM validations_finding")
        rows.execute("UPDATE organizations_organization SET name = name")


def test_a_table_of_a_later_migration_has_the_same_privileges(region: Region) -> None:
    with region.rows(MIGRATE) as owner, region.rows(WEB) as rows:
        owner.execute("CREATE TABLE later (id bigint GENERATED BY DEFAULT AS IDENTITY, x int)")
        try:
            rows.execute("INSERT INTO later (x) VALUES (1)")
            assert rows.execute("SELECT id, x FROM later").fetchall() == [(1, 1)]
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                rows.execute("DROP TABLE later")
        finally:
            owner.execute("DROP TABLE later")


def test_static_files_are_published_under_the_address_that_pages_use(region: Region, web: server.Server) -> None:
    with web.client() as client:
        page = client.get("/admin/login/").text

    published = {o["name"]: o for o in region.google.objects.values() if o["bucket"] == "validibot-test-static"}
    assert 'href="/static/r1/admin/css/base.css"' in page
    css = published["static/r1/admin/css/base.css"]
    assert (css["contentType"], css["cacheControl"]) == ("text/css", "public, max-age=31536000, immutable")
    assert {"static/r1/ninja/swagger-ui-bundle.js", "static/r1/ninja/swagger-ui.css"} <= published.keys()


def test_a_refused_upload_of_static_files_fails_the_migrate_job_with_the_permission(region: Region) -> None:
    region.google.refused_permission = "storage.objects.create"
    try:
        finished = server.manage(region.migrate | {"VALIDIBOT_RELEASE": "r2"}, "migrate_region")
    finally:
        region.google.refused_permission = ""

    assert finished.returncode == 1
    assert "static files could not be published to gs://validibot-test-static" in finished.stderr
    assert "'storage.objects.create' denied" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_restart_of_postgres_is_survived(region: Region, web: server.Server) -> None:
    with web.client(authorization=region.bearer) as client:
        assert client.get("/api/validations").status_code == 200
        region.postgres.stop()
        try:
            down, broken = client.get("/readyz"), client.get("/api/validations")
        finally:
            region.postgres.start()
        up, works = client.get("/readyz"), client.get("/api/validations")

    assert (down.status_code, down.json()["failed"]) == (503, {"database": "no connection"})
    assert (broken.status_code, broken.json()["type"]) == (503, "https://validibot.com/problems/database-unavailable")
    assert (up.status_code, works.status_code) == (200, 200)


def test_a_page_says_that_the_database_is_away(region: Region, tmp_path: Path) -> None:
    """Not that the page is broken; what needs no database is served as ever."""
    away = region.web | {"VALIDIBOT_DATABASE_HOST": str(tmp_path)}
    with server.running(away, tmp_path / "log") as web, web.client() as client:
        answers = {path: client.get(path) for path in ("/healthz", "/readyz", "/", "/admin/login/")}
        answers |= {"/admin/": client.get("/admin/", headers={"cookie": f"sessionid={'x' * 32}"})}

    statuses = {path: answer.status_code for path, answer in answers.items()}
    assert statuses == {"/healthz": 200, "/readyz": 503, "/": 200, "/admin/login/": 200, "/admin/": 503}
    page = answers["/admin/"]
    assert page.headers["Retry-After"] == "5"
    assert "The database does not answer" in page.text
    assert page.headers["Content-Security-Policy"]


def test_a_body_over_the_ceiling_is_refused_announced_or_not(region: Region, web: server.Server) -> None:
    chunk = b" " * (1024 * 1024)
    with web.client(authorization=region.bearer) as client:
        announced = client.post("/api/validations", content=chunk * 11, headers={"content-type": "application/json"})
        chunked = client.post(
            "/api/validations", content=(chunk for _ in range(11)), headers={"content-type": "application/json"}
        )
        small = client.post(
            "/api/validations",
            content=iter([json.dumps(SUBMISSION).encode()]),
            headers={"content-type": "application/json"},
        )

    assert [a.status_code for a in (announced, chunked, small)] == [413, 413, 201]
    assert announced.json()["errors"][0]["remedy"] == "send at most 10485760 bytes"


@pytest.mark.parametrize(
    ("framing", "sent"),
    [
        ("Content-Length: 100", b'{"validator": '),
        ("Transfer-Encoding: chunked", b'e\r\n{"validator": \r\n'),
        ("Transfer-Encoding: chunked", b'64\r\n{"validator": '),
        ("Transfer-Encoding: chunked", b"many\r\n{}\r\n0\r\n\r\n"),
    ],
)
def test_a_body_that_is_cut_off_is_the_senders_failure_and_not_ours(
    region: Region, web: server.Server, framing: str, sent: bytes
) -> None:
    head = (
        "POST /api/validations HTTP/1.1\r\nHost: au.validibot.com\r\nX-Forwarded-Proto: https\r\n"
        f"Authorization: {region.bearer}\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
    )
    address = urlsplit(web.url)
    before = len(web.entries())
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(head.encode() + sent)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"problems/malformed-request" in answer
    assert [entry["severity"] for entry in web.entries()[before:]] == ["INFO"]


def test_a_long_address_is_answered_by_the_api(region: Region, web: server.Server) -> None:
    with web.client(authorization=region.bearer) as client:
        answer = client.get("/api/validations", params={"cursor": "x" * 8000})

    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


def test_requests_at_once_share_the_pool_and_the_validators(region: Region, web: server.Server) -> None:
    answers: list[int] = []

    def ask() -> None:
        with web.client(authorization=region.bearer) as client:
            answers.extend(client.post("/api/validations", json=SUBMISSION).status_code for _ in range(5))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert answers == [201] * 40


def test_every_line_is_an_entry_with_severity_and_trace_and_without_secrets(region: Region, web: server.Server) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    with web.client(authorization=region.bearer) as client:
        client.get("/api/validations", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
        client.get("/api/validations", headers={"x-cloud-trace-context": f"{trace[::-1]}/255;o=1"})
        client.get(f"/api/validations/{region.key.text}")

    entries = web.entries()
    assert all({"severity", "message"} <= entry.keys() for entry in entries)
    by_trace = {e["logging.googleapis.com/trace"]: e for e in entries if "logging.googleapis.com/trace" in e}
    request = by_trace[f"projects/validibot-test/traces/{trace}"]
    assert request["logging.googleapis.com/spanId"] == "b7ad6b7169203331"
    assert (request["httpRequest"]["status"], request["severity"]) == (200, "INFO")
    assert by_trace[f"projects/validibot-test/traces/{trace[::-1]}"]["logging.googleapis.com/spanId"] == f"{255:016x}"
    assert region.key.text not in web.log.read_text()
    assert "token-1" not in web.log.read_text()


def test_the_worker_serves_health_and_nothing_of_the_web_service(region: Region, tmp_path: Path) -> None:
    worker = region.web | {"VALIDIBOT_ROLE": "worker", "VALIDIBOT_DATABASE_USER": WORKER}
    with server.running(worker, tmp_path / "log") as running:
        with running.client(
            authorization=region.bearer, host="validibot-worker-1.australia-southeast1.run.app"
        ) as client:
            answers = {
                p: client.get(p).status_code for p in ("/readyz", "/", "/admin/", "/api/validations", "/api/docs")
            }

    assert answers == {"/readyz": 200, "/": 404, "/admin/": 404, "/api/validations": 404, "/api/docs": 404}


def test_a_wrong_environment_stops_the_server_with_the_variable_and_the_remedy(region: Region, tmp_path: Path) -> None:
    wrong = region.web | {"VALIDIBOT_DATA_REGION": "MOON", "DJANGO_SECRET_KEY": "short-secret"}

    with pytest.raises(RuntimeError) as failure, server.running(wrong, tmp_path / "log"):
        pass
    finished = server.manage(wrong, "check")

    for text in (str(failure.value), finished.stderr):
        assert "VALIDIBOT_DATA_REGION Input should be 'AU', 'US' or 'EU': set it to AU, US or EU" in text
        assert "DJANGO_SECRET_KEY" in text
        assert "short-secret" not in text
        assert "Traceback" not in text
    assert finished.returncode == 1


def test_a_command_says_in_a_line_that_the_database_is_away(region: Region, tmp_path: Path) -> None:
    away = region.migrate | {"VALIDIBOT_DATABASE_HOST": str(tmp_path)}

    finished = server.manage(away, "dead-letters", "list")

    assert finished.returncode == 1
    assert finished.stderr.startswith("validibot: the database failed: ")
    assert "Traceback" not in finished.stderr + finished.stdout


def test_a_login_asks_for_a_new_token_when_the_old_one_ends_soon(region: Region) -> None:
    script = (
        "import django; django.setup()\n"
        "from django.db import connection\n"
        "for _ in range(2):\n"
        "    connection.ensure_connection(); connection.close(); connection.close_pool()\n"
    )
    region.google.tokens_asked, region.google.token_lifetime_seconds = 0, 60
    try:
        environ = server.clean(region.web)
        finished = subprocess.run(
            [sys.executable, "-c", script],
            cwd=server.ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        asked = region.google.tokens_asked
    finally:
        region.google.token_lifetime_seconds = 3599

    assert finished.returncode == 0, finished.stderr
    assert asked == 2
