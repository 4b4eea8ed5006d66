"""What a customer sends: one request body, as JSON or as multipart/form-data. Parsed in a sandboxed child only."""

import email.message
import email.parser
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from app.validations.engines import cel, jsonschema, strictjson, xmlschema
from app.validations.engines.limits import MAX_FILENAME_LENGTH, MAX_RULES, MAX_SCHEMA_BYTES
from app.validations.engines.results import (
    Finding,
    Refused,
    Report,
    Severity,
    Validator,
    has_half_a_pair,
    not_unicode,
)

_FIELDS = {"validator", "document", "schema", "rules", "filename"}
_NAMES = ", ".join(sorted(_FIELDS))
_VALIDATORS = ", ".join(Validator)


@dataclass(kw_only=True)
class _Part:
    """One field: a JSON value, or the bytes of a file."""

    value: Any = None
    content: bytes | None = None
    filename: str = ""


@dataclass(kw_only=True)
class _Submission:
    parts: dict[str, _Part] = field(default_factory=dict)

    def text(self, name: str, decode: Callable[[bytes, str], str]) -> str:
        part = self._required(name)
        if part.content is not None:
            return decode(part.content, name)
        if not isinstance(part.value, str):
            raise _invalid(name, f"is {_kind(part.value)}, but must be a text", "send the file's content as a text")
        return part.value

    def json(self, name: str) -> tuple[Any, str | None]:
        """The value of a JSON field, and the text it was parsed from. A text is a file's content, not a JSON text."""
        part = self._required(name)
        if part.content is None and not isinstance(part.value, str):
            return part.value, None
        text = strictjson.decode(part.content, name) if part.content is not None else part.value
        # A file that was read as a text brings its byte order mark as a character.
        text = text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
        return strictjson.loads(text, name), text

    def word(self, name: str, default: str | None = None) -> str:
        if default is not None and name not in self.parts:
            return default
        return self.text(name, strictjson.decode)

    def _required(self, name: str) -> _Part:
        if name not in self.parts:
            raise _invalid(name, "is missing", f"send the field {name!r}")
        return self.parts[name]


def outline(body: bytes, content_type: str) -> Report:
    """Parse one submission as far as to know what it asks for. Raises: Refused."""
    _, report = _outlined(body, content_type)
    return report


def run(body: bytes, content_type: str, progress: Callable[[str], None]) -> Report:
    """Parse and validate one submission. `progress` is told what is being worked on. Raises: Refused."""
    progress("body")
    submission, report = _outlined(body, content_type)
    if report.validator is Validator.XML_SCHEMA:
        schema = submission.text("schema", xmlschema.decode)
        document = submission.text("document", xmlschema.decode)
        progress("document")
        xmlschema.validate(document, schema, report)
    else:
        _run_json(submission, report.validator, report, progress)
    return report


def _outlined(body: bytes, content_type: str) -> tuple[_Submission, Report]:
    submission = _parsed(body, content_type)
    for name in submission.parts.keys() - _FIELDS:
        raise _invalid(name[:100], "is not a field", f"send only {_NAMES}")
    word = submission.word("validator")
    try:
        validator = Validator(word)
    except ValueError:
        raise _invalid("validator", f"is {word[:100]!r}", f"choose one of {_VALIDATORS}") from None
    report = Report(validator=validator, filename=_filename(submission))
    unused = "schema" if validator is Validator.CEL else "rules"
    if unused in submission.parts:
        raise _invalid(unused, f"does not belong to {validator.value}", f"leave {unused!r} out")
    return submission, report


def _run_json(submission: _Submission, validator: Validator, report: Report, progress: Callable[[str], None]) -> None:
    rules: list[cel.Rule] = []
    schema: Any = None
    if validator is Validator.CEL:
        rules = _rules(submission)
    else:
        schema = _schema(submission)
    progress("document")
    try:
        document, text = submission.json("document")
    except strictjson.SyntaxProblem as error:
        # The file is what is wrong, not the request: that is a result.
        report.add(
            Finding(
                severity=Severity.ERROR, code="json/syntax", message=error.message, line=error.line, column=error.column
            )
        )
        return
    if validator is Validator.CEL:
        cel.validate(document, rules, report, progress)
    else:
        progress("schema")
        size = len(text) if text is not None else len(json.dumps(document))
        jsonschema.validate(document, text, size, schema, report)


def _schema(submission: _Submission) -> Any:
    try:
        schema, text = submission.json("schema")
    except strictjson.SyntaxProblem as error:
        raise _invalid("schema", f"is not JSON: {_at(error)}", "correct the schema") from None
    size = len((text if text is not None else json.dumps(schema)).encode("utf-8", "replace"))
    if size > MAX_SCHEMA_BYTES:
        raise Refused(
            "schema-too-large",
            "The schema is too large",
            status=413,
            field="schema",
            detail=f"the schema has {size} bytes",
            remedy=f"send at most {MAX_SCHEMA_BYTES} bytes",
        )
    return schema


