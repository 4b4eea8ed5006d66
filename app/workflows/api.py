"""`/api/workflows`: define, look at, run, watch, cancel, replay."""

import hashlib
import json
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.db.models import Max
from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone
from ninja import Field, Query, Router, Schema, Status

from app.idempotency import keys as idempotency
from app.ids import first_id_of
from app.organizations.models import ApiKey, Scope
from app.settings import env
from app.validations.openapi import IDEMPOTENCY_KEY
from app.web import etags, json_bodies
from app.web.auth import ApiKeyAuth
from app.web.json_bodies import schema_of
from app.web.problems import FieldError, Problem, ProblemDocument
from app.workflows import requests, runs, versions
from app.workflows.definitions import Definition, StepType
from app.workflows.engine import RunState, StepState
from app.workflows.models import WorkflowDefinition, WorkflowRun, WorkflowStepRun, WorkflowVersion
from app.workflows.requests import NewReplay, NewRun, NewWorkflow

router = Router()
_PROBLEMS: dict[int | frozenset[int], type[Schema] | Any] = {frozenset({401, 403, 429, 503}): ProblemDocument}
_BODY_PROBLEMS: dict[int | frozenset[int], type[Schema] | Any] = {
    frozenset({400, 409, 413, 415, 422}): ProblemDocument,
    **_PROBLEMS,
}
_POLL_SECONDS: Final = 2
_POLL_SECONDS_WHILE_WAITING: Final = 15


class WorkflowOut(Schema):
    id: UUID
    url: str
    name: str
    version: int = Field(description="The newest one.")
    created_at: datetime


class WorkflowsOut(Schema):
    items: list[WorkflowOut]
    next_cursor: UUID | None


class VersionOut(Schema):
    workflow: UUID
    name: str
    url: str
    version: int
    sha256: str = Field(description="Of the steps; equal definitions have equal hashes.")
    created_at: datetime


class VersionWithStepsOut(VersionOut):
    steps: list[dict[str, Any]] = Field(description="As they were sent, with every default. Secrets are masked.")


class VersionsOut(Schema):
    items: list[VersionOut]


class RunOut(Schema):
    id: UUID
    url: str
    workflow: UUID
    version: int
    state: RunState
    replay_of: UUID | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class StepRunOut(Schema):
    key: str
    type: StepType
    depends_on: list[str]
    state: StepState
    attempt: int = Field(description="From 1.")
    retry_at: datetime | None = Field(description="When the next attempt begins; null unless one is to come.")
    outputs: dict[str, Any] | None
    problem: dict[str, Any] | None = Field(description="Why the last attempt failed, or why the step was skipped.")
    is_copied: bool = Field(description="Taken over from the run that this one replays.")
    started_at: datetime | None
    finished_at: datetime | None


class RunWithStepsOut(RunOut):
    steps: list[StepRunOut]


class RunsOut(Schema):
    items: list[RunOut]
    next_cursor: UUID | None


class PageQuery(Schema):
    limit: int = Field(50, ge=1, le=200)
    cursor: UUID | None = Field(None, description="`next_cursor` of the page before.")


class RunsQuery(PageQuery):
    state: RunState | None = None


_EXAMPLE: Final = {
    "name": "orders",
    "steps": [
        {
            "key": "check",
            "type": "VALIDATOR",
            "inputs": {"document": {"ref": "/inputs/order"}},
            "config": {"validator": "json-schema", "schema": {"type": "object", "required": ["id"]}},
        },
        {
            "key": "credential",
            "type": "ACTION",
            "depends_on": ["check"],
            "inputs": {"order": {"ref": "/inputs/order/id"}, "verdict": {"ref": "/steps/check/outputs/verdict"}},
            "config": {"action": "CREDENTIAL"},
        },
    ],
}


@router.post(
    "",
    auth=ApiKeyAuth(Scope.WORKFLOWS_WRITE),
    response={201: VersionWithStepsOut} | _BODY_PROBLEMS,
    openapi_extra=schema_of(NewWorkflow, _EXAMPLE) | {"parameters": [IDEMPOTENCY_KEY]},
    summary="Define a workflow",
)
def create(request: HttpRequest, response: HttpResponse) -> Status[dict[str, Any]]:
    """The steps are checked as a graph: a cycle, an unknown step, a bad condition are refused by name."""
    key = _key(request)
    body = json_bodies.read(request)
    with idempotency.once(request, key.organization_id, body) as slot:
        if slot.is_replay:
            version = WorkflowVersion.objects.select_related("workflow").get(workflow=UUID(slot.resource_id), number=1)
            response.headers["Idempotency-Replayed"] = "true"
        else:
            new = json_bodies.parsed(request, body, NewWorkflow)
            requests.refuse_unsound(new.definition, key.organization_id)
            try:
                with transaction.atomic():
                    version = versions.create(key, new.name, new.definition)
                    slot.complete(201, str(version.workflow_id))
            except versions.NameTaken:
                raise _name_taken(new.name) from None
    response.headers["Location"] = _workflow_url(version.workflow_id)
    return Status(201, _with_steps(version))


