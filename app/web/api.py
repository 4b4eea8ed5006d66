"""The API's root: its routers, and how its errors become problem documents."""

from functools import cached_property
from typing import Any

import structlog
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import HttpError, ValidationError
from ninja.openapi.schema import OpenAPISchema

from app.cloud.storage import FAILURES, missing_permission
from app.settings import env
from app.validations.api import router as validations
from app.validations.engines.pool import Busy
from app.validations.engines.results import Refused
from app.web import openapi
from app.web.problems import FieldError, Problem, of_status
from app.webhooks.api import router as webhooks
from app.workflows.api import router as workflows

log = structlog.get_logger(__name__)


class Api(NinjaAPI):
    @cached_property
    def _document(self) -> OpenAPISchema:
        document = super().get_openapi_schema()
        openapi.complete(document)
        return document

    def get_openapi_schema(self, **_: Any) -> OpenAPISchema:
        # The operations stay what they are, and describing them takes longer than most of them.
        return self._document


api = Api(
    title="Validibot",
    version="1",
    description=f"Validates files. Region {env.data_region.value}: {env.public_host}.",
    servers=[{"url": "/"}],  # the host that serves the document
    openapi_url="/openapi.json",
    docs_url="/docs",
)
api.add_router("/validations", validations, tags=["validations"])
api.add_router("/webhooks", webhooks, tags=["webhooks"])
api.add_router("/workflows", workflows, tags=["workflows"])


@api.exception_handler(Problem)
def problem(request: HttpRequest, error: Problem) -> HttpResponse:
    return error.response(request)


@api.exception_handler(Refused)
def refused(request: HttpRequest, error: Refused) -> HttpResponse:
    return Problem.of_refusal(error).response(request)


@api.exception_handler(ValidationError)
def invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    errors = [
        FieldError(
            field=".".join(str(step) for step in item["loc"][1:]) or str(item["loc"][0]),
            message=str(item["msg"]).removeprefix("Value error, "),
            remedy="see /api/docs for what the field takes",
        )
        for item in error.errors
    ]
    detail = "; ".join(f"{e.field}: {e.message}" for e in errors)
    return Problem("invalid-request", "The request is not valid", status=422, detail=detail, errors=errors).response(
        request
    )


@api.exception_handler(Http404)
def not_found(request: HttpRequest, error: Http404) -> HttpResponse:
    return of_status(404).response(request)


@api.exception_handler(HttpError)
def http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
    return of_status(error.status_code).response(request)


@api.exception_handler(Busy)
def busy(request: HttpRequest, error: Busy) -> HttpResponse:
    return _unavailable("busy", "Every validator is at work", str(error)).response(request)


@api.exception_handler(OperationalError)
@api.exception_handler(InterfaceError)
def no_database(request: HttpRequest, error: Exception) -> HttpResponse:
    log.error("the database failed", reason=str(error)[:500])
    return _unavailable("database-unavailable", "The database does not answer", "try again shortly").response(request)


def storage_failed(request: HttpRequest, error: Exception) -> HttpResponse:
    permission = missing_permission(error)
    log.error("the bucket refused or failed", reason=str(error)[:1000], permission=permission)
    detail = (
        f"the application lacks the permission {permission} in the region's storage; the operator can see this too"
        if permission
        else "the region's storage does not answer"
    )
    return _unavailable("storage-unavailable", "The submission could not be stored", detail).response(request)


for failure in FAILURES:
    api.exception_handler(failure)(storage_failed)


@api.exception_handler(Exception)
def unexpected(request: HttpRequest, error: Exception) -> HttpResponse:
    log.exception("an API operation failed", exc_info=error)
    if env.sentry_dsn:
        import sentry_sdk

        sentry_sdk.capture_exception(error)
    return of_status(500).response(request)


def _unavailable(code: str, title: str, detail: str) -> Problem:
    return Problem(code, title, status=503, detail=detail, headers={"Retry-After": "5"})
