"""Submissions that mean harm, or merely cost too much: each refused with its place, and the next one is served."""

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from app.validations.engines import strictjson
from app.validations.engines.pool import Busy, Pool
from app.validations.engines.results import Refused
from app.validations.models import ValidationJob
from app.validations.sandbox import pool

ROOT = Path(__file__).resolve().parents[2]
Submit = Callable[..., Any]
XS = '<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">{}<xs:element name="a" type="xs:string"/></xs:schema>'
XSD = XS.format("")
LAUGHS = (
    '<?xml version="1.0"?>\n<!DOCTYPE a [<!ENTITY l0 "lol">'
    + "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    + "]><a>&l9;</a>"
)


def doubling(levels: int) -> dict[str, Any]:
    """A schema of a few kilobytes that takes 2**levels steps."""
    definitions: dict[str, Any] = {"d0": {"type": "string"}}
    for n in range(1, levels):
        definitions[f"d{n}"] = {"anyOf": [{"$ref": f"#/$defs/d{n - 1}"}] * 2}
    return {"$defs": definitions, "$ref": f"#/$defs/d{levels - 1}"}


def json_schema(document: Any = None, schema: Any = True) -> dict[str, Any]:
    return {"validator": "json-schema", "document": document, "schema": schema}


def xml(document: str = "<a/>", schema: str = XSD) -> dict[str, Any]:
    return {"validator": "xml-schema", "document": document, "schema": schema}


def cel(expression: str, document: Any = None) -> dict[str, Any]:
    return {"validator": "cel", "document": document or {}, "rules": [{"id": "r", "expression": expression}]}


