"""Conditions of bindings: CEL over the request's time and the resource's name, type and service.

A condition grants only when it evaluates to the boolean true. One that cannot be evaluated grants nothing.
"""

import functools
import re
from datetime import datetime

from cel_expr_python import cel

from localgcp.iam.names import ResourceAttributes


class InvalidCondition(ValueError):
    """The expression does not parse, or asks for something that conditions do not know."""


def _extract(text: str, template: str) -> str:
    """The part of `text` that stands where the template has `{name}`, as IAM's `extract` defines it."""
    match = re.fullmatch(r"([^{}]*)\{[^{}]+\}([^{}]*)", template)
    if match is None:
        return ""
    before, after = match.groups()
    start = text.find(before)
    if start < 0:
        return ""
    start += len(before)
    end = text.find(after, start) if after else len(text)
    return text[start:end] if end >= 0 else ""


@functools.cache
def _environment() -> cel.Env:
    text = cel.Type.STRING
    extract = cel.Overload("extract", return_type=text, parameters=[text, text], is_member=True, impl=_extract)
    return cel.NewEnv(
        variables={
            "request.time": cel.Type.TIMESTAMP,
            "resource.name": text,
            "resource.service": text,
            "resource.type": text,
        },
        functions=[cel.FunctionDecl("extract", [extract])],
    )


@functools.lru_cache(maxsize=1024)
def compile_condition(expression: str) -> cel.Expression:
    """Raises InvalidCondition."""
    try:
        compiled = _environment().compile(expression)
    except RuntimeError as error:
        raise InvalidCondition(str(error).removeprefix("INVALID_ARGUMENT: ").partition("\n")[0]) from None
    if compiled.return_type() not in (cel.Type.BOOL, cel.Type.DYN):
        raise InvalidCondition(f"the expression gives {compiled.return_type().name()}, not a boolean")
    return compiled


def holds(expression: str, resource: ResourceAttributes, time: datetime) -> bool:
    try:
        value = compile_condition(expression).eval(
            data={
                "request.time": time,
                "resource.name": resource.name,
                "resource.service": resource.service,
                "resource.type": resource.type,
            }
        )
    except (InvalidCondition, RuntimeError):
        return False
    # Errors at run time are values too: only a BOOL that is true grants.
    return value.type() == cel.Type.BOOL and value.value() is True