@router.get(
    "",
    auth=ApiKeyAuth(Scope.WORKFLOWS_READ),
    response={200: WorkflowsOut, 422: ProblemDocument} | _PROBLEMS,
    summary="List workflows, newest first",
)
def index(request: HttpRequest, query: Query[PageQuery]) -> dict[str, Any]:
    workflows = WorkflowDefinition.objects.filter(organization=_key(request).organization_id)
    items, cursor = _page(workflows.annotate(newest=Max("versions__number")), query)
    return {
        "items": [
            {
                "id": workflow.id,
                "url": _workflow_url(workflow.id),
                "name": workflow.name,
                "version": workflow.newest,
                "created_at": workflow.created_at,
            }
            for workflow in items
        ],
        "next_cursor": cursor,
    }


@router.get(
    "/{uuid:workflow_id}",
    auth=ApiKeyAuth(Scope.WORKFLOWS_READ),
    response={200: VersionWithStepsOut, 404: ProblemDocument} | _PROBLEMS,
    summary="The newest version of a workflow",
)
def show(request: HttpRequest, workflow_id: UUID) -> dict[str, Any]:
    return _with_steps(_version(request, workflow_id))


@router.post(
    "/{uuid:workflow_id}/versions",
    auth=ApiKeyAuth(Scope.WORKFLOWS_WRITE),
    response={200: VersionWithStepsOut, 201: VersionWithStepsOut, 404: ProblemDocument} | _BODY_PROBLEMS,
    openapi_extra=schema_of(Definition, {"steps": _EXAMPLE["steps"]}),
    summary="Add a version to a workflow",
)
def add_version(request: HttpRequest, response: HttpResponse, workflow_id: UUID) -> Status[dict[str, Any]]:
    """Runs that have begun keep their version. Steps equal to those of the newest version add none: 200."""
    workflow = _workflow(request, workflow_id)
    definition = json_bodies.parsed(request, json_bodies.read(request), Definition)
    requests.refuse_unsound(definition, workflow.organization_id)
    version, is_new = versions.add(workflow, _key(request), definition)
    response.headers["Location"] = f"{_workflow_url(workflow_id)}/versions/{version.number}"
    return Status(201 if is_new else 200, _with_steps(version))


@router.get(
    "/{uuid:workflow_id}/versions",
    auth=ApiKeyAuth(Scope.WORKFLOWS_READ),
    response={200: VersionsOut, 404: ProblemDocument} | _PROBLEMS,
    summary="The versions of a workflow, newest first",
)
def list_versions(request: HttpRequest, workflow_id: UUID) -> dict[str, Any]:
    workflow = _workflow(request, workflow_id)
    newest = workflow.versions.select_related("workflow").order_by("-number")[:200]
    return {"items": [_out_version(version) for version in newest]}


@router.get(
    "/{uuid:workflow_id}/versions/{int:number}",
    auth=ApiKeyAuth(Scope.WORKFLOWS_READ),
    response={200: VersionWithStepsOut, 404: ProblemDocument} | _PROBLEMS,
    summary="One version of a workflow",
)
def show_version(request: HttpRequest, workflow_id: UUID, number: int) -> dict[str, Any]:
    return _with_steps(_version(request, workflow_id, number))


@router.post(
    "/{uuid:workflow_id}/runs",
    auth=ApiKeyAuth(Scope.WORKFLOWS_WRITE),
    response={202: RunOut, 404: ProblemDocument} | _BODY_PROBLEMS,
    openapi_extra=schema_of(NewRun, {"inputs": {"order": {"id": 7}}}) | {"parameters": [IDEMPOTENCY_KEY]},
    summary="Start a run",
)
def start(request: HttpRequest, response: HttpResponse, workflow_id: UUID) -> Status[dict[str, Any]]:
    """Answers at once. Ask at `Location` until the state is SUCCESS, FAILED or CANCELLED."""
    key = _key(request)
    body = json_bodies.read(request)
    with idempotency.once(request, key.organization_id, body) as slot:
        if slot.is_replay:
            run = _run(request, workflow_id, UUID(slot.resource_id))
        else:
            new = json_bodies.parsed(request, body, NewRun)
            version = _version(request, workflow_id, new.version)
            _refuse_too_many(key)
            with transaction.atomic():
                run = runs.start(version, new.inputs, api_key=key)
                slot.complete(202, str(run.id))
    return _accepted(response, run, slot)


