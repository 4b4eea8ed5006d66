"""Actions against real sockets and real signatures."""

import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.test import Client

from app.organizations.models import ApiKey, Organization
from app.settings import env
from app.webhooks import signing
from app.webhooks.models import WebhookDelivery, WebhookEndpoint
from app.workflows import actions, credentials, requests, runs
from app.workflows.definitions import Definition
from app.workflows.models import WorkflowRun
from tests.app.workflows.queue import Queue
from tests.app.workflows.sink import Sink, running
from tests.app.workflows.test_runs import version

ID = UUID("019ab0c1-7a58-7c4e-9b57-0d6f5a3b8e11")
AT = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)


@pytest.fixture
def sink() -> Iterator[Sink]:
    with running() as sink:
        yield sink


@pytest.fixture
def endpoint(key: ApiKey, sink: Sink) -> WebhookEndpoint:
    return WebhookEndpoint.objects.create(
        organization=key.organization, url=f"{sink.url}/hook", is_internal=True, events=[]
    )


def action(config: dict[str, Any], **more: Any) -> dict[str, Any]:
    retry = {"max_attempts": 3, "backoff_seconds": 0}
    inputs = {"order": {"ref": "/inputs/order"}}
    return {"key": "act", "type": "ACTION", "config": config, "retry": retry, "inputs": inputs} | more


def run(key: ApiKey, queue: Queue, step: dict[str, Any], order: Any = 7) -> WorkflowRun:
    run = runs.start(version(key, step), {"order": order})
    queue.until_empty()
    run.refresh_from_db()
    return run


def webhook(endpoint: WebhookEndpoint) -> dict[str, Any]:
    return action({"action": "WEBHOOK", "endpoint": str(endpoint.id)})


def test_a_webhook_is_signed_and_carries_the_steps_inputs(
    key: ApiKey, queue: Queue, sink: Sink, endpoint: WebhookEndpoint
) -> None:
    done = run(key, queue, webhook(endpoint))

    (received,) = sink.received
    step_run = done.steps.get()
    timestamp = int(received.headers["webhook-timestamp"])
    assert (done.state, step_run.outputs) == ("SUCCESS", {"status": 204})
    assert json.loads(received.body) == {
        "type": "workflow.action",
        "timestamp": done.created_at.isoformat(),
        "data": {"run": str(done.id), "step": "act", "inputs": {"order": 7}},
    }
    assert received.headers["webhook-id"] == f"msg_{step_run.id}"
    assert received.headers["webhook-signature"] == signing.signature(
        f"msg_{step_run.id}", timestamp, received.body, endpoint.secret
    )


def test_attempts_of_a_webhook_share_their_key_and_their_body(
    key: ApiKey, queue: Queue, sink: Sink, endpoint: WebhookEndpoint
) -> None:
    sink.script = [503, 429, 200]

    done = run(key, queue, webhook(endpoint))

    assert (done.state, done.steps.get().attempt) == ("SUCCESS", 3)
    assert len(sink.received) == 3
    assert len({(r.headers["webhook-id"], r.headers["idempotency-key"], r.body) for r in sink.received}) == 1


@pytest.mark.parametrize(
    ("script", "attempts", "problem"),
    [
        ([500], 3, {"code": "refused", "detail": "the answer was 500"}),
        ([404], 1, {"code": "refused", "detail": "the answer was 404"}),
        ([302], 1, {"code": "refused", "detail": "the answer was 302"}),
    ],
)
def test_a_webhook_that_is_refused_fails_after_as_many_attempts_as_make_sense(
    key: ApiKey, queue: Queue, sink: Sink, endpoint: WebhookEndpoint, script: list[int], attempts: int, problem: Any
) -> None:
    sink.script = script

    done = run(key, queue, webhook(endpoint))

    step_run = done.steps.get()
    assert (done.state, step_run.attempt, step_run.problem) == ("FAILED", attempts, problem)
    assert len(sink.received) == attempts


@pytest.mark.parametrize("is_foreign", [False, True])
def test_a_webhook_goes_to_an_active_endpoint_of_its_own_organisation_only(
    key: ApiKey, queue: Queue, sink: Sink, endpoint: WebhookEndpoint, is_foreign: bool
) -> None:
    other = Organization.objects.create(slug="other", name="Other", data_region="AU")
    WebhookEndpoint.objects.update(**({"organization": other} if is_foreign else {"is_active": False}))

    done = run(key, queue, webhook(endpoint))

    assert (done.steps.get().problem_code, sink.received) == ("unknown-endpoint", [])


