"""`/api/workflows` over HTTP, with a real database and real validators."""

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from app.organizations.models import ApiKey, ApiKeyText, Organization
from app.regions import DataRegion
from app.settings import env
from app.workflows.models import WorkflowDefinition, WorkflowRun
from tests.app.worker import Worker
from tests.app.workflows.queue import Queue

HEADERS = {"host": "au.validibot.com", "x-forwarded-proto": "https"}
STEPS: list[dict[str, Any]] = [
    {
        "key": "check",
        "type": "VALIDATOR",
        "inputs": {"document": {"ref": "/inputs/order"}},
        "config": {"validator": "json-schema", "schema": {"type": "object", "required": ["id"]}},
    },
    {
        "key": "total",
        "type": "VALIDATOR",
        "depends_on": ["check"],
        "inputs": {"document": {"ref": "/inputs/order"}},
        "config": {"validator": "cel", "rules": [{"expression": "document.total > 0"}]},
    },
]


class Api(Client):
    def send(self, path: str, body: Any = None, **headers: str) -> Any:
        content = json.dumps(body) if body is not None else ""
        return self.post(path, content, content_type="application/json", headers=headers)


@pytest.fixture
def web(queue: Queue) -> Api:
    return client_of(Organization.objects.create(slug="demo", name="Demo", data_region="AU"))


def client_of(organization: Organization) -> Api:
    text = ApiKeyText.generate(DataRegion.AU)
    ApiKey.objects.create(organization=organization, prefix=text.prefix, sha256=text.sha256)
    return Api(headers=HEADERS | {"authorization": f"Bearer {text.text}"})


def defined(web: Api, *steps: dict[str, Any]) -> str:
    answer = web.send("/api/workflows", {"name": "orders", "steps": list(steps) or STEPS})
    assert answer.status_code == 201, answer.content
    return str(answer["Location"])


def test_a_workflow_is_defined_run_and_watched(web: Api, queue: Queue) -> None:
    url = defined(web)
    started = web.send(f"{url}/runs", {"inputs": {"order": {"id": 7, "total": 3}}})
    first = web.get(started["Location"])
    queue.until_empty()
    last = web.get(started["Location"])

    assert (started.status_code, started["Retry-After"], started.json()["state"]) == (202, "2", "PENDING")
    assert (first["Retry-After"], [step["state"] for step in first.json()["steps"]]) == ("2", ["PENDING", "PENDING"])
    assert "Retry-After" not in last
    assert last.json()["state"] == "SUCCESS"
    assert [(step["key"], step["state"], step["outputs"]["verdict"]) for step in last.json()["steps"]] == [
        ("check", "SUCCESS", "PASS"),
        ("total", "SUCCESS", "PASS"),
    ]
    assert first["ETag"] != last["ETag"]
    assert web.get(started["Location"], headers={"if-none-match": last["ETag"]}).status_code == 304
    assert web.get(started["Location"], headers={"if-none-match": first["ETag"]}).status_code == 200


def test_a_version_is_added_only_when_the_steps_differ_and_runs_keep_theirs(web: Api, queue: Queue) -> None:
    url = defined(web)
    run = web.send(f"{url}/runs", {"inputs": {"order": {}}}).json()

    same = web.send(f"{url}/versions", {"steps": STEPS})
    other = web.send(f"{url}/versions", {"steps": STEPS[:1]})

    assert (same.status_code, same.json()["version"]) == (200, 1)
    assert (other.status_code, other.json()["version"], other["Location"]) == (201, 2, f"{url}/versions/2")
    assert web.get(url).json() == other.json()
    assert [version["version"] for version in web.get(f"{url}/versions").json()["items"]] == [2, 1]
    assert [step["key"] for step in web.get(f"{url}/versions/1").json()["steps"]] == ["check", "total"]
    assert len(web.get(run["url"]).json()["steps"]) == 2
    assert web.send(f"{url}/runs", {"version": 1}).json()["version"] == 1
    assert web.send(f"{url}/runs", {}).json()["version"] == 2
    assert web.get("/api/workflows").json()["items"][0]["version"] == 2


