"""What a browser is told about other origins."""

import httpx
import pytest
from google.cloud import storage

from tests.localgcp.fixtures import Region

ORIGIN = "https://au.example"


@pytest.fixture
def shared(bucket: storage.Bucket) -> storage.Bucket:
    bucket.cors = [
        {"origin": [ORIGIN], "method": ["GET", "PUT"], "responseHeader": ["Content-Type"], "maxAgeSeconds": 60}
    ]
    bucket.patch()
    return bucket


def preflight(region: Region, bucket: storage.Bucket, origin: str, method: str, headers: str = "") -> httpx.Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return httpx.options(f"{region.url}/{bucket.name}/a", headers=asked)


def test_a_rule_allows_its_origin_methods_and_headers(region: Region, shared: storage.Bucket) -> None:
    answer = preflight(region, shared, ORIGIN, "PUT", "content-type")

    allowed = {name: text for name, text in answer.headers.items() if name.startswith("access-control-")}
    assert answer.status_code == 200
    assert allowed == {
        "access-control-allow-origin": ORIGIN,
        "access-control-allow-methods": "GET,PUT",
        "access-control-allow-headers": "content-type",
        "access-control-max-age": "60",
    }


@pytest.mark.parametrize(
    ("origin", "method", "headers"),
    [("https://evil.example", "PUT", ""), (ORIGIN, "DELETE", ""), (ORIGIN, "PUT", "x-other")],
)
def test_nothing_else_is_allowed(
    region: Region, shared: storage.Bucket, origin: str, method: str, headers: str
) -> None:
    answer = preflight(region, shared, origin, method, headers)

    assert [name for name in answer.headers if name.startswith("access-control-")] == []


def test_an_answer_names_the_origin_that_may_read_it(region: Region, shared: storage.Bucket) -> None:
    mine = httpx.get(f"{region.url}/{shared.name}/a", headers={"Origin": ORIGIN})
    theirs = httpx.get(f"{region.url}/{shared.name}/a", headers={"Origin": "https://evil.example"})

    assert mine.headers["access-control-allow-origin"] == ORIGIN
    assert mine.headers["access-control-expose-headers"] == "Content-Type"
    assert "access-control-allow-origin" not in theirs.headers


@pytest.mark.parametrize(
    "path",
    ["/storage/v1/b/{bucket}/o/a", "/download/storage/v1/b/{bucket}/o/a?alt=media", "/storage/v1/b/nowhere-at-all"],
)
def test_the_json_api_is_open_to_every_origin(region: Region, bucket: storage.Bucket, path: str) -> None:
    bucket.blob("a").upload_from_string("a")
    asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    with region.http() as http:
        before = http.options(path.format(bucket=bucket.name), headers={"Origin": ORIGIN, **asked})
        answer = http.get(path.format(bucket=bucket.name), headers={"Origin": ORIGIN})

    assert before.status_code == 200
    assert before.headers["access-control-allow-headers"] == "authorization"
    assert "GET" in before.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-origin"] == ORIGIN
