"""Request bodies of the workflow API. They are kept as JSON, so they are read here and not in a sandbox: strictly."""

import re
from collections.abc import Iterator
from typing import Any, Final, TypeVar

from django.http import HttpRequest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.settings import env
from app.validations.engines import strictjson
from app.validations.engines.results import Refused
from app.validations.sandbox import pool
from app.web import bodies
from app.web.problems import FieldError, Problem
from app.webhooks.models import WebhookEndpoint
from app.workflows import actions
from app.workflows.definitions import (
    Definition,
    DefinitionError,
    ErrorCode,
    Key,
    SlackConfig,
    WebhookConfig,
    errors_of,
)

MAX_REQUEST_BYTES: Final = 1024 * 1024
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


class NewWorkflow(Definition):
    name: str = Field(min_length=1, max_length=200, description="Unique in the organisation.")

    @property
    def definition(self) -> Definition:
        return Definition(steps=self.steps)


class NewRun(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    inputs: dict[str, Any] = Field({}, description="What steps refer to as /inputs/….")
    version: int | None = Field(None, ge=1, description="Default: the newest one.")


class NewReplay(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: list[Key] | None = Field(
        None, min_length=1, description="Run these again, and what depends on them. Default: what failed."
    )


M = TypeVar("M", bound=BaseModel)


def read(request: HttpRequest) -> bytes:
    return bodies.read(request, MAX_REQUEST_BYTES)


def parsed(request: HttpRequest, body: bytes, model: type[M]) -> M:
    """Raises: Problem, Refused."""
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and (body or kind):
        raise Refused(
            "unsupported-media-type",
            "The request is in another format",
            status=415,
            field="Content-Type",
            detail=f"the Content-Type is {kind[:100]!r}",
            remedy="send application/json",
        )
    try:
        value = strictjson.loads(strictjson.decode(body, "body"), "body") if body else {}
    except strictjson.SyntaxProblem as error:
        raise Refused(
            "malformed-request",
            "The request cannot be read",
            status=400,
            field="body",
            detail=f"the body is not JSON: line {error.line}, column {error.column}: {error.message}",
            remedy="send a JSON object",
        ) from None
    _refuse_unstorable(value)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _invalid(error) from None


def refuse_unsound(definition: Definition, organization_id: int) -> None:
    """Raises: Problem with the name and the place of everything that is wrong."""
    errors = [*errors_of(definition, _why_not_a_condition), *_errors_of_targets(definition, organization_id)]
    if errors:
        raise Problem(
            "invalid-workflow",
            "The workflow cannot run",
            status=422,
            detail="; ".join(error.message for error in errors)[:2000],
            errors=[
                FieldError(field=error.field, message=f"{error.code.value}: {error.message}", remedy=error.remedy)
                for error in errors
            ],
        )


def _errors_of_targets(definition: Definition, organization_id: int) -> Iterator[DefinitionError]:
    for index, step in enumerate(definition.steps):
        if isinstance(step.config, WebhookConfig):
            endpoints = WebhookEndpoint.objects.filter(organization=organization_id, is_active=True)
            if not endpoints.filter(id=step.config.endpoint).exists():
                yield DefinitionError(
                    code=ErrorCode.UNKNOWN_ENDPOINT,
                    field=f"steps[{index}].config.endpoint",
                    message=f"the organisation has no active webhook endpoint {step.config.endpoint}",
                    remedy="create the endpoint first",
                )
        elif isinstance(step.config, SlackConfig) and not actions.is_slack(step.config.webhook_url):
            yield DefinitionError(
                code=ErrorCode.BAD_SLACK_ADDRESS,
                field=f"steps[{index}].config.webhook_url",
                message="the address is not one of an incoming webhook of Slack",
                remedy=f"copy it from Slack: it begins with {env.slack_endpoint}/services/",
            )


def _why_not_a_condition(expression: str) -> str:
    try:
        return pool().why_not(expression, None)
    except Refused as refused:
        return refused.detail


def _refuse_unstorable(value: Any) -> None:
    """Postgres' JSON has neither the character NUL nor half of a surrogate pair."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack.extend(item)
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, str) and not item.isprintable() and _UNSTORABLE.search(item):
            raise Refused(
                "bad-encoding",
                "A text is not Unicode",
                field="body",
                detail="a text has the character NUL or half of a surrogate pair",
                remedy="leave the character out, or write the whole pair",
            )


def _invalid(error: ValidationError) -> Problem:
    errors = [
        FieldError(field=_place(item["loc"]), message=item["msg"], remedy="see /api/docs for what the field takes")
        for item in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    return Problem(
        "invalid-request",
        "The request is not valid",
        status=422,
        detail="; ".join(f"{e.field}: {e.message}" for e in errors)[:2000],
        errors=errors,
    )


# pydantic names the member of a union in the path; the author of a request has never heard of it.
_TAGS: Final = {"VALIDATOR", "ACTION", "SIMULATION", "WEBHOOK", "SLACK", "CREDENTIAL", "Ref", "Value"}


def _place(location: tuple[int | str, ...]) -> str:
    place = ""
    for step in location:
        if isinstance(step, int):
            place += f"[{step}]"
        elif step not in _TAGS:
            place += f".{step}" if place else step
    return place or "body"


def schema_of(model: type[BaseModel], example: Any) -> dict[str, Any]:
    """The request body for the OpenAPI document. `$id` makes the references in it its own."""
    schema = {"$id": f"https://validibot.com/schemas/{model.__name__}"} | model.model_json_schema()
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "examples": {"example": {"value": example}}}},
        }
    }