def test_a_graph_that_cannot_run_is_refused_with_every_error_by_name(web: Api) -> None:
    steps = [
        STEPS[0] | {"depends_on": ["total"], "condition": "1 +"},
        STEPS[1],
        STEPS[1] | {"key": "late", "depends_on": ["gone"]},
    ]

    answer = web.send("/api/workflows", {"name": "orders", "steps": steps})

    assert (answer.status_code, answer.json()["type"]) == (422, "https://validibot.com/problems/invalid-workflow")
    assert [(error["field"], error["message"].split(":")[0]) for error in answer.json()["errors"]] == [
        ("steps[2].depends_on[0]", "unknown-step"),
        ("steps[0].depends_on", "cycle"),
        ("steps[0].condition", "bad-condition"),
    ]
    assert not WorkflowDefinition.objects.exists()


XSD = '<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"><xs:element name="b"%s/></xs:schema>'


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"validator": "json-schema", "schema": {"type": "order"}}, "schema/type"),
        ({"validator": "json-schema", "schema": {"$ref": "https://example.com/order.json"}}, "schema"),
        (
            {"validator": "json-schema", "schema": {"properties": {"id": {"pattern": "("}}}},
            "schema/properties/id/pattern",
        ),
        ({"validator": "json-schema", "schema": {"type": "integer"}}, None),
        ({"validator": "xml-schema", "schema": "<a/>"}, "schema"),
        ({"validator": "xml-schema", "schema": "<!DOCTYPE a>" + XSD % ""}, "schema"),
        ({"validator": "xml-schema", "schema": XSD % ""}, None),
        ({"validator": "cel", "rules": []}, "rules"),
        ({"validator": "cel", "rules": [{"expression": "true"}, {"expression": "1 +"}]}, "rules[1].expression"),
        ({"validator": "cel", "rules": [{"expression": "document.order.total > 5"}]}, None),
    ],
)
def test_a_validator_that_could_never_run_is_refused_when_it_is_defined(
    web: Api, config: dict[str, Any], field: str | None
) -> None:
    step = {"key": "a", "type": "VALIDATOR", "inputs": {"document": {"ref": "/inputs/order"}}, "config": config}

    answer = web.send("/api/workflows", {"name": "orders", "steps": [step]})

    errors = [(error["field"], error["message"].split(":")[0]) for error in answer.json().get("errors", [])]
    assert errors == ([] if field is None else [(f"steps[0].config.{field}", "bad-validator")])
    assert answer.status_code == (201 if field is None else 422)


def numbered(number: bytes) -> bytes:
    """A workflow with this as its number of attempts."""
    step = b'{"key": "a", "type": "ACTION", "config": {"action": "CREDENTIAL"}, "retry": {"max_attempts": %b}}' % number
    return b'{"name": "a", "steps": [%b]}' % step


@pytest.mark.parametrize(
    ("body", "status", "problem", "field"),
    [
        (b"{", 400, "malformed-request", "body"),
        (b'{"name": "a", "name": "b", "steps": []}', 422, "duplicate-name", "body"),
        (b'{"name": "a\\u0000", "steps": []}', 422, "bad-encoding", "body"),
        (b'{"name": "a", "steps": [{"key": "a", "type": "MAGIC"}]}', 422, "invalid-request", "steps[0]"),
        (b'{"name": "a", "steps": [{"key": "A", "type": "ACTION"}]}', 422, "invalid-request", "steps[0].key"),
        (numbered(b"false"), 422, "invalid-request", "steps[0].retry.max_attempts"),
        (numbered(b'"5"'), 422, "invalid-request", "steps[0].retry.max_attempts"),
    ],
)
def test_a_body_of_the_wrong_shape_is_refused_with_its_place(
    web: Api, body: bytes, status: int, problem: str, field: str
) -> None:
    answer = web.post("/api/workflows", body, content_type="application/json")

    assert (answer.status_code, answer.json()["type"].rsplit("/", 1)[1]) == (status, problem)
    assert answer.json()["errors"][0]["field"] == field