REFUSALS: dict[str, tuple[dict[str, Any], str, str]] = {
    "entities": (xml(LAUGHS), "document-type", "document"),
    "external entity": (
        xml('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>'),
        "document-type",
        "document",
    ),
    "external subset": (xml('<!DOCTYPE a SYSTEM "http://127.0.0.1/x.dtd"><a/>'), "document-type", "document"),
    "doctype behind comments": (xml("<?x y?><!-- z -->\n<!DOCTYPE a><a/>"), "document-type", "document"),
    "doctype in the schema": (xml(schema="<!DOCTYPE x>" + XSD), "document-type", "schema"),
    "included schema": (
        xml(schema=XS.format('<xs:include schemaLocation="file:///etc/passwd"/>')),
        "remote-reference",
        "schema",
    ),
    "imported schema": (
        xml(schema=XS.format('<xs:import namespace="x" schemaLocation="http://127.0.0.1/"/>')),
        "remote-reference",
        "schema",
    ),
    "schema that is none": (xml(schema="<a/>"), "bad-schema", "schema"),
    "deep xml": (xml("<a>" * 300 + "</a>" * 300), "over-budget", "document"),
    "remote ref": (json_schema(schema={"$ref": "http://127.0.0.1:9/x"}), "remote-reference", "schema"),
    "file ref": (json_schema(schema={"$ref": "file:///etc/passwd"}), "remote-reference", "schema"),
    "foreign meta-schema": (json_schema(schema={"$schema": "http://127.0.0.1:9/x"}), "remote-reference", "schema"),
    "relative ref": (json_schema(schema={"$ref": "other.json"}), "remote-reference", "schema"),
    "ref to no place": (json_schema(schema={"$ref": "#/$defs/order"}), "bad-schema", "schema"),
    "ref to no anchor": (json_schema(schema={"$ref": "#order"}), "bad-schema", "schema"),
    "bad keyword": (json_schema(schema={"type": "strin"}), "bad-schema", "schema/type"),
    "pattern bomb": (json_schema(1, {"pattern": "(a{1000}){1000}"}), "bad-schema", "schema/pattern"),
    "deep document": (json_schema("[" * 1000 + "]" * 1000), "too-deep", "document"),
    "duplicate names": (json_schema('{"a": 1, "a": 2}'), "duplicate-name", "document"),
    "nan": (json_schema("[NaN]"), "not-a-json-number", "document"),
    "infinity": (json_schema("[-Infinity]"), "not-a-json-number", "document"),
    "huge double": (json_schema("1e999"), "number-too-large", "document"),
    "long number": (json_schema("1" * 5000), "number-too-long", "document"),
    "large schema": (json_schema(schema={"title": "x" * 1_100_000}), "schema-too-large", "schema"),
    "cel iterations": (
        cel("document.a.all(x, document.a.all(y, x + y >= 0))", {"a": list(range(9000))}),
        "over-budget",
        "rules[0].expression",
    ),
    "cel length": (cel("true || " * 600 + "true"), "over-budget", "rules[0].expression"),
    "cel macros": (
        cel("[1].all(a, [1].all(b, [1].all(c, [1].all(d, [1].all(e, true)))))"),
        "over-budget",
        "rules[0].expression",
    ),
    "cel nesting": (cel("(" * 1500 + "true" + ")" * 1500), "over-budget", "rules[0].expression"),
    "cel syntax": (cel("document.a +"), "bad-rule", "rules[0].expression"),
    "cel unknown variable": (cel("secret == 1"), "bad-rule", "rules[0].expression"),
    "cel large integer": (cel("document.a == 1", {"a": 2**64}), "number-too-large", "document"),
    "cel half a character": (cel("document.a == 1", {"a": "\ud800"}), "bad-encoding", "document"),
    "unknown validator": ({"validator": "yaml", "document": 1}, "invalid-request", "validator"),
    "unknown field": (json_schema() | {"callback": "x"}, "invalid-request", "callback"),
    "no document": ({"validator": "json-schema", "schema": True}, "invalid-request", "document"),
    "rules without a list": ({"validator": "cel", "document": 1, "rules": {}}, "invalid-request", "rules"),
    "half a character as a field": (json_schema() | {"\ud800": 1}, "invalid-request", "?"),
    "half a character in a document": (json_schema({"a": "\ud800"}, {"required": ["b"]}), "bad-encoding", "document"),
    "half a character in a rule": (cel("'\ud800' == ''"), "bad-encoding", "rules[0].expression"),
    "half a character as a rule's name": (
        {"validator": "cel", "document": {}, "rules": [{"id": "\ud800", "expression": "false"}]},
        "bad-encoding",
        "rules[0].id",
    ),
    "a rule's name that nobody can print": (
        {"validator": "cel", "document": {}, "rules": [{"id": "a\x00b", "expression": "false"}]},
        "invalid-request",
        "rules[0].id",
    ),
    "empty rule": (cel(""), "invalid-request", "rules[0].expression"),
    "file name with control characters": (json_schema() | {"filename": "a\nb"}, "invalid-request", "filename"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_hostile_is_refused_with_its_place_and_leaves_nothing(submit: Submit, name: str) -> None:
    submission, problem, field = REFUSALS[name]

    answer = submit(**submission)

    assert answer["Content-Type"] == "application/problem+json"
    document = answer.json()
    assert document["type"] == f"https://validibot.com/problems/{problem}", document
    assert document["status"] == answer.status_code == (413 if problem == "schema-too-large" else 422)
    assert [error["field"] for error in document["errors"]] == [field]
    assert document["errors"][0]["remedy"]
    assert not ValidationJob.objects.exists()


@pytest.mark.parametrize(
    ("body", "content_type", "status", "problem"),
    [
        (b'{"validator": "json-schema", "document": "\xff"}', "application/json", 422, "bad-encoding"),
        ('{"validator": "cel"}'.encode("utf-16"), "application/json", 422, "bad-encoding"),
        (b"{}", "application/json; charset=latin-1", 415, "bad-encoding"),
        (b"{", "application/json", 400, "malformed-request"),
        (b"[]", "application/json", 400, "malformed-request"),
        (b'{"validator": "cel", "validator": "cel"}', "application/json", 422, "duplicate-name"),
        (b" ", "application/json", 400, "malformed-request"),
        (b"<a/>", "text/xml", 415, "unsupported-media-type"),
        (b"--B\r\n", "multipart/form-data; boundary=B", 400, "malformed-request"),
        (b"x", "multipart/form-data", 400, "malformed-request"),
        (b"[" * 100_000, "application/json", 422, "too-deep"),
    ],
)
def test_a_body_that_cannot_be_read_is_a_problem(
    api: Client, body: bytes, content_type: str, status: int, problem: str
) -> None:
    answer = api.post("/api/validations", body, content_type=content_type)

    assert (answer.status_code, answer.json()["type"].rsplit("/", 1)[1]) == (status, problem)


def test_a_compressed_body_is_refused_before_it_is_read(api: Client) -> None:
    answer = api.post(
        "/api/validations", b"\x1f\x8b", content_type="application/json", headers={"content-encoding": "gzip"}
    )

    assert (answer.status_code, answer["Accept-Encoding"]) == (415, "identity")
    assert answer.json()["errors"][0]["field"] == "Content-Encoding"


@pytest.fixture
def quick() -> Any:
    """A pool with one child that gets three seconds: many times what a harmless submission takes on a busy machine."""
    children = Pool(1, wall_clock=timedelta(seconds=3), patience=timedelta(seconds=0.2))
    children.run(json.dumps(json_schema()).encode(), "application/json")  # it takes a moment to start
    yield children
    children.close()


def run(children: Pool, submission: dict[str, Any]) -> Any:
    return children.run(json.dumps(submission).encode(), "application/json")


@pytest.mark.parametrize(
    "submission",
    [
        json_schema(1, doubling(60)),
        json_schema("[" + "[]," * 3_000_000 + "[]]", {"uniqueItems": True}),
        cel("[" + ",".join(["document.a + document.a"] * 90) + "].size() == 1", {"a": "x" * 4_000_000}),
        xml(
            "<a>" + "a" * 40_000 + "b</a>",
            XSD.replace(
                'type="xs:string"/>',
                '><xs:simpleType><xs:restriction base="xs:string"><xs:pattern value="(a*)*(a*)*(a|aa)*c"/>'
                "</xs:restriction></xs:simpleType></xs:element>",
            ),
        ),
    ],
    ids=["schema bomb", "memory of a document", "memory of a rule", "pattern of an XML schema"],
)
def test_what_costs_too_much_ends_in_time_and_the_next_submission_is_served(
    quick: Pool, submission: dict[str, Any]
) -> None:
    started = time.monotonic()
    with pytest.raises(Refused, match=r"validating (took longer|needed more memory)") as refusal:
        run(quick, submission)

    assert refusal.value.code == "over-budget"
    assert time.monotonic() - started < 30  # three, and what a busy machine adds; a bomb takes for ever
    assert run(Pool(1), json_schema({"a": 1}, {"required": ["b"]})).findings[0]["code"] == "json-schema/required"


def test_a_caller_is_told_when_every_child_stays_busy(quick: Pool) -> None:
    with quick._place(), pytest.raises(Busy, match=r"no validator became free within 0\.2 seconds"):
        run(quick, json_schema())


def test_a_child_that_died_while_idle_is_replaced(quick: Pool) -> None:
    [child] = quick._idle
    child.process.kill()
    child.process.wait()

    assert run(quick, json_schema()).findings == []


def test_a_child_has_no_secret_and_ends_with_its_parent(quick: Pool) -> None:
    [child] = quick._idle
    with open(f"/proc/{child.process.pid}/environ", "rb") as environ:  # noqa: PTH123  # proc files have no size
        names = {entry.split(b"=")[0] for entry in environ.read().split(b"\0") if entry}

    assert names == {b"PYTHONPATH", b"PYTHONDONTWRITEBYTECODE", b"LANG", b"PATH"}
    child.link.close()
    assert child.process.wait(timeout=10) == 0


def test_a_child_loads_neither_django_nor_googles_clients() -> None:
    program = "import sys, app.validations.engines.child; print(*{m.split('.')[0] for m in sys.modules})"
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    loaded = set(finished.stdout.split())
    assert {"lxml", "jsonschema_rs", "cel_expr_python"} <= loaded, finished.stderr
    assert not loaded & {"django", "psycopg", "structlog", "requests", "google.auth", "google.cloud"}


def test_errors_of_one_document_never_show_in_another() -> None:
    children = Pool(1)
    try:
        secret = run(children, xml("<secret-of-one/>"))
        other = run(children, xml("<b>"))
    finally:
        children.close()

    assert "secret-of-one" in str(secret.findings)
    assert "secret" not in str(other.findings)
    assert [finding["code"] for finding in other.findings] == ["xml/syntax"]


def test_a_result_does_not_depend_on_what_the_child_did_before() -> None:
    """One warm child serves many customers: it says of each document what a child says that has seen no other."""
    kept = [submission for submission, _, _ in REFUSALS.values()]
    kept += [
        xml("<a><b/></a>"),
        xml("<a>"),
        xml("<a/>", XSD.replace("string", "int")),
        json_schema('{"a": "x"}', {"properties": {"a": {"type": "integer"}}}),
        json_schema('{"a": ', {}),
        cel("document.absent", {"a": 1}),
        cel("document.a == 2", {"a": 1}),
    ]

    def said(submission: dict[str, Any], children: Pool) -> Any:
        try:
            return run(children, submission)
        except Refused as refused:
            return refused.as_dict()

    first, second = Pool(1), Pool(1)
    try:
        forwards = [said(submission, first) for submission in kept]
        backwards = [said(submission, second) for submission in reversed(kept)]
    finally:
        first.close()
        second.close()

    assert forwards == backwards[::-1]


def test_a_schema_location_in_a_document_is_not_followed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as trap:
        address = f"http://127.0.0.1:{trap.getsockname()[1]}/x.xsd"
        hint = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation'
        outcome = run(pool(), xml(f'<a {hint}="{address}">x</a>'))
        trap.setblocking(False)
        with pytest.raises(BlockingIOError):
            trap.accept()

    assert outcome.findings == []


def test_a_byte_order_mark_is_no_part_of_a_document() -> None:
    """A file that was read as a text, as most languages read files, keeps its mark as a character."""
    schema = {"properties": {"a": {"type": "integer"}}}

    outcome = run(pool(), json_schema('\ufeff{\n "a": "x"}', schema))

    assert [(f["path"], f["line"], f["column"]) for f in outcome.findings] == [("/a", 2, 7)]


def test_findings_stop_at_a_thousand() -> None:
    outcome = run(pool(), json_schema(json.dumps(["x"] * 1500), {"items": {"type": "null"}}))

    assert (len(outcome.findings), outcome.is_truncated) == (1000, True)
    assert outcome.findings[-1]["path"] == "/999"


def test_a_message_does_not_repeat_a_large_document() -> None:
    outcome = run(pool(), json_schema(json.dumps(["x" * 50] * 5000), {"type": "object"}))

    assert outcome.findings[0]["message"] == 'the value is not of type "object"'


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)  # fmt: skip


@given(JSON, st.sampled_from([None, 1, "\t"]))
@settings(max_examples=200, deadline=None)
def test_strict_json_reads_every_ordinary_document_as_it_was_written(value: Any, indent: Any) -> None:
    assert strictjson.loads(json.dumps(value, indent=indent, ensure_ascii=False), "document") == value


@given(JSON, st.sampled_from([None, 1]))
@settings(max_examples=200, deadline=None)
def test_the_position_of_every_value_is_where_it_starts(value: Any, indent: Any) -> None:
    text = json.dumps(value, indent=indent)
    paths: list[strictjson.Path] = []

    def walk(node: Any, path: strictjson.Path) -> None:
        paths.append(path)
        children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for step, child in children:
            walk(child, (*path, step))

    walk(value, ())
    found = strictjson.positions(text, paths)

    assert found.keys() == set(paths)
    lines = text.split("\n")
    for path, (line, column) in found.items():
        node = value
        for step in path:
            node = node[step]
        rest = "\n".join([lines[line - 1][column - 1 :], *lines[line:]])
        assert json.JSONDecoder().raw_decode(rest)[0] == node


@given(st.text(alphabet='[]{}"\\,:x1 \n', max_size=60))
@settings(max_examples=300, deadline=None)
def test_strict_json_accepts_nothing_that_json_refuses(text: str) -> None:
    try:
        expected: Any = json.loads(text)
    except json.JSONDecodeError:
        with pytest.raises((strictjson.SyntaxProblem, Refused)):
            strictjson.loads(text, "document")
    else:
        with contextlib.suppress(Refused):  # a name that occurs twice
            assert strictjson.loads(text, "document") == expected


@pytest.mark.parametrize(("depth", "is_accepted"), [(128, True), (129, False)])
@pytest.mark.parametrize("shape", ["[{}]", '{"a":[]}', '["]",{}]'])
def test_depth_is_counted_exactly(depth: int, is_accepted: bool, shape: str) -> None:
    text = "[" * (depth - 2) + shape + "]" * (depth - 2)
    if is_accepted:
        strictjson.loads(text, "document")
    else:
        with pytest.raises(Refused, match="nested more than 128 deep"):
            strictjson.loads(text, "document")
