"""Resumable sessions, one request at a time: what a client meets when the network is bad."""

import io
import json
from typing import Any

import httpx
import pytest
from google.cloud import storage
from googleapiclient import discovery, discovery_cache
from googleapiclient.http import MediaIoBaseDownload, MediaIoBaseUpload

from tests.localgcp.fixtures import Region

PART = 256 * 1024


@pytest.fixture
def session(region: Region, bucket: storage.Bucket) -> str:
    """The address of a new session for the object `a`."""
    with region.http() as http:
        answer = http.post(
            f"/upload/storage/v1/b/{bucket.name}/o",
            params={"uploadType": "resumable"},
            headers={"X-Upload-Content-Type": "text/x-a", "X-Upload-Content-Length": str(2 * PART)},
            json={"name": "a", "metadata": {"k": "v"}},
        )
    assert answer.status_code == 200
    return str(answer.headers["location"])


def put(session: str, content: bytes, content_range: str) -> httpx.Response:
    return httpx.put(session, content=content, headers={"Content-Range": content_range})


def test_a_session_tells_what_it_has_received(session: str, bucket: storage.Bucket) -> None:
    nothing = put(session, b"", "bytes */*")
    first = put(session, b"1" * PART, f"bytes 0-{PART - 1}/{2 * PART}")
    asked = put(session, b"", f"bytes */{2 * PART}")
    last = put(session, b"2" * PART, f"bytes {PART}-{2 * PART - 1}/{2 * PART}")

    assert (nothing.status_code, "range" in nothing.headers) == (308, False)
    assert (first.status_code, first.headers["range"]) == (308, f"bytes=0-{PART - 1}")
    assert (asked.status_code, asked.headers["range"]) == (308, f"bytes=0-{PART - 1}")
    assert (last.status_code, last.json()["contentType"], last.json()["metadata"]) == (200, "text/x-a", {"k": "v"})
    assert bucket.blob("a").download_as_bytes() == b"1" * PART + b"2" * PART


def test_bytes_that_are_sent_again_count_once(session: str, bucket: storage.Bucket) -> None:
    put(session, b"1" * PART, f"bytes 0-{PART - 1}/{2 * PART}")

    whole = put(session, b"1" * PART + b"2" * PART, f"bytes 0-{2 * PART - 1}/{2 * PART}")

    assert whole.status_code == 200
    assert bucket.blob("a").download_as_bytes() == b"1" * PART + b"2" * PART


def test_a_body_of_another_length_than_it_says_is_refused(session: str, bucket: storage.Bucket) -> None:
    longer = put(session, b"1" * PART, f"bytes 0-{PART - 2}/{2 * PART}")
    whole = httpx.put(session, content=b"1" * PART)
    asked = put(session, b"", "bytes */*")

    assert (longer.status_code, whole.status_code) == (400, 400)
    assert (asked.status_code, "range" in asked.headers) == (308, False)
    assert bucket.get_blob("a") is None


def test_a_gap_is_refused(session: str) -> None:
    answer = put(session, b"2" * PART, f"bytes {PART}-{2 * PART - 1}/{2 * PART}")

    assert answer.status_code == 503
    assert f"the upload offset is {PART} byte(s)" in answer.json()["error"]["message"]


def test_the_answer_to_the_last_chunk_can_be_asked_for_again(session: str) -> None:
    first = put(session, b"1" * 2 * PART, f"bytes 0-{2 * PART - 1}/{2 * PART}").json()

    again = put(session, b"", f"bytes */{2 * PART}")

    assert (again.status_code, again.json()["generation"]) == (200, first["generation"])


def test_a_size_that_is_told_late_ends_the_session(session: str, bucket: storage.Bucket) -> None:
    put(session, b"1" * PART, f"bytes 0-{PART - 1}/*")

    answer = put(session, b"", f"bytes */{PART}")

    assert answer.status_code == 200
    assert bucket.get_blob("a").size == PART


def test_a_cancelled_session_is_gone(session: str, bucket: storage.Bucket) -> None:
    put(session, b"1" * PART, f"bytes 0-{PART - 1}/{2 * PART}")

    assert httpx.delete(session).status_code == 499
    assert put(session, b"", "bytes */*").status_code == 404
    assert bucket.get_blob("a") is None