def test_a_request_that_is_sent_again_starts_one_run(web: Api, queue: Queue) -> None:
    url = defined(web)
    body = {"inputs": {"order": {"id": 7, "total": 3}}}

    answers = [web.send(f"{url}/runs", body, **{"idempotency-key": "k1"}) for _ in range(3)]
    other = web.send(f"{url}/runs", {"inputs": {}}, **{"idempotency-key": "k1"})

    assert {(answer.status_code, answer["Location"]) for answer in answers} == {(202, answers[0]["Location"])}
    assert (other.status_code, other.json()["type"].rsplit("/", 1)[1]) == (422, "idempotency-key-reused")
    assert WorkflowRun.objects.count() == 1


def test_a_workflow_that_is_sent_again_is_defined_once(web: Api) -> None:
    first, again = (
        web.send("/api/workflows", {"name": "orders", "steps": STEPS}, **{"idempotency-key": "k1"}) for _ in range(2)
    )

    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    assert (first.get("Idempotency-Replayed"), again["Idempotency-Replayed"]) == (None, "true")
    assert WorkflowDefinition.objects.count() == 1


def test_a_name_is_taken_once(web: Api) -> None:
    defined(web)

    answer = web.send("/api/workflows", {"name": "orders", "steps": STEPS})

    assert (answer.status_code, answer.json()["type"].rsplit("/", 1)[1]) == (409, "name-taken")


def test_a_run_is_cancelled_once_and_an_ended_one_never(web: Api, queue: Queue) -> None:
    url = defined(web)
    ended = web.send(f"{url}/runs", {"inputs": {"order": {"id": 7, "total": 3}}}).json()["url"]
    queue.until_empty()
    begun = web.send(f"{url}/runs", {"inputs": {"order": {"id": 7, "total": 3}}}).json()["url"]

    answers = [web.send(f"{begun}/cancel") for _ in range(2)]
    queue.until_empty()

    assert [(answer.status_code, answer.json()["state"]) for answer in answers] == [(200, "CANCELLED")] * 2
    assert {step["state"] for step in web.get(begun).json()["steps"]} == {"CANCELLED"}
    assert web.send(f"{ended}/cancel").status_code == 409
    assert web.get(ended).json()["state"] == "SUCCESS"


def test_a_replay_runs_what_failed_and_takes_over_the_rest(web: Api, queue: Queue) -> None:
    url = defined(web)
    failed = web.send(f"{url}/runs", {"inputs": {"order": {"id": 7, "total": 0}}}).json()["url"]
    queue.until_empty()

    replayed = web.send(f"{failed}/replay")
    queue.until_empty()
    again = web.get(replayed["Location"]).json()

    assert (replayed.status_code, again["replay_of"]) == (202, failed.rsplit("/", 1)[1])
    assert [(step["key"], step["state"], step["is_copied"]) for step in again["steps"]] == [
        ("check", "SUCCESS", True),
        ("total", "FAILED", False),
    ]
    assert web.send(f"{failed}/replay", {"steps": ["gone"]}).status_code == 422
    everything = web.send(f"{failed}/replay", {"steps": ["check"]})
    queue.until_empty()
    assert [step["is_copied"] for step in web.get(everything["Location"]).json()["steps"]] == [False, False]


def test_a_run_that_has_not_failed_is_not_replayed(web: Api, queue: Queue) -> None:
    url = defined(web)
    run = web.send(f"{url}/runs", {"inputs": {"order": {"id": 7, "total": 3}}}).json()["url"]

    early = web.send(f"{run}/replay")
    queue.until_empty()
    late = web.send(f"{run}/replay")

    assert [(a.status_code, a.json()["detail"]) for a in (early, late)] == [
        (409, "the run is PENDING: wait for its end, or cancel it"),
        (409, "no step has failed: name the steps to run again"),
    ]