def test_a_slack_message_has_its_inputs_filled_in_and_escaped(
    key: ApiKey, queue: Queue, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The operator's setting, which a process reads once.
    monkeypatch.setattr(actions, "env", env.model_copy(update={"slack_endpoint": sink.url}))
    config = {"action": "SLACK", "webhook_url": f"{sink.url}/services/T/B/x", "text": "{order} & {other} {order.a} {"}

    done = run(key, queue, action(config), order="<!channel>")

    (received,) = sink.received
    assert (done.state, received.path) == ("SUCCESS", "/services/T/B/x")
    assert json.loads(received.body) == {"text": "&lt;!channel&gt; & {other} {order.a} {"}


def test_slack_is_reached_at_its_own_address_only(key: ApiKey, queue: Queue, sink: Sink) -> None:
    config = {"action": "SLACK", "webhook_url": f"{sink.url}/services/T/B/x", "text": "hi"}

    done = run(key, queue, action(config))

    assert (done.steps.get().problem_code, sink.received) == ("bad-slack-address", [])


def test_a_definition_names_targets_that_do_not_exist(key: ApiKey, queue: Queue) -> None:
    definition = Definition.model_validate(
        {
            "steps": [
                action({"action": "WEBHOOK", "endpoint": str(ID)}),
                action({"action": "SLACK", "webhook_url": "https://hooks.slack.com.evil/services/x", "text": "x"})
                | {"key": "b"},
            ]
        }
    )

    errors = list(requests._errors_of_targets(definition, key.organization_id))

    assert [error.code.value for error in errors] == ["unknown-endpoint", "bad-slack-address"]


def test_a_credential_verifies_with_the_key_that_the_did_document_publishes(key: ApiKey, queue: Queue) -> None:
    order = {"id": "did:example:order-7", "total": 3}
    step = action({"action": "CREDENTIAL", "credential_type": "OrderCredential", "expires_after_days": 30})
    step["inputs"] = {"id": {"ref": "/inputs/order/id"}, "total": {"ref": "/inputs/order/total"}}

    done = run(key, queue, step, order=order)
    outputs = done.steps.get().outputs or {}
    document = Client(headers={"host": "au.validibot.com", "x-forwarded-proto": "https"}).get("/.well-known/did.json")

    (method,) = document.json()["verificationMethod"]
    header = jwt.get_unverified_header(outputs["credential"])
    claims = jwt.decode(
        outputs["credential"], jwt.PyJWK(method["publicKeyJwk"]), ["EdDSA"], issuer="did:web:au.validibot.com"
    )
    issued = int(done.created_at.timestamp())
    assert header == {"alg": "EdDSA", "typ": "JWT", "kid": method["id"]}
    assert document.json()["assertionMethod"] == [method["id"]]
    assert claims == {
        "iss": "did:web:au.validibot.com",
        "sub": "did:example:order-7",
        "jti": outputs["id"],
        "nbf": issued,
        "exp": issued + 30 * 86400,
        "vc": {
            "@context": ["https://www.w3.org/2018/credentials/v1"],
            "type": ["VerifiableCredential", "OrderCredential"],
            "credentialSubject": order,
        },
    }
    assert outputs["id"] == f"urn:uuid:{done.steps.get().id}"


def test_an_ec_key_signs_with_es256(db: None) -> None:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    issuer = credentials.Issuer.of("did:web:x", pem)

    first, second = (issuer.issue(id_=ID, kind="A", subject={}, issued_at=AT, lifetime=None) for _ in range(2))

    claims = [jwt.decode(issued.jwt, jwt.PyJWK(issuer.jwk), ["ES256"]) for issued in (first, second)]
    assert claims[0] == claims[1]
    assert claims[0]["jti"] == f"urn:uuid:{ID}"
    assert "exp" not in claims[0]


def test_the_id_of_a_key_is_its_thumbprint() -> None:
    # RFC 8037, appendix A.3
    jwk = {"crv": "Ed25519", "kty": "OKP", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}

    assert credentials.thumbprint(jwk) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_other_keys_are_refused_without_being_quoted() -> None:
    key = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    for pem in (key, b"not a key"):
        with pytest.raises(credentials.NoKey, match="VALIDIBOT_CREDENTIAL_KEY") as error:
            credentials.Issuer.of("did:web:x", pem)
        assert "not a key" not in str(error.value)


def test_the_end_of_a_run_is_announced_once(key: ApiKey, queue: Queue, sink: Sink, endpoint: WebhookEndpoint) -> None:
    WebhookEndpoint.objects.update(events=["workflow.finished"])

    done = run(key, queue, webhook(endpoint))

    delivery = WebhookDelivery.objects.get()
    assert (delivery.message_id, delivery.event) == (f"msg_{done.id}", "workflow.finished")
    assert delivery.payload["data"] == {
        "workflow": str(done.version.workflow_id),
        "version": 1,
        "run": str(done.id),
        "state": "SUCCESS",
        "finished_at": done.finished_at.isoformat() if done.finished_at else None,
    }


def test_a_webhook_that_does_not_answer_in_time_is_tried_again(
    key: ApiKey, queue: Queue, sink: Sink, endpoint: WebhookEndpoint
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        WebhookEndpoint.objects.update(url=f"http://127.0.0.1:{silent.getsockname()[1]}/")

        done = run(key, queue, webhook(endpoint) | {"timeout_seconds": 1, "retry": {"max_attempts": 1}})

    assert done.steps.get().problem == {
        "code": "unreachable",
        "detail": "no answer from 127.0.0.1: TimeoutError",
    }


def test_an_address_in_our_own_network_is_refused(key: ApiKey, queue: Queue, sink: Sink, endpoint: Any) -> None:
    WebhookEndpoint.objects.update(is_internal=False, url="https://169.254.169.254/computeMetadata/v1/")

    done = run(key, queue, webhook(endpoint))

    assert (done.steps.get().problem_code, sink.received) == ("address-refused", [])
