"""What a backend bucket gets: only what everybody may read."""

import asyncio
import gzip
import sys
from pathlib import Path

import pytest
from google.cloud import storage

from localgcp.errors import NotFound, Unauthenticated
from localgcp.storage.public import PublicObject, open_public
from tests.localgcp.fixtures import Region


@pytest.fixture
def public(bucket: storage.Bucket) -> storage.Bucket:
    policy = bucket.get_iam_policy(requested_policy_version=3)
    policy.bindings.append({"role": "roles/storage.objectViewer", "members": {"allUsers"}})
    bucket.set_iam_policy(policy)
    bucket.blob("app.css").upload_from_string("body {}", content_type="text/css")
    return bucket


def content(opened: PublicObject) -> bytes:
    async def read() -> bytes:
        return b"".join([chunk async for chunk in opened.body])

    return asyncio.run(read())


def test_a_public_object_comes_with_its_headers(region: Region, public: storage.Bucket) -> None:
    opened = open_public(region.core, public.name, "app.css")

    headers = dict(opened.headers)
    assert (opened.status, content(opened)) == (200, b"body {}")
    assert (headers["content-type"], headers["cache-control"]) == ("text/css", "public, max-age=3600")
    assert headers["content-length"] == "7"


def test_a_range_and_an_unchanged_object_are_answered(region: Region, public: storage.Bucket) -> None:
    part = open_public(region.core, public.name, "app.css", request_headers={"range": "bytes=0-3"})
    etag = dict(part.headers)["etag"]
    unchanged = open_public(region.core, public.name, "app.css", request_headers={"if-none-match": etag})

    assert (part.status, content(part)) == (206, b"body")
    assert (unchanged.status, content(unchanged)) == (304, b"")


def test_gzip_is_passed_on_or_unpacked(region: Region, public: storage.Bucket) -> None:
    packed = gzip.compress(b"body {}")
    blob = public.blob("packed.css")
    blob.content_encoding = "gzip"
    blob.upload_from_string(packed)

    passed = open_public(region.core, public.name, "packed.css", request_headers={"accept-encoding": "gzip, br"})
    unpacked = open_public(region.core, public.name, "packed.css")

    assert (dict(passed.headers)["content-encoding"], content(passed)) == ("gzip", packed)
    assert ("content-encoding" in dict(unpacked.headers), content(unpacked)) == (False, b"body {}")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/fd, which only Linux has")
def test_an_answer_that_is_never_sent_leaves_no_file_open(region: Region, public: storage.Bucket) -> None:
    def open_contents() -> int:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        contents = str(region.core.settings.data_dir / "storage")
        return sum(link.exists() and contents in str(link.readlink()) for link in links)

    before = open_contents()
    opened = open_public(region.core, public.name, "app.css")
    during = open_contents()
    del opened

    assert (during, open_contents()) == (before + 1, before)


def test_a_private_object_is_refused(region: Region, bucket: storage.Bucket) -> None:
    bucket.blob("secret").upload_from_string("x")

    with pytest.raises(Unauthenticated, match="Anonymous caller does not have"):
        open_public(region.core, bucket.name, "secret")


def test_a_website_has_a_main_page_and_a_page_for_what_is_missing(region: Region, public: storage.Bucket) -> None:
    with pytest.raises(NotFound):
        open_public(region.core, public.name, "nothing")
    public.blob("docs/index.html").upload_from_string("main")
    public.blob("404.html").upload_from_string("lost")
    public.configure_website("index.html", "404.html")
    public.patch()

    main, lost = open_public(region.core, public.name, "docs/"), open_public(region.core, public.name, "nothing")

    assert (main.status, content(main)) == (200, b"main")
    assert (lost.status, content(lost)) == (404, b"lost")
