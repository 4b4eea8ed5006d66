"""`/api/validations`: submit, look at one, list."""

import hashlib
from datetime import datetime
from typing import Any
from uuid import UUID

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone
from ninja import Field, Query, Router, Schema, Status

from app.organizations.models import ApiKey, Scope
from app.validations.engines.limits import MAX_BODY_BYTES
from app.validations.engines.pool import Outcome
from app.validations.engines.results import Severity, Validator
from app.validations.models import Finding, State, ValidationJob, Verdict, time_ordered_id
from app.validations.openapi import SUBMISSION
from app.validations.sandbox import pool
from app.web import bodies
from app.web.auth import ApiKeyAuth
from app.web.problems import ProblemDocument

router = Router()
_PROBLEMS: dict[int | frozenset[int], type[Schema] | Any] = {
    frozenset({401, 403, 429, 503}): ProblemDocument,
}


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
    created_at: datetime
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
    verdict: Verdict | None = None


@router.post(
    "",
    auth=ApiKeyAuth(Scope.WRITE),
    response={201: JobWithFindingsOut, frozenset({400, 413, 415, 422}): ProblemDocument} | _PROBLEMS,
    openapi_extra={"requestBody": SUBMISSION},
    summary="Validate a document",
)
def submit(request: HttpRequest, response: HttpResponse) -> Status[dict[str, Any]]:
    """Validates a document of up to 10 MiB while you wait.

    A document that breaks its schema or rules is a result: 201 with the verdict FAIL. A submission that cannot be
    validated (malformed, hostile, too expensive) is refused with a problem document, and nothing is stored.
    """
    key: ApiKey = request.auth  # type: ignore[attr-defined]
    started_at = timezone.now()
    body = bodies.read(request, MAX_BODY_BYTES)
    content_type = request.headers.get("Content-Type", "")[:255]
    outcome = pool().run(body, content_type)
    job, findings = _finished(key, body, content_type, outcome, started_at)
    # The object first: a row that names an object must find it. An object that no row names harms nobody.
    default_storage.save(job.media_name, ContentFile(body))
    with transaction.atomic():
        job.save(force_insert=True)
        Finding.objects.bulk_create(findings)
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
    if query.verdict is not None:
        jobs = jobs.filter(verdict=query.verdict)
    page = list(jobs.order_by("-id")[: query.limit + 1])
    items = page[: query.limit]
    return {"items": [_out(job) for job in items], "next_cursor": items[-1].id if len(page) > query.limit else None}


@router.get(
    "/{uuid:job_id}",
    auth=ApiKeyAuth(Scope.READ),
    response={200: JobWithFindingsOut, 404: ProblemDocument} | _PROBLEMS,
    summary="One validation with its findings",
)
def show(request: HttpRequest, job_id: UUID) -> dict[str, Any]:
    key: ApiKey = request.auth  # type: ignore[attr-defined]
    # Another organisation's job is not forbidden but absent: its existence is no news to give.
    job = ValidationJob.objects.filter(id=job_id, organization=key.organization_id).first()
    if job is None:
        raise Http404
    return _with_findings(job, list(job.findings.all()))


def _finished(
    key: ApiKey, body: bytes, content_type: str, outcome: Outcome, started_at: datetime
) -> tuple[ValidationJob, list[Finding]]:
    job_id = time_ordered_id()
    counts = {severity: sum(f["severity"] == severity.value for f in outcome.findings) for severity in Severity}
    job = ValidationJob(
        id=job_id,
        organization_id=key.organization_id,
        api_key=key,
        validator=outcome.validator,
        state=State.SUCCESS,
        verdict=Verdict.FAIL if counts[Severity.ERROR] else Verdict.PASS,
        filename=outcome.filename,
        media_name=f"submissions/{key.organization_id}/{started_at:%Y/%m/%d}/{job_id}",
        content_type=content_type,
        content_bytes=len(body),
        content_sha256=hashlib.sha256(body).hexdigest(),
        errors=counts[Severity.ERROR],
        warnings=counts[Severity.WARNING],
        infos=counts[Severity.INFO],
        findings_truncated=outcome.is_truncated,
        created_at=started_at,
        started_at=started_at,
        finished_at=timezone.now(),
    )
    return job, [Finding(job=job, position=at, **finding) for at, finding in enumerate(outcome.findings)]


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
        "created_at": job.created_at,
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
