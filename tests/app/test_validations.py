"""`/api/validations`, through Django with a real database and real sandboxed validators."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.core.files.storage import default_storage
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from app.organizations.models import ApiKey, ApiKeyText, Organization
from app.regions import DataRegion
from app.validations.models import ValidationJob

Submit = Callable[..., Any]
ORDER_SCHEMA = {
    "type": "object",
    "required": ["id"],
    "properties": {"id": {"type": "integer"}, "items": {"items": {"required": ["sku"]}}},
}
XSD = (
    '<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">'
    '<xs:element name="quantity" type="xs:positiveInteger"/></xs:schema>'
)


def test_a_good_document_passes_and_is_kept(submit: Submit, organization: Organization) -> None:
    answer = submit(validator="json-schema", document={"id": 7}, schema=ORDER_SCHEMA, filename="order.json")

    assert answer.status_code == 201, answer.content
    body = answer.json()
    job = ValidationJob.objects.get()
    assert answer["Location"] == body["url"] == f"/api/validations/{job.id}"
    assert {k: body[k] for k in ("state", "verdict", "errors", "filename", "findings", "findings_truncated")} == {
        "state": "SUCCESS",
        "verdict": "PASS",
        "errors": 0,
        "filename": "order.json",
        "findings": [],
        "findings_truncated": False,
    }
    with default_storage.open(job.media_name) as stored:
        assert json.load(stored)["document"] == {"id": 7}


def test_a_bad_document_fails_with_the_place_of_each_finding(submit: Submit, api: Client) -> None:
    document = '{\n  "id": "seven",\n  "items": [{"sku": 1},\n    {}]\n}'

    answer = submit(validator="json-schema", document=document, schema=ORDER_SCHEMA)

    assert answer.status_code == 201
    assert answer.json()["verdict"] == "FAIL"
    found = sorted((f["path"], f["line"], f["column"], f["code"], f["message"]) for f in answer.json()["findings"])
    assert found == [
        ("/id", 2, 9, "json-schema/type", '"seven" is not of type "integer"'),
        ("/items/1", 4, 5, "json-schema/required", '"sku" is a required property'),
    ]
    assert api.get(answer["Location"]).json() == answer.json()


def test_an_xml_document_fails_with_line_and_path(submit: Submit) -> None:
    answer = submit(validator="xml-schema", document="<!-- one -->\n<quantity>0</quantity>", schema=XSD)

    assert answer.json()["verdict"] == "FAIL"
    assert [(f["code"], f["path"], f["line"]) for f in answer.json()["findings"]] == [
        ("xml-schema/cvc-datatype-valid-1-2-1", "/quantity", 2)
    ]


def test_cel_rules_are_findings_with_their_own_severity(submit: Submit) -> None:
    rules = [
        {"id": "positive", "expression": "document.total > 0", "message": "the total is positive"},
        {"id": "small", "expression": "document.total < 10", "message": "the total is small", "severity": "WARNING"},
    ]

    answer = submit(validator="cel", document={"total": 12}, rules=rules)

    assert answer.json()["verdict"] == "PASS"
    assert [(f["severity"], f["code"], f["message"]) for f in answer.json()["findings"]] == [
        ("WARNING", "cel/small", "the total is small")
    ]


@pytest.mark.parametrize("expression", ["document.absent > 0", "document.total", "'true'", "1 / 0 == 1"])
def test_a_rule_that_does_not_come_out_true_is_never_a_pass(submit: Submit, expression: str) -> None:
    answer = submit(validator="cel", document={"total": 1}, rules=[{"expression": expression, "severity": "INFO"}])

    assert (answer.json()["verdict"], answer.json()["errors"]) == ("FAIL", 1)


def test_a_document_that_is_not_json_is_a_result_and_not_an_error(submit: Submit) -> None:
    answer = submit(validator="json-schema", document='{"id": 7,\n}', schema=True)

    assert answer.status_code == 201
    assert [(f["code"], f["line"], f["column"]) for f in answer.json()["findings"]] == [("json/syntax", 2, 1)]


def test_a_submission_costs_seven_statements(
    submit: Submit, api_key: ApiKey, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    submit(validator="json-schema", document={}, schema=ORDER_SCHEMA)  # notes the first use of the key

    with django_assert_num_queries(7):  # key, count, savepoint, job, findings, endpoints, release
        submit(validator="json-schema", document={}, schema=ORDER_SCHEMA)


def test_the_list_has_pages_from_new_to_old(submit: Submit, api: Client) -> None:
    made = [submit(validator="json-schema", document=n, schema={"maximum": 1}).json()["id"] for n in range(4)]

    first = api.get("/api/validations?limit=3").json()
    second = api.get(f"/api/validations?limit=3&cursor={first['next_cursor']}").json()

    assert [job["id"] for job in first["items"] + second["items"]] == made[::-1]
    assert second["next_cursor"] is None
    failed = api.get("/api/validations?verdict=FAIL").json()["items"]
    assert [job["id"] for job in failed] == made[:1:-1]


def test_another_organisations_job_does_not_exist(submit: Submit, db: None) -> None:
    url = submit(validator="json-schema", document={}, schema=True)["Location"]
    text = ApiKeyText.generate(DataRegion.AU)
    other = Organization.objects.create(slug="other", name="Other", data_region="AU")
    ApiKey.objects.create(organization=other, sha256=text.sha256)

    client = Client(headers={"host": "au.validibot.com", "authorization": f"Bearer {text.text}"})

    assert client.get(url).status_code == 404
    assert client.get("/api/validations").json() == {"items": [], "next_cursor": None}


def test_a_multipart_submission_brings_files_in_their_own_encoding(api: Client) -> None:
    xml = '<?xml version="1.0" encoding="ISO-8859-1"?>\n<q>é</q>'.encode("latin-1")
    xsd = XSD.replace('"quantity"', '"q"').encode()
    body = b"".join(
        b'--B\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % part
        for part in (
            (b"validator", b"", b"xml-schema"),
            (b"document", b'; filename="..\\q.xml"\r\nContent-Type: text/xml', xml),
            (b"schema", b'; filename="q.xsd"', xsd),
        )
    )

    answer = api.post("/api/validations", body + b"--B--\r\n", content_type="multipart/form-data; boundary=B")

    assert answer.status_code == 201, answer.content
    assert answer.json()["filename"] == "q.xml"
    assert [f["line"] for f in answer.json()["findings"]] == [2]
    assert "'é' is not a valid value" in answer.json()["findings"][0]["message"]
