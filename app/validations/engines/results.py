"""What a validator can say: findings about the document, or a refusal of the submission."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from app.validations.engines.limits import MAX_FINDINGS, MAX_MESSAGE_LENGTH


class Validator(StrEnum):
    JSON_SCHEMA = "json-schema"
    XML_SCHEMA = "xml-schema"
    CEL = "cel"


class Severity(StrEnum):
    ERROR = "ERROR"
    WARNING = "WARNING"
    INFO = "INFO"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is true of the document. `path` is a JSON Pointer or an XPath; lines and columns count from 1."""

    severity: Severity
    code: str
    message: str
    path: str = ""
    line: int | None = None
    column: int | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "severity": self.severity.value,
            "code": shortened(self.code),
            "message": shortened(self.message.strip()),
            "path": shortened(self.path, 1000),
            "line": self.line,
            "column": self.column,
        }


@dataclass(kw_only=True)
class Report:
    """A finished validation. It has at most MAX_FINDINGS findings; `is_truncated` says that there were more."""

    validator: Validator
    filename: str = ""
    findings: list[Finding] = field(default_factory=list)
    is_truncated: bool = False

    def add(self, finding: Finding) -> bool:
        """False when the report is full and the validator may stop."""
        if len(self.findings) >= MAX_FINDINGS:
            self.is_truncated = True
            return False
        self.findings.append(finding)
        return True


class Refused(Exception):
    """The submission cannot be validated: it is malformed, hostile or too expensive. Becomes a problem document."""

    def __init__(self, code: str, title: str, *, status: int = 422, field: str = "", detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.code, self.title, self.status = code, title, status
        self.field, self.detail, self.remedy = field, detail, remedy

    def as_dict(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "title": self.title,
            "status": self.status,
            "field": shortened(self.field),
            "detail": shortened(self.detail, 1000),
            "remedy": self.remedy,
        }

    @classmethod
    def from_dict(cls, refused: dict[str, Any]) -> Self:
        return cls(
            str(refused["code"]),
            str(refused["title"]),
            status=int(refused["status"]),
            field=str(refused["field"]),
            detail=str(refused["detail"]),
            remedy=str(refused["remedy"]),
        )


def over_budget(field: str, detail: str, remedy: str) -> Refused:
    return Refused("over-budget", "The validation costs too much", field=field, detail=detail, remedy=remedy)


def not_unicode(field: str) -> Refused:
    return Refused(
        "bad-encoding",
        "A text is not Unicode",
        field=field,
        detail="a text has half of a surrogate pair, such as \\ud800",
        remedy="write the whole character, or the pair",
    )


def has_half_a_pair(text: str) -> bool:
    # isascii is a flag of the object: this costs nothing for most texts.
    return not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text)


def shortened(text: str, limit: int = MAX_MESSAGE_LENGTH) -> str:
    # A lone surrogate or NUL can come from a JSON escape; Postgres stores neither.
    text = text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= limit else text[: limit - 1] + "…"
