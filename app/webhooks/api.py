"""`/api/webhooks`: where an organisation wants to be told, and how its messages fared."""

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone
from ninja import Field, Query, Router, Schema, Status
from pydantic import BaseModel, ConfigDict, field_validator

from app.idempotency import keys as idempotency
from app.organizations.models import ApiKey, Organization, Scope
from app.tasking import occurrence
from app.validations.openapi import IDEMPOTENCY_KEY
from app.web import json_bodies
from app.web.auth import ApiKeyAuth
from app.web.problems import FieldError, Problem, ProblemDocument
from app.webhooks import sending
from app.webhooks.models import EVENTS, DeliveryState, Event, WebhookDelivery, WebhookEndpoint
from app.webhooks.signing import new_secret
from app.webhooks.tasks import deliver_webhook, reopen

router = Router()
MAX_ENDPOINTS: Final = 10
ROTATION: Final = timedelta(hours=24)
_PROBLEMS: dict[int | frozenset[int], type[Schema] | Any] = {frozenset({401, 403, 429, 503}): ProblemDocument}


class EndpointIn(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(max_length=2000, description="https, on the internet.")
    description: str = Field("", max_length=200)
    events: list[Event] = Field(list(EVENTS), min_length=1, description="What it is told of.")

    @field_validator("events")
    @classmethod
    def _once_each(cls, events: list[Event]) -> list[Event]:
        return sorted(set(events))


class EndpointOut(Schema):
    id: UUID
    url: str
    description: str
    events: list[str]
    is_active: bool
    created_at: datetime


class EndpointWithSecretOut(EndpointOut):
    secret: str = Field(description="Shown this once. Check `webhook-signature` with it.")


class EndpointsOut(Schema):
    items: list[EndpointOut]


class DeliveryOut(Schema):
    id: UUID
    event: str
    message_id: str = Field(description="The header `webhook-id`.")
    state: DeliveryState
    attempts: int
    last_status: int | None
    last_error: str
    created_at: datetime
    finished_at: datetime | None


class DeliveriesOut(Schema):
    items: list[DeliveryOut]
    next_cursor: UUID | None


class DeliveriesQuery(Schema):
    limit: int = Field(50, ge=1, le=200)
    cursor: UUID | None = None
    state: DeliveryState | None = None


@router.post(
    "",
    auth=ApiKeyAuth(Scope.WRITE),
    response={201: EndpointWithSecretOut, frozenset({400, 404, 409, 413, 415, 422}): ProblemDocument} | _PROBLEMS,
    openapi_extra=json_bodies.schema_of(EndpointIn, {"url": "https://example.com/validibot"})
    | {"parameters": [IDEMPOTENCY_KEY]},
    summary="Create a webhook endpoint",
)
def create(request: HttpRequest, response: HttpResponse) -> Status[WebhookEndpoint]:
    """The answer holds the secret, which is not shown again, unless the same request comes again."""
    key: ApiKey = request.auth  # type: ignore[attr-defined]
    body = json_bodies.read(request)
    with idempotency.once(request, key.organization_id, body) as slot:
        if slot.is_replay:
            made = _own(request, UUID(slot.resource_id))
            response.headers["Idempotency-Replayed"] = "true"
        else:
            endpoint = json_bodies.parsed(request, body, EndpointIn)
            _refuse_elsewhere(endpoint.url)
            with transaction.atomic():
                made = _create(key.organization_id, endpoint)
                slot.complete(201, str(made.id))
    response.headers["Location"] = f"/api/webhooks/{made.id}"
    return Status(201, made)


def _refuse_elsewhere(url: str) -> None:
    try:
        sending.checked(url)
    except sending.NotAllowed as error:
        raise Problem(
            "webhook-url",
            "The address cannot be a webhook endpoint",
            status=422,
            detail=str(error),
            errors=[FieldError(field="url", message=str(error), remedy="use an https address on the internet")],
        ) from None


def _create(organization_id: int, endpoint: EndpointIn) -> WebhookEndpoint:
    # The lock makes the count true: two requests at once would each find a place.
    Organization.objects.select_for_update().get(pk=organization_id)
    if WebhookEndpoint.objects.filter(organization=organization_id).count() >= MAX_ENDPOINTS:
        raise Problem(
            "too-many-endpoints",
            "There are too many webhook endpoints",
            status=409,
            detail=f"an organisation has at most {MAX_ENDPOINTS}: delete one first",
        )
    return WebhookEndpoint.objects.create(organization_id=organization_id, **endpoint.model_dump())


@router.get("", auth=ApiKeyAuth(Scope.READ), response={200: EndpointsOut} | _PROBLEMS, summary="List the endpoints")
def index(request: HttpRequest) -> dict[str, Any]:
    key: ApiKey = request.auth  # type: ignore[attr-defined]
    return {"items": list(WebhookEndpoint.objects.filter(organization=key.organization_id))}


@router.get(
    "/{uuid:endpoint_id}",
    auth=ApiKeyAuth(Scope.READ),
    response={200: EndpointOut, 404: ProblemDocument} | _PROBLEMS,
    summary="One endpoint",
)
def show(request: HttpRequest, endpoint_id: UUID) -> WebhookEndpoint:
    return _own(request, endpoint_id)


@router.delete(
    "/{uuid:endpoint_id}",
    auth=ApiKeyAuth(Scope.WRITE),
    response={204: None, 404: ProblemDocument} | _PROBLEMS,
    summary="Delete an endpoint and its messages",
)
def delete(request: HttpRequest, endpoint_id: UUID) -> Status[None]:
    _own(request, endpoint_id).delete()
    return Status(204, None)


@router.post(
    "/{uuid:endpoint_id}/rotate-secret",
    auth=ApiKeyAuth(Scope.WRITE),
    response={200: EndpointWithSecretOut, 404: ProblemDocument} | _PROBLEMS,
    summary="Replace the secret",
)
def rotate_secret(request: HttpRequest, endpoint_id: UUID) -> WebhookEndpoint:
    """For 24 hours, messages carry a signature of the old secret, too."""
    with transaction.atomic():
        # Of two rotations at once, the second one keeps the secret that the first one has just answered.
        endpoint = _own(request, endpoint_id, WebhookEndpoint.objects.select_for_update())
        endpoint.previous_secret, endpoint.secret = endpoint.secret, new_secret()
        endpoint.previous_secret_until = timezone.now() + ROTATION
        endpoint.save(update_fields=["secret", "previous_secret", "previous_secret_until"])
    return endpoint


@router.get(
    "/{uuid:endpoint_id}/deliveries",
    auth=ApiKeyAuth(Scope.READ),
    response={200: DeliveriesOut, frozenset({404, 422}): ProblemDocument} | _PROBLEMS,
    summary="Messages to an endpoint, newest first",
)
def deliveries(request: HttpRequest, endpoint_id: UUID, query: Query[DeliveriesQuery]) -> dict[str, Any]:
    """Messages are kept for 30 days."""
    found = WebhookDelivery.objects.filter(endpoint=_own(request, endpoint_id))
    if query.cursor is not None:
        found = found.filter(id__lt=query.cursor)
    if query.state is not None:
        found = found.filter(state=query.state)
    page = list(found.order_by("-id")[: query.limit + 1])
    items = page[: query.limit]
    return {"items": items, "next_cursor": items[-1].id if len(page) > query.limit else None}


@router.post(
    "/{uuid:endpoint_id}/deliveries/{uuid:delivery_id}/redeliver",
    auth=ApiKeyAuth(Scope.WRITE),
    response={202: DeliveryOut, frozenset({404, 409}): ProblemDocument} | _PROBLEMS,
    summary="Send a failed message again",
)
def redeliver(request: HttpRequest, endpoint_id: UUID, delivery_id: UUID) -> Status[WebhookDelivery]:
    endpoint = _own(request, endpoint_id)
    with transaction.atomic():
        row = WebhookDelivery.objects.select_for_update().filter(pk=delivery_id, endpoint=endpoint).first()
        if row is None:
            raise Http404
        if row.state != DeliveryState.FAILED:
            raise Problem(
                "not-failed",
                "The message has not failed",
                status=409,
                detail=f"the message is {row.state}: only a FAILED one is sent again",
            )
        occurrence(deliver_webhook, reopen(str(row.id))).enqueue(str(row.id))
    row.refresh_from_db()
    return Status(202, row)


def _own(request: HttpRequest, endpoint_id: UUID, among: QuerySet[WebhookEndpoint] | None = None) -> WebhookEndpoint:
    key: ApiKey = request.auth  # type: ignore[attr-defined]
    endpoints = WebhookEndpoint.objects.all() if among is None else among
    endpoint = endpoints.filter(pk=endpoint_id, organization=key.organization_id).first()
    if endpoint is None:
        raise Http404
    return endpoint
