"""JSON Schema, by jsonschema-rs. Drafts 4, 6, 7, 2019-09 and 2020-12; formats are checked.

The engine is offline: a `$ref` resolves within the schema or to the drafts' own meta-schemas, never to a file or a
host. Patterns run with a bound on backtracking; running into it refuses the submission, because "did not match within
the budget" is no verdict.
"""

from typing import Any

import jsonschema_rs

from app.validations.engines import strictjson
from app.validations.engines.limits import MAX_PATTERN_BYTES, MAX_PATTERN_STEPS
from app.validations.engines.results import Finding, Refused, Report, Severity, not_unicode, over_budget

# A message quotes the value it is about. For a large document that would be the document, once per finding.
_QUOTED_BYTES = 16 * 1024


def validate(document: Any, text: str | None, size: int, schema: Any, report: Report) -> None:
    """Add the findings about `document`. `text` is what it was parsed from, if that is the customer's own file.

    Raises: Refused.
    """
    engine = _compiled(schema, mask=None if size <= _QUOTED_BYTES else "the value")
    errors: list[tuple[strictjson.Path, str, str]] = []
    try:
        for error in engine.iter_errors(document):
            kind = error.kind
            if isinstance(
                kind,
                jsonschema_rs.ValidationErrorKind.BacktrackLimitExceeded
                | jsonschema_rs.ValidationErrorKind.RegexEngineFailure,
            ):
                raise over_budget(
                    "schema" + strictjson.pointer(tuple(error.schema_path)),
                    f"a pattern took more than {MAX_PATTERN_STEPS} steps on the text at "
                    f"{strictjson.pointer(tuple(error.instance_path)) or '/'}",
                    "write the pattern without nested repetition, such as (a+)+",
                )
            errors.append((tuple(error.instance_path), kind.name, error.message))
            if not report.add(_finding(errors[-1])):
                return
    except UnicodeEncodeError:
        raise not_unicode("document") from None
    except ValueError as error:
        # jsonschema-rs raises plain ValueErrors for what it cannot convert or resolve, and they say what it was.
        raise Refused(
            "not-validatable",
            "The document cannot be validated",
            field="document",
            detail=str(error).splitlines()[0],
            remedy="simplify the document, or report this to us with the validation's trace",
        ) from None
    finally:
        if text is not None and errors:
            _add_positions(text, [path for path, _, _ in errors], report)


def _finding(error: tuple[strictjson.Path, str, str]) -> Finding:
    path, keyword, message = error
    return Finding(
        severity=Severity.ERROR, code=f"json-schema/{keyword}", message=message, path=strictjson.pointer(path)
    )


def _add_positions(text: str, paths: list[strictjson.Path], report: Report) -> None:
    positions = strictjson.positions(text, paths)
    for index, (finding, path) in enumerate(zip(report.findings, paths, strict=False)):
        line, column = positions.get(path, (None, None))
        report.findings[index] = Finding(
            severity=finding.severity,
            code=finding.code,
            message=finding.message,
            path=finding.path,
            line=line,
            column=column,
        )


def _compiled(schema: Any, mask: str | None) -> jsonschema_rs.Validator:
    if not isinstance(schema, dict | bool):
        raise Refused(
            "bad-schema",
            "The schema is not a JSON Schema",
            field="schema",
            detail=f"a JSON Schema is an object or a boolean, this is {type(schema).__name__}",
            remedy="send the schema as a JSON object",
        )
    try:
        return jsonschema_rs.validator_for(
            schema,
            mask=mask,
            offline=True,
            validate_formats=True,
            pattern_options=jsonschema_rs.FancyRegexOptions(
                backtrack_limit=MAX_PATTERN_STEPS, size_limit=MAX_PATTERN_BYTES, dfa_size_limit=MAX_PATTERN_BYTES
            ),
        )
    except jsonschema_rs.ValidationError as error:
        where = "schema" + strictjson.pointer(tuple(error.instance_path))
        if _leads_outside(error):
            raise Refused(
                "remote-reference",
                "The schema refers to something outside itself",
                field=where,
                detail=error.message,
                remedy='put the referenced schema under "$defs" and refer to it as "#/$defs/<name>"',
            ) from None
        raise Refused(
            "bad-schema",
            "The schema is not a JSON Schema",
            field=where,
            detail=error.message,
            remedy="correct the schema at this place; a pattern must also be small once compiled",
        ) from None
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise Refused(
            "bad-schema",
            "The schema is not a JSON Schema",
            field="schema",
            detail=str(error).splitlines()[0],
            remedy="correct the schema",
        ) from None


def _leads_outside(error: jsonschema_rs.ValidationError) -> bool:
    """A reference to another resource, not one to a place in this schema that is not there. Only the message tells."""
    is_reference = isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Referencing)
    return is_reference and error.message.startswith(("Resource ", "Unknown meta-schema"))