@router.get(
    "/{uuid:workflow_id}/runs",
    auth=ApiKeyAuth(Scope.WORKFLOWS_READ),
    response={200: RunsOut, frozenset({404, 422}): ProblemDocument} | _PROBLEMS,
    summary="List the runs of a workflow, newest first",
)
def list_runs(request: HttpRequest, workflow_id: UUID, query: Query[RunsQuery]) -> dict[str, Any]:
    workflow = _workflow(request, workflow_id)
    found = WorkflowRun.objects.filter(organization=workflow.organization_id, version__workflow=workflow)
    if query.state is not None:
        found = found.filter(state=query.state)
    items, cursor = _page(found.select_related("version").defer("inputs"), query)
    return {"items": [_out_run(run) for run in items], "next_cursor": cursor}


@router.get(
    "/{uuid:workflow_id}/runs/{uuid:run_id}",
    auth=ApiKeyAuth(Scope.WORKFLOWS_READ),
    response={200: RunWithStepsOut, 304: None, 404: ProblemDocument} | _PROBLEMS,
    summary="One run with its steps",
)
def show_run(request: HttpRequest, response: HttpResponse, workflow_id: UUID, run_id: UUID) -> Any:
    """`Retry-After` while it has not ended. With `If-None-Match`, 304 until something has changed."""
    run = _run(request, workflow_id, run_id)
    step_runs = list(run.steps.select_related("step").defer("step__settings"))
    out = _out_run(run) | {"steps": [_out_step(step_run) for step_run in step_runs]}
    tag = f'"{hashlib.sha256(json.dumps(out, default=str, sort_keys=True).encode()).hexdigest()[:32]}"'
    response.headers["ETag"] = tag
    response.headers["Cache-Control"] = "private, no-cache"
    if not run.is_final:
        is_waiting = all(step_run.is_finished or not step_run.is_dispatched for step_run in step_runs)
        seconds = _POLL_SECONDS_WHILE_WAITING if is_waiting and run.started_at else _POLL_SECONDS
        response.headers["Retry-After"] = str(seconds)
    if etags.is_known(request, tag):
        return Status(304, None)
    return out


@router.post(
    "/{uuid:workflow_id}/runs/{uuid:run_id}/cancel",
    auth=ApiKeyAuth(Scope.WORKFLOWS_WRITE),
    response={200: RunOut, frozenset({404, 409}): ProblemDocument} | _PROBLEMS,
    summary="Cancel a run that has not ended",
)
def cancel(request: HttpRequest, workflow_id: UUID, run_id: UUID) -> dict[str, Any]:
    """Nothing of it begins any more. A step at work is not interrupted: what it does outside cannot be taken back.

    Cancelling again is fine. A run that ended first stays as it is: 409.
    """
    run = runs.cancel(_run(request, workflow_id, run_id).id)
    if run.state != RunState.CANCELLED.value:
        raise Problem(
            "already-finished",
            "The run has ended",
            status=409,
            detail=f"it ended as {run.state} before it could be cancelled; its results stand",
        )
    return _out_run(run)


@router.post(
    "/{uuid:workflow_id}/runs/{uuid:run_id}/replay",
    auth=ApiKeyAuth(Scope.WORKFLOWS_WRITE),
    response={202: RunOut, 404: ProblemDocument} | _BODY_PROBLEMS,
    openapi_extra=schema_of(NewReplay, {"steps": ["credential"]}) | {"parameters": [IDEMPOTENCY_KEY]},
    summary="Run again what failed",
)
def replay(request: HttpRequest, response: HttpResponse, workflow_id: UUID, run_id: UUID) -> Status[dict[str, Any]]:
    """Makes a new run of the same version with the same inputs. What did not fail, and does not depend on what did, is
    taken over with its results and not run again.
    """
    key = _key(request)
    body = json_bodies.read(request)
    with idempotency.once(request, key.organization_id, body) as slot:
        if slot.is_replay:
            run = _run(request, workflow_id, UUID(slot.resource_id))
        else:
            asked = json_bodies.parsed(request, body, NewReplay)
            original = _run(request, workflow_id, run_id)
            _refuse_too_many(key)
            try:
                with transaction.atomic():
                    run = runs.replay(original, asked.steps, api_key=key)
                    slot.complete(202, str(run.id))
            except runs.NothingToReplay as nothing:
                raise Problem(
                    "nothing-to-replay", "There is nothing to run again", status=409, detail=str(nothing)
                ) from None
            except KeyError as unknown:
                raise _unknown_step(str(unknown.args[0])) from None
    return _accepted(response, run, slot)