def _rules(submission: _Submission) -> list[cel.Rule]:
    try:
        raw, _ = submission.json("rules")
    except strictjson.SyntaxProblem as error:
        raise _invalid("rules", f"is not JSON: {_at(error)}", "correct the rules") from None
    if not isinstance(raw, list) or not raw:
        raise _invalid("rules", "is not a list with at least one rule", 'send [{"id": …, "expression": …}]')
    if len(raw) > MAX_RULES:
        raise _invalid("rules", f"has {len(raw)} rules", f"send at most {MAX_RULES}")
    rules: list[cel.Rule] = []
    for index, item in enumerate(raw):
        where = f"rules[{index}]"
        if not isinstance(item, dict):
            raise _invalid(where, f"is {_kind(item)}", 'send {"id": …, "expression": …}')
        for name in item.keys() - {"id", "expression", "message", "severity"}:
            raise _invalid(f"{where}.{name[:100]}", "is not a field", "send only id, expression, message, severity")
        for name, value in item.items():
            if not isinstance(value, str) or not value:
                found = "is empty" if value == "" else f"is {_kind(value)}"
                raise _invalid(f"{where}.{name}", found, "send a text that is not empty")
            if has_half_a_pair(value):
                raise not_unicode(f"{where}.{name}")
        if "expression" not in item:
            raise _invalid(f"{where}.expression", "is missing", "send a CEL expression")
        identifier = item.get("id", f"rule-{index + 1}")
        if len(identifier) > 60:
            raise _invalid(f"{where}.id", f"has {len(identifier)} characters", "send at most 60")
        if not identifier.isprintable():
            raise _invalid(f"{where}.id", "has control characters", "send letters, digits and punctuation")
        if any(identifier == rule.id for rule in rules):
            raise _invalid(f"{where}.id", f"is {identifier!r} like another rule's", "give each rule its own id")
        severity = item.get("severity", Severity.ERROR.value)
        if severity not in set(Severity):
            raise _invalid(f"{where}.severity", f"is {severity[:100]!r}", f"choose one of {', '.join(Severity)}")
        rules.append(
            cel.Rule(
                id=identifier,
                expression=item["expression"],
                message=item.get("message", f"the rule {identifier} does not hold"),
                severity=Severity(severity),
            )
        )
    return rules


def _filename(submission: _Submission) -> str:
    name = submission.word("filename", default=submission.parts.get("document", _Part()).filename)
    # A file's name is shown and logged, never opened: directories in it mean nothing here.
    name = name.replace("\\", "/").rsplit("/", 1)[-1]
    if len(name) > MAX_FILENAME_LENGTH or any(not c.isprintable() for c in name):
        raise _invalid(
            "filename", "is too long or has control characters", f"send at most {MAX_FILENAME_LENGTH} characters"
        )
    return name


def _parsed(body: bytes, content_type: str) -> _Submission:
    header = email.message.Message()
    header["content-type"] = content_type
    kind = header.get_content_type()
    if kind == "multipart/form-data":
        boundary = header.get_param("boundary")
        if not isinstance(boundary, str) or not 0 < len(boundary) <= 70:
            raise _malformed("the Content-Type has no boundary", "let your HTTP library write the multipart body")
        return _multipart(body, boundary)
    if kind != "application/json":
        raise Refused(
            "unsupported-media-type",
            "The request is in another format",
            status=415,
            field="Content-Type",
            detail=f"the Content-Type is {kind[:100]!r}",
            remedy="send application/json or multipart/form-data",
        )
    charset = header.get_param("charset")
    if isinstance(charset, str) and charset.lower() not in {"utf-8", "utf8", "us-ascii"}:
        raise Refused(
            "bad-encoding",
            "The request is not UTF-8",
            status=415,
            field="Content-Type",
            detail=f"the charset is {charset[:40]!r}",
            remedy="send JSON as UTF-8",
        )
    try:
        value = strictjson.loads(strictjson.decode(body, "body"), "body")
    except strictjson.SyntaxProblem as error:
        raise _malformed(f"the body is not JSON: {_at(error)}", "send a JSON object") from None
    if not isinstance(value, dict):
        raise _malformed(f"the body is {_kind(value)}", "send a JSON object")
    return _Submission(parts={name: _Part(value=item) for name, item in value.items()})


def _multipart(body: bytes, boundary: str) -> _Submission:
    try:
        delimiter = b"\r\n--" + boundary.encode("ascii")
    except UnicodeEncodeError:
        raise _malformed("the boundary is not ASCII", "let your HTTP library write the multipart body") from None
    sections = (b"\r\n" + body).split(delimiter)
    if len(sections) > len(_FIELDS) + 10 or len(sections) < 3 or not sections[-1].startswith(b"--"):
        raise _malformed(
            "the multipart body has no closing boundary, or too many parts",
            "let your HTTP library write the multipart body",
        )
    submission = _Submission()
    for section in sections[1:-1]:
        head, blank, content = section.partition(b"\r\n\r\n")
        header = email.parser.HeaderParser().parsestr(head.decode("utf-8", "replace").lstrip("\r\n"))
        name = header.get_param("name", header="content-disposition")
        filename = header.get_filename("")
        if not blank or not isinstance(name, str):
            raise _malformed("a part has no name", "let your HTTP library write the multipart body")
        if name in submission.parts:
            raise _invalid(name[:100], "was sent twice", "send each field once")
        submission.parts[name] = _Part(content=content, filename=filename)
    return submission


def _invalid(name: str, found: str, remedy: str) -> Refused:
    return Refused("invalid-request", "The request is not valid", field=name, detail=f"{name} {found}", remedy=remedy)


def _malformed(detail: str, remedy: str) -> Refused:
    return Refused(
        "malformed-request", "The request cannot be read", status=400, field="body", detail=detail, remedy=remedy
    )


def _at(error: strictjson.SyntaxProblem) -> str:
    return f"line {error.line}, column {error.column}: {error.message}"


def _kind(value: Any) -> str:
    return {
        "NoneType": "null",
        "bool": "a boolean",
        "int": "a number",
        "float": "a number",
        "str": "a text",
        "list": "an array",
        "dict": "an object",
    }[type(value).__name__]
