"""Problem documents (RFC 9457): what is wrong, where, and what to do. Every error of the API is one."""

import json
from typing import Any, Final

import structlog
from django.http import HttpRequest, HttpResponse
from pydantic import BaseModel, Field

from app.validations.engines.results import Refused

CONTENT_TYPE: Final = "application/problem+json"
_TYPES: Final = "https://validibot.com/problems/"


class FieldError(BaseModel):
    field: str = Field(description="The field, header or place in the submission, such as `rules[0].expression`.")
    message: str
    remedy: str


class ProblemDocument(BaseModel):
    """RFC 9457. `type` is stable and documented; `detail` is for people."""

    type: str
    title: str
    status: int
    detail: str
    instance: str = Field(description="The path that was asked.")
    errors: list[FieldError] = []
    trace: str = Field("", description="Quote this to support.")


class Problem(Exception):
    """Raised anywhere below the API; answered as a problem document."""

    def __init__(
        self,
        code: str,
        title: str,
        *,
        status: int,
        detail: str,
        errors: list[FieldError] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code, self.title, self.status, self.detail = code, title, status, detail
        self.errors, self.headers = errors or [], headers or {}

    @classmethod
    def of_refusal(cls, refused: Refused) -> "Problem":
        error = FieldError(field=refused.field, message=refused.detail, remedy=refused.remedy)
        return cls(refused.code, refused.title, status=refused.status, detail=refused.detail, errors=[error])

    def response(self, request: HttpRequest) -> HttpResponse:
        document: dict[str, Any] = ProblemDocument(
            type=_TYPES + self.code,
            title=self.title,
            status=self.status,
            detail=self.detail,
            instance=request.path,
            errors=self.errors,
            trace=str(structlog.contextvars.get_contextvars().get("trace_id", "")),
        ).model_dump()
        return HttpResponse(
            json.dumps(document, ensure_ascii=False),
            status=self.status,
            content_type=CONTENT_TYPE,
            headers=self.headers,
        )


_PLAIN: Final = {
    400: ("bad-request", "The request is not valid"),
    403: ("forbidden", "The request is refused"),
    404: ("not-found", "There is nothing here"),
    405: ("method-not-allowed", "The method is not allowed here"),
}


def of_status(status: int, headers: dict[str, str] | None = None) -> Problem:
    """The problem document of an error that Django or ninja answered in a format of its own."""
    code, title = _PLAIN.get(status, ("internal-error", "Something failed on our side"))
    detail = {
        404: "see /api/docs for what there is",
        405: f"allowed: {(headers or {}).get('Allow', 'see /api/docs')}",
        400: "the host, the path or a header is not acceptable",
    }.get(status, "the error is logged; quote the trace to support")
    return Problem(code, title, status=status, detail=detail, headers=headers)
