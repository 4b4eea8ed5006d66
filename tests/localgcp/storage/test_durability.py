"""kill -9: what was acknowledged is there, what was not leaves nothing behind."""

import random
import threading
from collections.abc import Iterator

import httpx
import pytest

from tests.localgcp.killable import Killable, killable

PART = 256 * 1024


@pytest.fixture
def server() -> Iterator[Killable]:
    with killable() as server:
        body = {"name": "durable", "softDeletePolicy": {"retentionDurationSeconds": "0"}}
        assert server.http.post("/storage/v1/b?project=demo-project", json=body).status_code == 200
        yield server


def test_no_acknowledged_object_is_lost_when_the_process_is_killed(server: Killable) -> None:
    chance = random.Random(20261123)
    acknowledged: dict[str, bytes] = {}

    def upload(round_: int) -> None:
        with httpx.Client(base_url=server.url, headers=server.http.headers, timeout=30) as http:
            for number in range(1000):
                name = f"{round_}-{number}"
                content = f"{name} ".encode() * (1 + number * 997 % 30_000)
                params = {"uploadType": "media", "name": name}
                try:
                    answer = http.post("/upload/storage/v1/b/durable/o", params=params, content=content)
                except httpx.TransportError:
                    return
                assert answer.status_code == 200
                acknowledged[name] = content

    for round_ in range(4):
        uploading = threading.Thread(target=upload, args=(round_,))
        before = len(acknowledged)
        uploading.start()
        target = before + chance.randrange(3, 25)
        while len(acknowledged) < target and uploading.is_alive():
            uploading.join(0.001)
        server.kill()
        uploading.join(30)
        server.start()

    listed = server.http.get("/storage/v1/b/durable/o").json()["items"]
    assert {item["name"] for item in listed} >= acknowledged.keys()
    for item in listed:
        content = server.http.get(f"/download/storage/v1/b/durable/o/{item['name']}?alt=media").content
        assert len(content) == int(item["size"])
        assert content == acknowledged.get(item["name"], content)
    assert server.content_files() == len(listed)


def test_access_control_lists_outlive_the_process(server: Killable) -> None:
    http, upload = server.http, "/upload/storage/v1/b/durable/o?uploadType=media"
    for name in ("public", "private"):
        http.post(f"{upload}&name={name}", content=name.encode())
    public = {"entity": "allUsers", "role": "READER"}
    answers = [
        http.post(f"/storage/v1/b/durable/{path}", json=public).status_code
        for path in ("acl", "o/public/acl", "defaultObjectAcl")
    ]

    server.restart()
    http.post(f"{upload}&name=later", content=b"later")

    assert answers == [200, 200, 200]
    listed = httpx.get(f"{server.url}/storage/v1/b/durable/o").json()["items"]
    fetched = {item["name"]: httpx.get(f"{server.url}/durable/{item['name']}").status_code for item in listed}
    assert fetched == {"public": 200, "private": 403, "later": 200}


def test_a_resumable_session_goes_on_in_the_next_process(server: Killable) -> None:
    params = {"uploadType": "resumable", "name": "a"}
    session = server.http.post("/upload/storage/v1/b/durable/o", params=params).headers["location"]
    httpx.put(session, content=b"1" * PART, headers={"Content-Range": f"bytes 0-{PART - 1}/{2 * PART}"})

    server.restart()
    asked = httpx.put(session, headers={"Content-Range": f"bytes */{2 * PART}"})
    rest = {"Content-Range": f"bytes {PART}-{2 * PART - 1}/{2 * PART}"}
    done = httpx.put(session, content=b"2" * PART, headers=rest)

    assert (asked.status_code, asked.headers["range"]) == (308, f"bytes=0-{PART - 1}")
    assert done.status_code == 200
    # Checksums of the first half are not in memory any more, and must be right all the same.
    assert done.json()["md5Hash"] == "2r1AT1Xl7SHom5kqmhwROA=="
    content = server.http.get("/download/storage/v1/b/durable/o/a?alt=media").content
    assert content == b"1" * PART + b"2" * PART


def test_what_a_dead_process_did_not_finish_is_removed(server: Killable) -> None:
    def endless() -> Iterator[bytes]:
        yield b"x" * PART
        server.kill()
        yield b"x" * PART * 64

    with pytest.raises(httpx.TransportError):
        server.http.post("/upload/storage/v1/b/durable/o?uploadType=media&name=a", content=endless())
    server.start()

    assert server.http.get("/storage/v1/b/durable/o/a").status_code == 404
    assert server.content_files() == 0
