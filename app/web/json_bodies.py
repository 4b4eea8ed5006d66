"""Request bodies that are kept as JSON. They are read in the application and not in a sandbox: small, and strictly."""

import json
import re
from typing import Any, Final, TypeVar

from django.http import HttpRequest
from pydantic import BaseModel, ValidationError

from app.validations.engines import strictjson
from app.validations.engines.results import Refused
from app.web import bodies
from app.web.problems import FieldError, Problem

MAX_BYTES: Final = 1024 * 1024
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
# pydantic names the member of a union in the path; the author of a request has never heard of it.
_TAGS: Final = {"VALIDATOR", "ACTION", "SIMULATION", "WEBHOOK", "SLACK", "CREDENTIAL", "Ref", "Value"}

M = TypeVar("M", bound=BaseModel)


def read(request: HttpRequest) -> bytes:
    return bodies.read(request, MAX_BYTES)


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
    refuse_unstorable(value)
    try:
        # Strictly, so that `false` and "5" are no numbers. pydantic knows no such thing for values that are read
        # already: there it would refuse the texts that ids and choices are in JSON, too.
        return model.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise _invalid(error) from None


def schema_of(model: type[BaseModel], example: Any) -> dict[str, Any]:
    """The request body for the OpenAPI document, which makes components of the definitions in it."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "examples": {"example": {"value": example}}}},
        }
    }


def refuse_unstorable(value: Any) -> None:
    """Postgres has neither the character NUL nor half of a surrogate pair. Raises: Refused."""
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
        FieldError(
            field=_place(item["loc"]),
            message=item["msg"].removeprefix("Value error, "),
            remedy="see /api/docs for what the field takes",
        )
        for item in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    return Problem(
        "invalid-request",
        "The request is not valid",
        status=422,
        detail="; ".join(f"{e.field}: {e.message}" for e in errors)[:2000],
        errors=errors,
    )


def _place(location: tuple[int | str, ...]) -> str:
    place = ""
    for step in location:
        if isinstance(step, int):
            place += f"[{step}]"
        elif step not in _TAGS:
            place += f".{step}" if place else step
    return place or "body"
