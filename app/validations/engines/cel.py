"""CEL rules over a JSON document, by cel-expr-python (the C++ runtime).

A rule holds when its result has the type BOOL and is True. The runtime reports run-time errors as values of the type
ERROR, and `!document.a` of a missing `a` is such a value: anything but True is a finding, never a pass.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

from cel_expr_python import cel

from app.validations.engines.limits import MAX_EXPRESSION_LENGTH, MAX_MACRO_DEPTH
from app.validations.engines.results import (
    Finding,
    Refused,
    Report,
    Severity,
    has_half_a_pair,
    not_unicode,
    over_budget,
)

_ENVIRONMENT: Final = cel.NewEnv(variables={"document": cel.Type.DYN})
_CONDITIONS: Final = cel.NewEnv(variables={"inputs": cel.Type.DYN, "steps": cel.Type.DYN})
_LITERAL = re.compile(
    r"//[^\n]*+|[rRbB]{0,2}(?:'''.*?'''|\"\"\".*?\"\"\"|'(?:[^'\\\n]|\\.)*+'|\"(?:[^\"\\\n]|\\.)*+\")", re.DOTALL
)
_MACRO_OR_BRACKET = re.compile(r"\.\s*(?:all|exists|exists_one|existsOne|filter|map)\s*\(|[()]")
_INTEGERS = range(-(2**63), 2**63)


@dataclass(frozen=True, kw_only=True)
class Rule:
    id: str
    expression: str
    message: str
    severity: Severity


def validate(document: Any, rules: list[Rule], report: Report, progress: Any) -> None:
    """Add a finding for each rule that does not hold. `progress` is told which rule comes next. Raises: Refused."""
    compiled = [
        _compiled(_ENVIRONMENT, rule.expression, f"rules[{index}].expression", f"rule {rule.id!r}")
        for index, rule in enumerate(rules)
    ]
    _refuse_unrepresentable(document)
    activation = _ENVIRONMENT.Activation({"document": document})
    for index, (rule, expression) in enumerate(zip(rules, compiled, strict=True)):
        progress(f"rules[{index}]")
        try:
            result = expression.eval(activation)
        except RuntimeError as error:
            if "budget" in str(error):
                raise over_budget(
                    f"rules[{index}].expression",
                    f"rule {rule.id!r} visits too many elements: {error}",
                    "visit fewer elements: the rule may make about 10,000 steps through lists and maps",
                ) from None
            raise Refused(
                "not-evaluable",
                "The rule cannot be evaluated",
                field=f"rules[{index}].expression",
                detail=f"rule {rule.id!r}: {error}",
                remedy="simplify the rule",
            ) from None
        kind = result.type()
        if kind == cel.Type.BOOL and result.value() is True:
            continue
        if kind == cel.Type.BOOL:
            finding = Finding(severity=rule.severity, code=f"cel/{rule.id}", message=rule.message)
        elif kind == cel.Type.ERROR:
            finding = Finding(
                severity=Severity.ERROR,
                code=f"cel/{rule.id}",
                message=f"the rule could not be evaluated: {result.value()}",
            )
        else:
            finding = Finding(
                severity=Severity.ERROR,
                code=f"cel/{rule.id}",
                message=f"the rule's result is a {kind.name()}, not a BOOL",
            )
        report.add(finding)


def holds(expression: str, variables: dict[str, Any] | None) -> str:
    """Why a condition over `inputs` and `steps` is not true, or nothing: "false", or an error in words.

    Without variables it is only compiled. Raises: Refused for what is no CEL expression, or costs too much.
    """
    compiled = _compiled(_CONDITIONS, expression, "condition", "the condition")
    if variables is None:
        return ""
    _refuse_unrepresentable(variables)
    try:
        result = compiled.eval(_CONDITIONS.Activation(variables))
    except RuntimeError as error:
        raise over_budget("condition", f"the condition: {error}", "visit fewer elements of lists and maps") from None
    kind = result.type()
    if kind == cel.Type.BOOL:
        return "" if result.value() is True else "false"
    if kind == cel.Type.ERROR:
        return f"the condition could not be evaluated: {result.value()}"
    return f"the condition's result is a {kind.name()}, not a BOOL"


def _compiled(environment: cel.Env, expression: str, field: str, name: str) -> cel.Expression:
    if len(expression) > MAX_EXPRESSION_LENGTH:
        raise over_budget(
            field,
            f"{name} has {len(expression)} characters",
            f"use at most {MAX_EXPRESSION_LENGTH} characters, and several rules",
        )
    if _macro_depth(expression) > MAX_MACRO_DEPTH:
        raise over_budget(
            field,
            f"{name} nests more than {MAX_MACRO_DEPTH} of all, exists, exists_one, filter and map",
            f"nest at most {MAX_MACRO_DEPTH} of them",
        )
    try:
        return environment.compile(expression)
    except RuntimeError as error:
        if "limit" in str(error):
            raise over_budget(field, f"{name}: {error}", "nest the expression less deeply") from None
        message = str(error).removeprefix("INVALID_ARGUMENT: ").splitlines()[0]
        known = (
            "variables are `inputs` and `steps`"
            if environment is _CONDITIONS
            else 'document is the variable "document"'
        )
        raise Refused(
            "bad-rule",
            "The rule is not a CEL expression",
            field=field,
            detail=f"{name}: {message}",
            remedy=f"correct the expression; the {known}",
        ) from None


def _macro_depth(expression: str) -> int:
    deepest = 0
    stack: list[bool] = []
    for match in _MACRO_OR_BRACKET.finditer(_LITERAL.sub("''", expression)):
        if match[0] == ")":
            if stack:
                stack.pop()
        else:
            stack.append(match[0] != "(")
            deepest = max(deepest, sum(stack))
    return deepest


def _refuse_unrepresentable(document: Any) -> None:
    """CEL integers have 64 bits, and its texts are Unicode. The runtime meets others with an error or a crash."""
    stack = [document]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            stack.extend(value)
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
        elif isinstance(value, str):
            if has_half_a_pair(value):
                raise not_unicode("document")
        elif isinstance(value, int) and value not in _INTEGERS:
            raise Refused(
                "number-too-large",
                "A number is too large for CEL",
                field="document",
                detail="an integer has more than 64 bits",
                remedy="send it as a text, or as a number with a fraction",
            )