def test_a_session_keeps_its_preconditions_to_the_end(region: Region, bucket: storage.Bucket) -> None:
    with region.http() as http:
        params = {"uploadType": "resumable", "name": "a", "ifGenerationMatch": "0"}
        location = http.post(f"/upload/storage/v1/b/{bucket.name}/o", params=params).headers["location"]
    bucket.blob("a").upload_from_string("quicker")

    answer = httpx.put(location, content=b"slower")

    assert answer.status_code == 412
    assert bucket.blob("a").download_as_bytes() == b"quicker"


def test_a_checksum_of_the_whole_is_verified_at_the_end(region: Region, bucket: storage.Bucket) -> None:
    with region.http() as http:
        location = http.post(
            f"/upload/storage/v1/b/{bucket.name}/o",
            params={"uploadType": "resumable"},
            json={"name": "a", "crc32c": "AAAAAA=="},
        ).headers["location"]

    answer = httpx.put(location, content=b"content")

    assert (answer.status_code, bucket.get_blob("a")) == (400, None)


def test_a_multipart_upload_of_the_wrong_form_is_refused(region: Region, bucket: storage.Bucket) -> None:
    url = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=multipart&name=a"
    part = b"--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b\r\n\r\nhello"
    bodies = {
        "no boundary": (b"", "multipart/related"),
        "no end": (part, "multipart/related; boundary=b"),
        "no JSON": (b"--b\r\n\r\n{\r\n--b\r\n\r\nhello\r\n--b--", "multipart/related; boundary=b"),
        "unknown field": (
            b'--b\r\n\r\n{"colour": "red"}\r\n--b\r\n\r\nhello\r\n--b--',
            "multipart/related; boundary=b",
        ),
    }
    with region.http() as http:
        answers = {
            what: http.post(url, content=body, headers={"Content-Type": kind}).status_code
            for what, (body, kind) in bodies.items()
        }

    assert answers == dict.fromkeys(bodies, 400)
    assert bucket.get_blob("a") is None


def test_a_multipart_upload_may_hold_what_looks_like_its_end(region: Region, bucket: storage.Bucket) -> None:
    content = b"\r\n--bound\r\n--boundar\r\n\r\n--" * 50_000
    body = (
        b"--boundary\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
        b'{"name": "a"}\r\n--boundary\r\nContent-Type: text/x-a\r\n\r\n' + content + b"\r\n--boundary--\r\n"
    )
    with region.http() as http:
        answer = http.post(
            f"/upload/storage/v1/b/{bucket.name}/o?uploadType=multipart",
            content=body,
            headers={"Content-Type": 'multipart/related; boundary="boundary"'},
        )

    assert answer.status_code == 200
    assert bucket.blob("a").download_as_bytes() == content
    assert bucket.get_blob("a").content_type == "text/x-a"


def test_a_header_cannot_be_smuggled_through_metadata(region: Region, bucket: storage.Bucket) -> None:
    bucket.blob("a").upload_from_string("a")
    with region.http() as http:
        answer = http.patch(f"/storage/v1/b/{bucket.name}/o/a", json={"cacheControl": "no-store\r\nX-Evil: 1"})

    assert answer.status_code == 400


@pytest.fixture
def objects(region: Region) -> Any:
    """What google-api-python-client makes of the API. It uploads to its document's address, whatever it is told."""
    document = json.loads(discovery_cache.get_static_doc("storage", "v1"))
    document["rootUrl"] = f"{region.url}/"
    return discovery.build_from_document(document, credentials=region.credentials()).objects()


@pytest.mark.parametrize("resumable", [True, False])
@pytest.mark.parametrize("content", [b"", b"a\r\n--b\n" * 100_000])
def test_the_generated_client_uploads_and_downloads(
    objects: Any, bucket: storage.Bucket, content: bytes, resumable: bool
) -> None:
    media = MediaIoBaseUpload(io.BytesIO(content), mimetype="text/x-a", resumable=resumable)
    body = {"name": "a", "metadata": {"k": "v"}}
    made = objects.insert(bucket=bucket.name, body=body, media_body=media).execute()
    received = io.BytesIO()
    download = MediaIoBaseDownload(received, objects.get_media(bucket=bucket.name, object="a"), chunksize=PART)
    done = False
    while not done:
        _, done = download.next_chunk()

    assert (made["contentType"], made["metadata"]) == ("text/x-a", {"k": "v"})
    assert received.getvalue() == content