def _key(request: HttpRequest) -> ApiKey:
    key: ApiKey = request.auth  # type: ignore[attr-defined]
    return key


def _page(rows: Any, query: PageQuery) -> tuple[list[Any], UUID | None]:
    if query.cursor is not None:
        rows = rows.filter(id__lt=query.cursor)
    page = list(rows.order_by("-id")[: query.limit + 1])
    items = page[: query.limit]
    return items, items[-1].id if len(page) > query.limit else None


# What belongs to another organisation is not forbidden but absent: its existence is no news to give.
def _workflow(request: HttpRequest, workflow_id: UUID) -> WorkflowDefinition:
    workflow = WorkflowDefinition.objects.filter(id=workflow_id, organization=_key(request).organization_id).first()
    if workflow is None:
        raise Http404
    return workflow


def _version(request: HttpRequest, workflow_id: UUID, number: int | None = None) -> WorkflowVersion:
    found = WorkflowVersion.objects.select_related("workflow").filter(
        workflow=workflow_id, workflow__organization=_key(request).organization_id
    )
    version = (found if number is None else found.filter(number=number)).order_by("-number").first()
    if version is None:
        raise Http404
    return version


def _run(request: HttpRequest, workflow_id: UUID, run_id: UUID) -> WorkflowRun:
    run = (
        WorkflowRun.objects.select_related("version__workflow")
        .filter(id=run_id, version__workflow=workflow_id, organization=_key(request).organization_id)
        .first()
    )
    if run is None:
        raise Http404
    return run


def _refuse_too_many(key: ApiKey) -> None:
    since = first_id_of(timezone.now() - timedelta(minutes=1))
    started = WorkflowRun.objects.filter(organization=key.organization_id, id__gte=since).count()
    if started >= env.runs_per_minute:
        raise Problem(
            "rate-limited",
            "The organisation has started its runs of this minute",
            status=429,
            detail=f"the limit is {env.runs_per_minute} runs per minute",
            headers={"Retry-After": "10"},
        )


def _name_taken(name: str) -> Problem:
    return Problem(
        "name-taken",
        "The organisation has a workflow of this name",
        status=409,
        detail=f"there is a workflow {name!r}",
        errors=[FieldError(field="name", message="is taken", remedy="choose another one, or add a version to it")],
    )


def _unknown_step(step: str) -> Problem:
    detail = f"the workflow has no step {step!r}"
    return Problem(
        "invalid-request",
        "The request is not valid",
        status=422,
        detail=detail,
        errors=[FieldError(field="steps", message=detail, remedy="name steps of this version of the workflow")],
    )


def _accepted(response: HttpResponse, run: WorkflowRun, slot: idempotency.Slot) -> Status[dict[str, Any]]:
    response.headers["Location"] = _run_url(run)
    response.headers["Retry-After"] = str(_POLL_SECONDS)
    if slot.is_replay:
        response.headers["Idempotency-Replayed"] = "true"
    return Status(202, _out_run(run))


def _workflow_url(workflow_id: UUID) -> str:
    return f"/api/workflows/{workflow_id}"


def _run_url(run: WorkflowRun) -> str:
    return f"{_workflow_url(run.version.workflow_id)}/runs/{run.id}"


def _out_version(version: WorkflowVersion) -> dict[str, Any]:
    return {
        "workflow": version.workflow_id,
        "name": version.workflow.name,
        "url": f"{_workflow_url(version.workflow_id)}/versions/{version.number}",
        "version": version.number,
        "sha256": version.sha256,
        "created_at": version.created_at,
    }


def _with_steps(version: WorkflowVersion) -> dict[str, Any]:
    return _out_version(version) | {"steps": [step.masked_document for step in version.steps.all()]}


def _out_run(run: WorkflowRun) -> dict[str, Any]:
    return {
        "id": run.id,
        "url": _run_url(run),
        "workflow": run.version.workflow_id,
        "version": run.version.number,
        "state": run.state,
        "replay_of": run.replay_of_id,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
    }


def _out_step(step_run: WorkflowStepRun) -> dict[str, Any]:
    return {
        "key": step_run.step.key,
        "type": step_run.step.type,
        "depends_on": step_run.step.depends_on,
        "state": step_run.state,
        "attempt": step_run.attempt,
        "retry_at": step_run.not_before if step_run.state == StepState.PENDING.value else None,
        "outputs": step_run.outputs,
        "problem": step_run.problem,
        "is_copied": step_run.copied_from_id is not None,
        "started_at": step_run.started_at,
        "finished_at": step_run.finished_at,
    }
