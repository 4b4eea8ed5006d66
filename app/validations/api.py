"""`/api/validations`: submit, look at one, list, cancel."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone
from ninja import Field, Query, Router, Schema, Status

from app.idempotency import keys as idempotency
from app.organizations.models import ApiKey, Scope
from app.settings import env
from app.validations import results, submissions
from app.validations.engines.limits import MAX_BODY_BYTES
from app.validations.engines.results import Severity, Validator
from app.validations.models import Finding, State, ValidationJob, Verdict, first_id_of
from app.validations.openapi import IDEMPOTENCY_KEY, PREFER, SUBMISSION
from app.web import bodies, etags
from app.web.auth import ApiKeyAuth
from app.web.moments import Moment
from app.web.problems import Problem, ProblemDocument

router = Router()
_PROBLEMS: dict[int | frozenset[int], type[Schema] | Any] = {
    frozenset({401, 403, 429, 503}): ProblemDocument,
}
# What a client that polls should wait. Most jobs are done within a second of being begun.
_POLL_SECONDS: Final = 2


class Mode(StrEnum):
    AUTO = "auto"
    SYNC = "sync"
    ASYNC = "async"


class FindingOut(Schema):
    severity: Severity
    code: str
    path: str = Field(description="JSON Pointer or XPath of the place; empty for the whole document.")
    line: int | None = Field(description="From 1; null when unknown.")
    column: int | None = Field(description="From 1; null when unknown.")
    message: str


class JobOut(Schema):
    id: UUID
    url: str
    validator: Validator
    state: State
    verdict: Verdict | None = Field(description="Null until the state is SUCCESS. FAIL: at least one ERROR.")
    filename: str
    errors: int
    warnings: int
    infos: int
    problem: dict[str, Any] | None = Field(description="Why a FAILED validation failed: code, title, detail, remedy.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class JobWithFindingsOut(JobOut):
    findings: list[FindingOut]
    findings_truncated: bool = Field(description="True when there were more than 1000 findings.")


class JobsOut(Schema):
    items: list[JobOut]
    next_cursor: UUID | None = Field(description="Pass as `cursor` for the next page; null on the last one.")


class JobsQuery(Schema):
    limit: int = Field(50, ge=1, le=200)
    cursor: UUID | None = Field(None, description="`next_cursor` of the page before.")
    state: State | None = None
    verdict: Verdict | None = None
    validator: Validator | None = None
    created_from: Moment | None = Field(None, description="Created then or later, RFC 3339 with an offset.")
    created_before: Moment | None = Field(None, description="Created before.")


class SubmitQuery(Schema):
    mode: Mode = Field(
        Mode.AUTO,
        description="`sync` answers when the validation is done, `async` at once, `auto` decides by the size. "
        "The header `Prefer: respond-async` asks for `async`, too.",
    )


@router.post(
    "",
    auth=ApiKeyAuth(Scope.WRITE),
    response={
        201: JobWithFindingsOut,
        202: JobOut,
        frozenset({400, 409, 413, 415, 422}): ProblemDocument,
    }
    | _PROBLEMS,
    openapi_extra={"requestBody": SUBMISSION, "parameters": [IDEMPOTENCY_KEY, PREFER]},
    summary="Validate a document",
)
def submit(request: HttpRequest, response: HttpResponse, query: Query[SubmitQuery]) -> Status[dict[str, Any]]:
    """Validates a document of up to 10 MiB: while you wait (201), or later (202).

    Larger submissions are validated later, unless `mode=sync` asks otherwise; any is, if you ask for it. The answer
    202 names the job in `Location`: ask there until its state is final, or have a webhook tell you.

    A document that breaks its schema or rules is a result: the verdict is FAIL. A submission that cannot be read is
    refused with a problem document, and nothing is stored.
    """
    key: ApiKey = request.auth  # type: ignore[attr-defined]
    started_at = timezone.now()
    body = bodies.read(request, MAX_BODY_BYTES)
    content_type = request.headers.get("Content-Type", "")[:255]
    with idempotency.once(request, key.organization_id, body) as slot:
        if slot.is_replay:
            return _replayed(slot, response)
        is_asked = _asks_for_later(request)
        if _is_asynchronous(query.mode, is_asked=is_asked, size=len(body)):
            job = submissions.accept(key, body, content_type, started_at, slot)
            response.headers["Location"] = _url(job)
            response.headers["Retry-After"] = str(_POLL_SECONDS)
            if is_asked:
                response.headers["Preference-Applied"] = "respond-async"
            return Status(202, _out(job))
        job, findings = submissions.validate(key, body, content_type, started_at, slot)
    response.headers["Location"] = _url(job)
    return Status(201, _with_findings(job, findings))


@router.get(
    "",
    auth=ApiKeyAuth(Scope.READ),
    response={200: JobsOut, 422: ProblemDocument} | _PROBLEMS,
    summary="List validations, newest first",
)
def index(request: HttpRequest, query: Query[JobsQuery]) -> dict[str, Any]:
    key: ApiKey = request.auth  # type: ignore[attr-defined]
    jobs = ValidationJob.objects.filter(organization=key.organization_id)
    if query.cursor is not None:
        jobs = jobs.filter(id__lt=query.cursor)
    # An id begins with its time: both bounds are ranges of the index that the list is read from.
    if query.created_from is not None:
        jobs = jobs.filter(id__gte=first_id_of(query.created_from))
    if query.created_before is not None:
        jobs = jobs.filter(id__lt=first_id_of(query.created_before))
    if query.verdict is not None:
        jobs = jobs.filter(state=State.SUCCESS, verdict=query.verdict)
    if query.state is not None:
        jobs = jobs.filter(state=query.state)
    if query.validator is not None:
        jobs = jobs.filter(validator=query.validator)
    page = list(jobs.order_by("-id")[: query.limit + 1])
    items = page[: query.limit]
    return {"items": [_out(job) for job in items], "next_cursor": items[-1].id if len(page) > query.limit else None}


@router.get(
    "/{uuid:job_id}",
    auth=ApiKeyAuth(Scope.READ),
    response={200: JobWithFindingsOut, 304: None, 404: ProblemDocument} | _PROBLEMS,
    summary="One validation with its findings",
)
def show(request: HttpRequest, response: HttpResponse, job_id: UUID) -> Any:
    """`Retry-After` while it is not finished. With `If-None-Match`, 304 until something has changed."""
    job = _own(request, job_id)
    tag = f'"{job.state.lower()}-{job.generation}-{job.attempts}"'
    response.headers["ETag"] = tag
    response.headers["Cache-Control"] = "private, no-cache"
    if not job.is_finished:
        response.headers["Retry-After"] = str(_POLL_SECONDS)
    if etags.is_known(request, tag):
        return Status(304, None)
    return _with_findings(job, list(job.findings.all()))


@router.post(
    "/{uuid:job_id}/cancel",
    auth=ApiKeyAuth(Scope.WRITE),
    response={200: JobOut, frozenset({404, 409}): ProblemDocument} | _PROBLEMS,
    summary="Cancel a validation that is not finished",
)
def cancel(request: HttpRequest, job_id: UUID) -> dict[str, Any]:
    """Cancelling again is fine. A job that finished first stays as it is: 409."""
    job = _own(request, job_id)
    if not results.cancel(job):
        raise Problem(
            "already-finished",
            "The validation is finished",
            status=409,
            detail="it was finished before it could be cancelled; its result stands",
        )
    job.refresh_from_db()
    return _out(job)


def _asks_for_later(request: HttpRequest) -> bool:
    """`Prefer: respond-async` (RFC 7240), beside whatever else is preferred."""
    preferences = request.headers.get("Prefer", "").lower().split(",")
    return "respond-async" in {preference.partition(";")[0].strip() for preference in preferences}


def _is_asynchronous(mode: Mode, *, is_asked: bool, size: int) -> bool:
    if mode is Mode.AUTO:
        return is_asked or size > env.sync_max_bytes
    return mode is Mode.ASYNC


def _replayed(slot: idempotency.Slot, response: HttpResponse) -> Status[dict[str, Any]]:
    job = ValidationJob.objects.get(pk=slot.resource_id)
    response.headers["Location"] = _url(job)
    response.headers["Idempotency-Replayed"] = "true"
    if slot.status == 202:
        response.headers["Retry-After"] = str(_POLL_SECONDS)
        return Status(202, _out(job))
    return Status(201, _with_findings(job, list(job.findings.all())))


def _own(request: HttpRequest, job_id: UUID) -> ValidationJob:
    key: ApiKey = request.auth  # type: ignore[attr-defined]
    # Another organisation's job is not forbidden but absent: its existence is no news to give.
    job = ValidationJob.objects.filter(id=job_id, organization=key.organization_id).first()
    if job is None:
        raise Http404
    return job


def _url(job: ValidationJob) -> str:
    return f"/api/validations/{job.id}"


def _out(job: ValidationJob) -> dict[str, Any]:
    return {
        "id": job.id,
        "url": _url(job),
        "validator": job.validator,
        "state": job.state,
        "verdict": job.verdict or None,
        "filename": job.filename,
        "errors": job.errors,
        "warnings": job.warnings,
        "infos": job.infos,
        "problem": job.problem,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
    }


def _with_findings(job: ValidationJob, findings: list[Finding]) -> dict[str, Any]:
    shown = [
        {
            "severity": finding.severity,
            "code": finding.code,
            "path": finding.path,
            "line": finding.line,
            "column": finding.column,
            "message": finding.message,
        }
        for finding in findings
    ]
    return _out(job) | {"findings": shown, "findings_truncated": job.findings_truncated}
