"""What the workflow API takes, and what makes a definition unsound that pydantic lets pass."""

import time
from collections.abc import Iterator
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from app.settings import env
from app.validations.engines.results import Refused, Validator
from app.validations.sandbox import pool
from app.web.problems import FieldError, Problem
from app.webhooks.models import WebhookEndpoint
from app.workflows import actions, work
from app.workflows.definitions import (
    Definition,
    DefinitionError,
    ErrorCode,
    Key,
    SlackConfig,
    ValidatorStep,
    WebhookConfig,
    errors_of,
)

# Schemas can take seconds to refuse, and the author waits. Those that are left are looked at when their steps run.
_PATIENCE_SECONDS: Final = 10.0


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


def refuse_unsound(definition: Definition, organization_id: int) -> None:
    """Raises: Problem with the name and the place of everything that is wrong."""
    errors = [
        *errors_of(definition, _why_not_a_condition),
        *_errors_of_targets(definition, organization_id),
        *_errors_of_validators(definition),
    ]
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


def _errors_of_validators(definition: Definition) -> Iterator[DefinitionError]:
    """Schemas and rules that would be refused in every run, with a document that nobody looks at."""
    ends = time.monotonic() + _PATIENCE_SECONDS
    for index, step in enumerate(definition.steps):
        if not isinstance(step, ValidatorStep) or time.monotonic() > ends:
            continue
        try:
            work.validated(step.config, "<a/>" if step.config.validator is Validator.XML_SCHEMA else None)
        except Refused as refused:
            # Whether a rule can be evaluated depends on the document.
            if refused.field.startswith(("schema", "rules")) and refused.code != "not-evaluable":
                yield DefinitionError(
                    code=ErrorCode.BAD_VALIDATOR,
                    field=f"steps[{index}].config.{refused.field}",
                    message=f"step {step.key!r}: {refused.detail}",
                    remedy=refused.remedy,
                )


def _why_not_a_condition(expression: str) -> str:
    try:
        return pool().why_not(expression, None)
    except Refused as refused:
        return refused.detail
