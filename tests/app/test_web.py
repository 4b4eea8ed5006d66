"""Pages, health, headers and the OpenAPI document."""

import json
import re
from typing import Any

import jsonschema_rs
import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from app import logs
from app.organizations.models import ApiKey, Organization
from app.validations.engines.pool import Outcome
from app.validations.models import ValidationJob
from app.validations.sandbox import pool

HTTPS = {"host": "au.validibot.com", "x-forwarded-proto": "https"}


def test_health_answers_under_any_host_and_readiness_asks_the_database(db: None) -> None:
    probe = Client(headers={"host": "10.1.2.3:8080"})

    assert probe.get("/healthz").json() == {"status": "ok"}
    assert probe.get("/readyz").json() == {"status": "ok"}
    assert probe.get("/").status_code == 400


def test_pages_have_the_headers_that_protect_them(db: None) -> None:
    answer = Client(headers=HTTPS).get("/admin/login/", secure=True)

    assert answer["Strict-Transport-Security"] == "max-age=31536000"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["X-Frame-Options"] == "DENY"
    assert "default-src 'self'" in answer["Content-Security-Policy"]
    assert answer.cookies["csrftoken"]["secure"]
    assert answer.cookies["csrftoken"]["httponly"]


def test_a_form_of_another_origin_is_refused(db: None) -> None:
    browser = Client(headers=HTTPS, enforce_csrf_checks=True)
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', browser.get("/admin/login/").content.decode())
    assert token is not None
    form = {"username": "x", "password": "y", "csrfmiddlewaretoken": token[1]}

    ours = browser.post("/admin/login/", form, headers={"origin": "https://au.validibot.com"})
    theirs = browser.post("/admin/login/", form, headers={"origin": "https://evil.example"})

    assert (ours.status_code, theirs.status_code) == (200, 403)


@pytest.mark.parametrize(
    ("method", "path", "status", "problem"),
    [
        ("GET", "/api/nothing", 404, "not-found"),
        ("DELETE", "/api/validations", 405, "method-not-allowed"),
        ("GET", "/api/validations?limit=0", 422, "invalid-request"),
        ("GET", "/api/validations/00000000-0000-0000-0000-000000000000", 404, "not-found"),
        ("GET", "/api/validations/7", 404, "not-found"),
    ],
)
def test_every_error_of_the_api_is_a_problem_document(
    api: Client, method: str, path: str, status: int, problem: str
) -> None:
    answer = api.generic(method, path)

    assert (answer.status_code, answer["Content-Type"]) == (status, "application/problem+json")
    assert answer.json()["type"] == f"https://validibot.com/problems/{problem}"
    assert re.fullmatch(r"[0-9a-f]{32}", answer.json()["trace"])


def test_the_documentation_needs_no_other_host(db: None) -> None:
    browser = Client(headers=HTTPS)
    page = browser.get("/api/docs").content.decode()

    addresses = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert addresses
    assert all(address.startswith("/static/r1/ninja/") for address in addresses)


def test_the_openapi_documents_examples_are_valid_submissions(db: None) -> None:
    document = Client(headers=HTTPS).get("/api/openapi.json").json()

    content = document["paths"]["/api/validations"]["post"]["requestBody"]["content"]["application/json"]
    schema = jsonschema_rs.validator_for(content["schema"])
    outcomes: dict[str, Outcome] = {}
    for name, example in content["examples"].items():
        schema.validate(example["value"])
        outcomes[name] = pool().run(json.dumps(example["value"]).encode(), "application/json")
    assert {name: (o.validator, o.findings) for name, o in outcomes.items()} == {
        name: (name, []) for name in ("json-schema", "xml-schema", "cel")
    }
    answers = document["paths"]["/api/validations"]["post"]["responses"].keys()
    assert answers == {"201", "202", "308", "400", "401", "403", "409", "413", "415", "422", "429", "500", "503"}


