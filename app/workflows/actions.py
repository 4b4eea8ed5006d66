"""Actions: what a step does outside. Each may be tried again, with one idempotency key for the step's whole life.

A worker can die between an effect and its record. Then the effect is repeated, under the same key: receivers of
webhooks see one `webhook-id`, a credential keeps its `jti`. Slack has no such key, so a message may come twice.
"""

import json
import re
import time
from datetime import timedelta
from typing import Any, Final

from app.settings import env
from app.webhooks import sending, signing
from app.webhooks.models import WebhookEndpoint
from app.workflows import credentials
from app.workflows.definitions import ActionStep, CredentialConfig, SlackConfig, WebhookConfig
from app.workflows.work import Done, Failure, Result, Work

_MAX_SLACK_TEXT: Final = 4000
_PLACE: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")
# Answers after which the same request may have another answer. Every other 4xx is about the request itself.
_RETRYABLE: Final = frozenset({408, 409, 425, 429})


def perform(work: Work, step: ActionStep, inputs: dict[str, Any]) -> Result:
    match step.config:
        case WebhookConfig():
            return _webhook(work, step.config, inputs)
        case SlackConfig():
            return _slack(work, step.config, inputs)
        case CredentialConfig():
            return _credential(work, step.config, inputs)


def is_slack(url: str) -> bool:
    return url.startswith(f"{env.slack_endpoint}/services/")


def _webhook(work: Work, config: WebhookConfig, inputs: dict[str, Any]) -> Result:
    endpoint = WebhookEndpoint.objects.filter(id=config.endpoint, organization=work.organization_id).first()
    if endpoint is None or not endpoint.is_active:
        return Failure(code="unknown-endpoint", detail="the webhook endpoint was deleted or switched off")
    # Equal in every attempt, so that a receiver may compare.
    message = {
        "type": "workflow.action",
        "timestamp": work.started_at.isoformat(),
        "data": {"run": str(work.run_id), "step": work.definition.key, "inputs": inputs},
    }
    body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
    headers = signing.headers(f"msg_{work.id}", int(time.time()), body, endpoint.secrets)
    headers["Idempotency-Key"] = str(work.id)
    return _posted(work, endpoint.url, body, headers, is_internal=endpoint.is_internal)


def _slack(work: Work, config: SlackConfig, inputs: dict[str, Any]) -> Result:
    if not is_slack(config.webhook_url):
        return Failure(code="bad-slack-address", detail="the address is not one of an incoming webhook of Slack")
    # A name that is no input stays as it is written.
    text = _PLACE.sub(lambda place: _escaped(inputs[place[1]]) if place[1] in inputs else place[0], config.text)
    # The address begins with what the operator has set, so it is as good as the operator's own.
    return _posted(
        work, config.webhook_url, json.dumps({"text": text[:_MAX_SLACK_TEXT]}).encode(), {}, is_internal=True
    )


def _escaped(value: Any) -> str:
    """As Slack asks: otherwise a value could mention a whole channel, or hide an address behind a text."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _posted(work: Work, url: str, body: bytes, headers: dict[str, str], *, is_internal: bool) -> Result:
    seconds = work.definition.timeout_seconds
    try:
        status = sending.post(url, body, headers, is_internal=is_internal, read_seconds=seconds)
    except sending.NotAllowed as error:
        return Failure(code="address-refused", detail=str(error))
    except sending.Unreachable as error:
        return Failure(code="unreachable", detail=str(error), is_retryable=True)
    if 200 <= status <= 299:
        return Done(outputs={"status": status})
    is_retryable = status in _RETRYABLE or status >= 500
    return Failure(code="refused", detail=f"the answer was {status}", is_retryable=is_retryable)


def _credential(work: Work, config: CredentialConfig, inputs: dict[str, Any]) -> Result:
    try:
        issuer = credentials.issuer()
    except credentials.NoKey as error:
        return Failure(code="no-credential-key", detail=str(error))
    lifetime = timedelta(days=config.expires_after_days) if config.expires_after_days else None
    issued = issuer.issue(
        id_=work.id, kind=config.credential_type, subject=inputs, issued_at=work.started_at, lifetime=lifetime
    )
    return Done(outputs={"id": issued.id, "credential": issued.jwt})