def test_another_organisations_workflows_and_runs_do_not_exist(web: Api, queue: Queue) -> None:
    url = defined(web)
    run = web.send(f"{url}/runs", {}).json()["url"]
    stranger = client_of(Organization.objects.create(slug="other", name="Other", data_region="AU"))

    answers = [stranger.get(path).status_code for path in (url, f"{url}/versions", f"{url}/runs", run)]
    answers += [stranger.send(path, {}).status_code for path in (f"{url}/runs", f"{run}/cancel", f"{run}/replay")]

    assert answers == [404] * 7
    assert stranger.get("/api/workflows").json() == {"items": [], "next_cursor": None}


def test_runs_are_listed_newest_first_by_state_and_page(web: Api, queue: Queue) -> None:
    url = defined(web)
    ids = [web.send(f"{url}/runs", {}).json()["id"] for _ in range(3)]
    web.send(f"{url}/runs/{ids[1]}/cancel")

    first = web.get(f"{url}/runs?limit=2").json()
    second = web.get(f"{url}/runs?limit=2&cursor={first['next_cursor']}").json()
    cancelled = web.get(f"{url}/runs?state=CANCELLED").json()

    assert [run["id"] for run in first["items"] + second["items"]] == ids[::-1]
    assert second["next_cursor"] is None
    assert [run["id"] for run in cancelled["items"]] == [ids[1]]


def test_an_organisation_starts_so_many_runs_in_a_minute(web: Api, queue: Queue) -> None:
    url = defined(web)
    statuses = [web.send(f"{url}/runs", {}).status_code for _ in range(env.runs_per_minute + 1)]

    assert statuses == [202] * 60 + [429]


def test_a_slack_address_is_never_shown(web: Api) -> None:
    config = {"action": "SLACK", "webhook_url": "https://hooks.slack.com/services/T0/B0/secret", "text": "hi"}
    url = defined(web, {"key": "tell", "type": "ACTION", "config": config})

    shown = web.get(url).json()["steps"][0]

    assert shown["config"] == config | {"webhook_url": "https://hooks.slack.com/…"}
    assert web.send(f"{url}/versions", {"steps": [shown]}).status_code == 422


def test_a_key_without_the_scope_may_not(web: Api) -> None:
    ApiKey.objects.update(scopes=["validations:read", "validations:write", "workflows:read"])

    assert web.get("/api/workflows").status_code == 200
    assert web.send("/api/workflows", {}).status_code == 403


def test_a_run_goes_through_the_workers_addresses(web: Api, queue: Queue) -> None:
    """Real tokens, real addresses: what Cloud Tasks would deliver moves the run to its end."""
    url = defined(web)
    started = web.send(f"{url}/runs", {"inputs": {"order": {"id": 7, "total": 3}}})

    statuses = Worker(queue.tasks).run()

    assert statuses == [204] * 5  # advance, run, advance, run, advance
    assert web.get(started["Location"]).json()["state"] == "SUCCESS"


def test_the_admin_shows_runs_and_changes_none(web: Api, queue: Queue) -> None:
    url = defined(web)
    run = web.send(f"{url}/runs", {"inputs": {"order": "a secret order"}}).json()["id"]
    User.objects.create_superuser("root", password="a-long-enough-password")
    browser = Client(headers=HEADERS)
    browser.login(username="root", password="a-long-enough-password")

    pages = [
        browser.get(f"/admin/workflows/workflowrun/{run}/change/"),
        browser.get(f"/admin/workflows/workflowdefinition/{url.rsplit('/', 1)[1]}/change/"),
        browser.get("/admin/simulations/simulationjob/"),
    ]

    assert [page.status_code for page in pages] == [200, 200, 200]
    assert "PENDING" in pages[0].content.decode()
    assert "a secret order" not in pages[0].content.decode()
    assert browser.post(f"/admin/workflows/workflowrun/{run}/delete/", {"post": "yes"}).status_code == 403