def test_the_openapi_document_is_whole_and_stays_so(db: None) -> None:
    """No reference leads nowhere, no name stands for two things, and every problem has its content type."""
    browser = Client(headers=HTTPS)
    document = browser.get("/api/openapi.json").json()
    schemas = document["components"]["schemas"]

    assert browser.get("/api/openapi.json").json() == document
    text = json.dumps(document)
    assert "#/$defs/" not in text
    assert set(re.findall(r'"#/components/schemas/(\w+)"', text)) <= schemas.keys()
    assert schemas["State"]["enum"] == ["PENDING", "RUNNING", "SUCCESS", "FAILED", "CANCELLED"]
    assert schemas["DeliveryState"]["enum"] == ["PENDING", "RUNNING", "DELIVERED", "FAILED"]
    contents = {
        (status[0] in "345" and status != "304", *answer["content"])
        for path in document["paths"].values()
        for operation in path.values()
        for status, answer in operation["responses"].items()
        if "content" in answer
    }
    assert contents == {(False, "application/json"), (True, "application/problem+json")}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/.well-known/did.json", 405),
        ("GET", f"/callbacks/simulation/{'0' * 8}-0000-0000-0000-{'0' * 12}", 405),
    ],
)
def test_a_method_that_a_machine_may_not_use_is_405(db: None, method: str, path: str, status: int) -> None:
    answer = Client(headers=HTTPS, enforce_csrf_checks=True).generic(method, path)

    assert (answer.status_code, bool(answer["Allow"])) == (status, True)


@pytest.mark.parametrize(
    ("moment", "status"),
    [
        ("2026-01-01T00:00:00Z", 200),
        ("2026-01-01T00:00:00.5-03:30", 200),
        ("0001-01-01T00:00:00+14:00", 200),
        ("9999-12-31T23:59:59-14:00", 200),
        ("2026-01-01T00:00:00", 422),
        ("2026-01-01", 422),
        ("1767225600", 422),
        ("2026-02-30T00:00:00Z", 422),
    ],
)
def test_a_moment_in_an_address_is_rfc_3339(api: Client, moment: str, status: int) -> None:
    assert api.get("/api/validations", {"created_from": moment}).status_code == status


def test_the_admin_shows_jobs_and_changes_none(api_key: ApiKey, submit: Any) -> None:
    submit(validator="json-schema", document=1, schema={"type": "string"})
    job = ValidationJob.objects.get()
    User.objects.create_superuser("root", password="a-long-enough-password")
    browser = Client(headers=HTTPS)
    assert browser.login(username="root", password="a-long-enough-password")

    page = browser.get(f"/admin/validations/validationjob/{job.id}/change/").content.decode()

    assert "json-schema/type" in page
    assert browser.get("/admin/validations/validationjob/add/").status_code == 403
    assert browser.post(f"/admin/validations/validationjob/{job.id}/delete/", {"post": "yes"}).status_code == 403
    assert browser.get("/admin/organizations/apikey/").status_code == 200


def test_the_admin_revokes_keys_and_cannot_move_an_organisation(api: Client, organization: Organization) -> None:
    User.objects.create_superuser("root", password="a-long-enough-password")
    browser = Client(headers=HTTPS)
    browser.login(username="root", password="a-long-enough-password")

    chosen = {"action": "revoke", "_selected_action": [ApiKey.objects.get().pk]}
    browser.post("/admin/organizations/apikey/", chosen)
    change = {"slug": "demo", "name": "Renamed", "data_region": "US"}
    browser.post(f"/admin/organizations/organization/{organization.pk}/change/", change)

    browser.post("/admin/organizations/organization/add/", {"slug": "x", "name": "X", "data_region": "US"})

    assert api.get("/api/validations").status_code == 401
    assert Organization.objects.get(slug="x").data_region == "AU"
    organization.refresh_from_db()
    assert (organization.name, organization.data_region) == ("Renamed", "AU")


def test_a_log_entry_keeps_no_secret() -> None:
    key = "vb_au_12345678_" + "x" * 43
    event = {
        "level": "warning",
        "event": f"bad key {key}",
        "authorization": "Bearer x",
        "nested": {"password": "x", "note": f"ya29.abc {key}"},
        "time": timezone.now().isoformat(),
    }

    entry = logs.as_entry(event, "p")

    assert entry.pop("time")
    assert entry == {
        "severity": "WARNING",
        "message": "bad key [removed]",
        "authorization": "[removed]",
        "nested": {"password": "[removed]", "note": "[removed] [removed]"},
    }
