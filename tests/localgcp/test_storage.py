"""Cloud Storage, seen by Google's own client."""

import base64
import gzip
import hashlib
import hmac
import io
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import google_crc32c
import httpx
import pytest
from google.api_core.exceptions import (
    BadRequest,
    Conflict,
    Forbidden,
    NotFound,
    PreconditionFailed,
)
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.cloud.storage import _signing, transfer_manager
from google.cloud.storage.blob import ObjectContexts, ObjectCustomContextPayload
from google.cloud.storage.bucket import EncryptionEnforcementConfig
from googleapiclient.errors import HttpError

from tests.localgcp.fixtures import Region
from tests.localgcp.storage.buckets import create_bucket, storage_client

KIB = 1024
MIB = 1024 * KIB


@pytest.fixture
def client(region: Region, project: str) -> storage.Client:
    return storage_client(region, project)


@pytest.fixture
def bucket(client: storage.Client, project: str) -> storage.Bucket:
    return create_bucket(client, f"{project}-bucket")


@pytest.fixture
def versioned(client: storage.Client, project: str) -> storage.Bucket:
    return create_bucket(client, f"{project}-versioned", versioning_enabled=True)


def grant(bucket: storage.Bucket, role: str, *members: str) -> None:
    policy = bucket.get_iam_policy(requested_policy_version=3)
    policy.version = 3
    policy.bindings.append({"role": role, "members": set(members)})
    bucket.set_iam_policy(policy)


# Buckets


def test_a_bucket_keeps_every_property_it_was_made_with(client: storage.Client, project: str) -> None:
    made = client.bucket(f"{project}-full")
    made.labels = {"stack": "au"}
    made.cors = [{"origin": ["https://au.example"], "method": ["GET"], "responseHeader": ["ETag"], "maxAgeSeconds": 60}]
    made.versioning_enabled = True
    made.storage_class = "NEARLINE"
    made.add_lifecycle_delete_rule(age=30, is_live=False)
    made.add_lifecycle_set_storage_class_rule("COLDLINE", age=10, matches_prefix=["a/"])
    made.add_lifecycle_abort_incomplete_multipart_upload_rule(age=7)
    made.soft_delete_policy.retention_duration_seconds = 14 * 86400
    made.iam_configuration.uniform_bucket_level_access_enabled = True
    made.iam_configuration.public_access_prevention = "enforced"
    made.retention_period = 3600
    made.configure_website("index.html", "404.html")
    made.enable_logging("some-logs", "prefix")
    made.default_kms_key_name = "projects/p/locations/l/keyRings/r/cryptoKeys/k"
    made.default_event_based_hold = True
    client.create_bucket(made, location="australia-southeast1")

    found = client.get_bucket(made.name)

    written = {
        key: found._properties[key]
        for key in ("labels", "cors", "versioning", "storageClass", "lifecycle", "website", "logging", "encryption")
    }
    assert written == {
        "labels": {"stack": "au"},
        "cors": [
            {"origin": ["https://au.example"], "method": ["GET"], "responseHeader": ["ETag"], "maxAgeSeconds": 60}
        ],
        "versioning": {"enabled": True},
        "storageClass": "NEARLINE",
        "lifecycle": {
            "rule": [
                {"action": {"type": "Delete"}, "condition": {"age": 30, "isLive": False}},
                {
                    "action": {"type": "SetStorageClass", "storageClass": "COLDLINE"},
                    "condition": {"age": 10, "matchesPrefix": ["a/"]},
                },
                {"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 7}},
            ]
        },
        "website": {"mainPageSuffix": "index.html", "notFoundPage": "404.html"},
        "logging": {"logBucket": "some-logs", "logObjectPrefix": "prefix"},
        "encryption": {"defaultKmsKeyName": "projects/p/locations/l/keyRings/r/cryptoKeys/k"},
    }
    assert found.location == "AUSTRALIA-SOUTHEAST1"
    assert found.location_type == "region"
    assert found.metageneration == 1
    assert found.soft_delete_policy.retention_duration_seconds == 14 * 86400
    assert found.retention_period == 3600
    assert found.iam_configuration.public_access_prevention == "enforced"
    assert found.iam_configuration.uniform_bucket_level_access_locked_time > datetime.now(UTC) + timedelta(days=89)
    assert found.default_event_based_hold is True


def test_a_patch_merges_labels_and_a_null_removes(bucket: storage.Bucket) -> None:
    bucket.labels = {"a": "1", "b": "2"}
    bucket.patch()
    labels = bucket.labels
    del labels["a"]
    labels["c"] = "3"
    bucket.labels = labels
    bucket.patch()

    bucket.reload()

    assert bucket.labels == {"b": "2", "c": "3"}
    assert bucket.metageneration == 3


def test_the_encryption_that_is_enforced_has_a_time(bucket: storage.Bucket) -> None:
    bucket.encryption.customer_supplied_encryption_enforcement_config = EncryptionEnforcementConfig("FullyRestricted")
    bucket.patch()
    first = bucket.encryption.customer_supplied_encryption_enforcement_config
    bucket.labels = {"a": "1"}
    bucket.patch()
    bucket.reload()

    assert first.restriction_mode == "FullyRestricted"
    assert first.effective_time is not None
    assert bucket.encryption.customer_supplied_encryption_enforcement_config == first


def test_an_update_unsets_what_it_leaves_out(region: Region, bucket: storage.Bucket) -> None:
    bucket.labels = {"a": "1"}
    bucket.versioning_enabled = True
    bucket.patch()

    with region.http() as http:
        answer = http.put(f"/storage/v1/b/{bucket.name}", json={"versioning": {"enabled": True}}).json()

    assert "labels" not in answer
    assert answer["versioning"] == {"enabled": True}
    assert answer["iamConfiguration"]["uniformBucketLevelAccess"]["enabled"] is True


@pytest.mark.parametrize("name", ["UPPER", "ab", "with space", "goog-thing", "192.168.1.1", "-dash", "a..b", "x" * 64])
def test_a_bucket_name_that_breaks_the_rules_is_refused(client: storage.Client, name: str) -> None:
    with pytest.raises(BadRequest, match="Invalid bucket name"):
        client._connection.api_request("POST", "/b", query_params={"project": client.project}, data={"name": name})


def test_a_bucket_name_is_taken_for_everybody(region: Region, client: storage.Client, bucket: storage.Bucket) -> None:
    other = storage_client(region, f"{client.project}-other")

    with pytest.raises(Conflict, match="you already own it"):
        client.create_bucket(bucket.name)
    with pytest.raises(Conflict, match="The requested bucket name is not available"):
        other.create_bucket(bucket.name)


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"location": "mars-north1"}, "The specified location constraint is not valid"),
        ({"storageClass": "WARM"}, "Invalid storage class"),
        ({"softDeletePolicy": {"retentionDurationSeconds": "86400"}}, "Soft delete policy retention duration"),
        ({"softDeletePolicy": {"retentionDurationSeconds": "7776001"}}, "Soft delete policy retention duration"),
        ({"lifecycle": {"rule": [{"action": {"type": "Explode"}, "condition": {"age": 1}}]}}, "unknown action"),
        ({"lifecycle": {"rule": [{"action": {"type": "Delete"}, "condition": {}}]}}, "at least one condition"),
        ({"labels": {"Upper": "x"}}, "Invalid label key"),
        ({"rpo": "ASYNC_TURBO"}, "for dual-region buckets only"),
        ({"colour": "red"}, 'Unknown name "colour"'),
    ],
)
def test_a_wrong_bucket_property_is_refused(
    client: storage.Client, project: str, properties: dict[str, Any], message: str
) -> None:
    body = {"name": f"{project}-wrong", **properties}

    with pytest.raises(BadRequest, match=message):
        client._connection.api_request("POST", "/b", query_params={"project": project}, data=body)


def test_a_bucket_with_objects_cannot_be_deleted(client: storage.Client, bucket: storage.Bucket) -> None:
    bucket.blob("a").upload_from_string("a")

    with pytest.raises(Conflict, match="The bucket you tried to delete is not empty"):
        bucket.delete()
    bucket.blob("a").delete()
    bucket.delete()
    with pytest.raises(NotFound, match="The specified bucket does not exist"):
        client.get_bucket(bucket.name)


def test_buckets_are_listed_by_prefix_and_page(client: storage.Client, project: str) -> None:
    for suffix in ("a-1", "a-2", "a-3", "b-1"):
        create_bucket(client, f"{project}-{suffix}")

    pages = [[bucket.name for bucket in page] for page in client.list_buckets(prefix=f"{project}-a", page_size=2).pages]

    assert pages == [[f"{project}-a-1", f"{project}-a-2"], [f"{project}-a-3"]]


def test_a_bucket_change_can_depend_on_its_metageneration(bucket: storage.Bucket) -> None:
    bucket.labels = {"a": "1"}

    with pytest.raises(PreconditionFailed):
        bucket.patch(if_metageneration_match=99)
    bucket.patch(if_metageneration_match=1)
    assert bucket.metageneration == 2


def test_a_locked_retention_policy_cannot_be_shortened(bucket: storage.Bucket) -> None:
    bucket.retention_period = 3600
    bucket.patch()
    bucket.lock_retention_policy()

    bucket.retention_period = 60
    with pytest.raises(Forbidden, match="locked retention policy"):
        bucket.patch()


# Objects


def test_an_object_comes_back_as_it_was_sent(bucket: storage.Bucket) -> None:
    content = os.urandom(3 * MIB + 7)
    blob = bucket.blob("folder/näme with %2F & spaces.bin")
    blob.metadata = {"origin": "test"}
    blob.cache_control = "no-store"
    blob.content_disposition = "attachment"
    blob.custom_time = datetime(2026, 1, 1, tzinfo=UTC)
    blob.upload_from_string(content, content_type="application/x-thing", checksum="md5")

    found = bucket.get_blob(blob.name)

    assert found.download_as_bytes(checksum="crc32c") == content
    assert found.size == len(content)
    assert found.md5_hash == base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
    assert found.crc32c == base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()
    assert (found.content_type, found.metadata, found.cache_control) == (
        "application/x-thing",
        {"origin": "test"},
        "no-store",
    )
    assert found.metageneration == 1
    assert found.storage_class == "STANDARD"
    assert found.custom_time == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_resumable_upload_arrives_in_chunks(bucket: storage.Bucket) -> None:
    content = os.urandom(2 * MIB + 11)
    blob = bucket.blob("chunked", chunk_size=256 * KIB)

    blob.upload_from_file(io.BytesIO(content))

    assert bucket.blob("chunked").download_as_bytes() == content
    assert bucket.get_blob("chunked").size == len(content)


def test_an_upload_with_a_wrong_checksum_leaves_nothing(region: Region, bucket: storage.Bucket) -> None:
    path = f"/upload/storage/v1/b/{bucket.name}/o"
    with region.http() as http:
        answer = http.post(
            path,
            params={"uploadType": "media", "name": "a"},
            content=b"abc",
            headers={"x-goog-hash": "crc32c=AAAAAA=="},
        )

    assert answer.status_code == 400
    assert "doesn't match calculated CRC32C" in answer.json()["error"]["message"]
    assert bucket.get_blob("a") is None


def test_an_object_that_does_not_exist_is_named(bucket: storage.Bucket) -> None:
    with pytest.raises(NotFound, match=f"No such object: {bucket.name}/nothing"):
        bucket.blob("nothing").reload()
    with pytest.raises(NotFound, match="No such object"):
        bucket.blob("nothing").download_as_bytes()
    with pytest.raises(NotFound, match="No such object"):
        bucket.blob("nothing").delete()


def test_create_only_refuses_an_object_that_exists(bucket: storage.Bucket) -> None:
    bucket.blob("a").upload_from_string("first", if_generation_match=0)

    with pytest.raises(PreconditionFailed, match="At least one of the pre-conditions you specified did not hold"):
        bucket.blob("a").upload_from_string("second", if_generation_match=0)
    assert bucket.blob("a").download_as_bytes() == b"first"


@pytest.mark.parametrize("size", [10, 9 * MIB], ids=["multipart", "resumable"])
def test_an_upload_replaces_exactly_the_generation_it_names(bucket: storage.Bucket, size: int) -> None:
    blob = bucket.blob("a")
    blob.upload_from_string("first")
    first = blob.generation
    blob.upload_from_string(b"x" * size, if_generation_match=first)

    with pytest.raises(PreconditionFailed):
        bucket.blob("a").upload_from_string(b"y" * size, if_generation_match=first, retry=None)
    assert bucket.blob("a").download_as_bytes() == b"x" * size


def test_of_many_who_create_at_once_one_succeeds(bucket: storage.Bucket) -> None:
    def create(number: int) -> int | None:
        try:
            bucket.blob("a").upload_from_string(str(number), if_generation_match=0)
        except PreconditionFailed:
            return None
        return number

    with ThreadPoolExecutor(8) as threads:
        winners = [number for number in threads.map(create, range(8)) if number is not None]

    assert len(winners) == 1
    assert bucket.blob("a").download_as_bytes() == str(winners[0]).encode()


def test_preconditions_guard_reading_changing_and_deleting(bucket: storage.Bucket) -> None:
    blob = bucket.blob("a")
    blob.upload_from_string("a")
    generation = blob.generation

    with pytest.raises(PreconditionFailed):
        blob.download_as_bytes(if_generation_match=generation + 1)
    with pytest.raises(PreconditionFailed):
        blob.delete(if_metageneration_match=7)
    blob.metadata = {"a": "b"}
    with pytest.raises(PreconditionFailed):
        blob.patch(if_metageneration_match=2)
    blob.patch(if_metageneration_match=1, if_generation_match=generation)
    assert (blob.generation, blob.metageneration) == (generation, 2)
    blob.delete(if_generation_match=generation)


def test_a_read_that_changed_nothing_is_304(region: Region, bucket: storage.Bucket) -> None:
    blob = bucket.blob("a")
    blob.upload_from_string("a")
    with region.http() as http:
        url = f"/storage/v1/b/{bucket.name}/o/a"
        by_generation = http.get(url, params={"ifGenerationNotMatch": blob.generation})
        by_etag = http.get(url, params={"alt": "media"}, headers={"If-None-Match": blob.etag})

    assert (by_generation.status_code, by_generation.content) == (304, b"")
    assert (by_etag.status_code, by_etag.content) == (304, b"")


def test_the_xml_api_compares_times(region: Region, bucket: storage.Bucket) -> None:
    bucket.blob("a").upload_from_string("a")
    past, future = "Sat, 01 Jan 2000 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"
    with region.http() as http:
        url = f"/{bucket.name}/a"
        statuses = {
            "unchanged": http.get(url, headers={"If-Modified-Since": future}).status_code,
            "changed": http.get(url, headers={"If-Modified-Since": past}).status_code,
            "changed already": http.get(url, headers={"If-Unmodified-Since": past}).status_code,
            "no date": http.get(url, headers={"If-Modified-Since": "yesterday"}).status_code,
        }

    assert statuses == {"unchanged": 304, "changed": 200, "changed already": 412, "no date": 200}


def test_the_xml_api_compares_entity_tags(region: Region, bucket: storage.Bucket) -> None:
    bucket.blob("a").upload_from_string("a")
    with region.http() as http:
        url = f"/{bucket.name}/a"
        etag = http.get(url).headers["etag"]
        statuses = [
            http.get(url, headers={"If-None-Match": f'"other", {etag}'}).status_code,
            http.get(url, headers={"If-Match": '"other"'}).status_code,
            http.put(url, content=b"b", headers={"If-None-Match": "*"}).status_code,
            http.put(url, content=b"b", headers={"If-Match": '"other"'}).status_code,
            http.put(url, content=b"b", headers={"If-Match": etag}).status_code,
            http.put(url, content=b"c", headers={"If-Match": etag}).status_code,
        ]

    assert statuses == [304, 412, 412, 412, 200, 412]
    assert bucket.blob("a").download_as_bytes() == b"b"


def test_metadata_may_be_in_any_language(region: Region, bucket: storage.Bucket) -> None:
    metadata = {"größe": "zwölf ☃", "two words": "x", "plain-1": "100%"}
    blob = bucket.blob("a")
    blob.metadata = metadata
    blob.upload_from_string("a")
    with region.http() as http:
        headers = http.get(f"/{bucket.name}/a").headers
        sent = {name: text for name, text in headers.items() if name.startswith("x-goog-meta-")}
        http.put(f"/{bucket.name}/b", content=b"b", headers=sent)

    assert bucket.get_blob("a").metadata == metadata
    assert bucket.get_blob("b").metadata == metadata


def test_metadata_is_patched_key_by_key_and_updated_whole(bucket: storage.Bucket) -> None:
    blob = bucket.blob("a")
    blob.metadata = {"a": "1", "b": "2"}
    blob.cache_control = "no-store"
    blob.upload_from_string("a", content_type="text/plain")

    blob.metadata = {"a": None, "c": "3"}
    blob.patch()
    patched = bucket.get_blob("a")
    patched.cache_control = None
    patched.update()

    assert patched.metadata == {"b": "2", "c": "3"}
    assert bucket.get_blob("a").cache_control is None
    assert bucket.get_blob("a").content_type == "text/plain"


def test_ranges_are_served(bucket: storage.Bucket, region: Region) -> None:
    bucket.blob("a").upload_from_string(b"0123456789")

    assert bucket.blob("a").download_as_bytes(start=2, end=4) == b"234"
    with region.http() as http:
        url = f"/download/storage/v1/b/{bucket.name}/o/a?alt=media"
        tail = http.get(url, headers={"Range": "bytes=-3"})
        beyond = http.get(url, headers={"Range": "bytes=10-"})
        several = http.get(url, headers={"Range": "bytes=0-1,4-5"})
    assert (tail.status_code, tail.content, tail.headers["content-range"]) == (206, b"789", "bytes 7-9/10")
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */10")
    assert (several.status_code, several.content) == (200, b"0123456789")


def test_an_empty_object_is_an_object(bucket: storage.Bucket) -> None:
    bucket.blob("empty").upload_from_string(b"")

    assert bucket.blob("empty").download_as_bytes() == b""
    assert bucket.get_blob("empty").size == 0


def test_gzip_is_unpacked_for_who_does_not_accept_it(bucket: storage.Bucket, region: Region) -> None:
    plain = b"hello " * 100_000
    packed = gzip.compress(plain)
    blob = bucket.blob("a.txt")
    blob.content_encoding = "gzip"
    blob.upload_from_string(packed, content_type="text/plain")

    with region.http() as http:
        url = f"/download/storage/v1/b/{bucket.name}/o/a.txt?alt=media"
        unpacked = http.get(url, headers={"Accept-Encoding": "identity", "Range": "bytes=0-1"})
    assert blob.download_as_bytes() == plain
    assert blob.download_as_bytes(raw_download=True) == packed
    assert unpacked.content == plain
    assert unpacked.status_code == 200
    assert "content-encoding" not in unpacked.headers
    assert unpacked.headers["x-goog-stored-content-encoding"] == "gzip"
    assert unpacked.headers["x-goog-stored-content-length"] == str(len(packed))


# Versions, soft delete, holds


def test_versioning_keeps_what_is_overwritten_and_deleted(versioned: storage.Bucket) -> None:
    blob = versioned.blob("a")
    blob.upload_from_string("one")
    first = blob.generation
    blob.upload_from_string("two")
    versioned.blob("a").delete()

    found = [(b.generation == first, b.time_deleted is not None) for b in versioned.list_blobs(versions=True)]
    assert found == [(True, True), (False, True)]
    assert list(versioned.list_blobs()) == []
    assert versioned.blob("a", generation=first).download_as_bytes() == b"one"
    versioned.blob("a", generation=first).delete()
    assert [b.generation == first for b in versioned.list_blobs(versions=True)] == [False]


def test_a_deleted_object_can_be_restored(bucket: storage.Bucket) -> None:
    blob = bucket.blob("a")
    blob.metadata = {"kept": "yes"}
    blob.upload_from_string("precious")
    lost = blob.generation
    blob.delete()

    (soft_deleted,) = bucket.list_blobs(soft_deleted=True)
    looked_at = bucket.get_blob("a", generation=lost, soft_deleted=True)
    restored = bucket.restore_blob("a", generation=lost)

    assert soft_deleted.generation == lost
    assert looked_at.hard_delete_time - looked_at.soft_delete_time == timedelta(days=7)
    assert bucket.blob("a").download_as_bytes() == b"precious"
    assert restored.generation > lost
    assert bucket.get_blob("a").metadata == {"kept": "yes"}


def test_without_a_soft_delete_policy_a_deleted_object_is_gone(
    region: Region, client: storage.Client, project: str
) -> None:
    made = client.bucket(f"{project}-hard")
    made.soft_delete_policy.retention_duration_seconds = 0
    bucket = client.create_bucket(made)
    bucket.blob("a").upload_from_string("a")
    files = _content_files(region)
    bucket.blob("a").delete()

    assert list(bucket.list_blobs(soft_deleted=True)) == []
    assert _content_files(region) == files - 1


def test_a_hold_forbids_deletion_and_overwriting(bucket: storage.Bucket) -> None:
    blob = bucket.blob("a")
    blob.upload_from_string("a")
    blob.temporary_hold = True
    blob.patch()

    with pytest.raises(Forbidden, match="is under active Temporary hold"):
        blob.delete()
    with pytest.raises(Forbidden, match="is under active Temporary hold"):
        bucket.blob("a").upload_from_string("b")
    blob.temporary_hold = False
    blob.patch()
    blob.delete()


def test_a_retention_period_forbids_deletion(client: storage.Client, project: str) -> None:
    bucket = create_bucket(client, f"{project}-retained", retention_period=3600)
    bucket.blob("a").upload_from_string("a")

    with pytest.raises(Forbidden, match="subject to bucket's retention policy"):
        bucket.blob("a").delete()
    with pytest.raises(Forbidden, match="subject to bucket's retention policy"):
        bucket.blob("a").upload_from_string("b")
    assert bucket.get_blob("a").retention_expiration_time > datetime.now(UTC) + timedelta(minutes=59)


def test_an_object_can_be_retained_on_its_own(client: storage.Client, project: str) -> None:
    bucket = client.create_bucket(f"{project}-retains", enable_object_retention=True)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    blob = bucket.blob("a")
    blob.upload_from_string("a")
    blob.retention.mode = "Unlocked"
    blob.retention.retain_until_time = tomorrow
    blob.patch()

    with pytest.raises(Forbidden, match="object retention"):
        blob.delete()
    blob.retention.retain_until_time = tomorrow - timedelta(hours=1)
    with pytest.raises(Forbidden, match="cannot be shortened or removed"):
        blob.patch()
    blob.retention.mode = None
    blob.retention.retain_until_time = None
    blob.patch(override_unlocked_retention=True)
    assert bucket.get_blob("a").retention.mode is None
    blob.delete()


def test_only_a_bucket_that_allows_it_retains_objects_on_their_own(bucket: storage.Bucket) -> None:
    blob = bucket.blob("a")
    blob.retention.mode = "Locked"
    blob.retention.retain_until_time = datetime.now(UTC) + timedelta(days=1)

    with pytest.raises(BadRequest, match="not enabled for object retention"):
        blob.upload_from_string("a")


# Copies


def test_a_copy_keeps_metadata_and_outlives_its_source(
    client: storage.Client, bucket: storage.Bucket, project: str
) -> None:
    other = create_bucket(client, f"{project}-other")
    blob = bucket.blob("a")
    blob.metadata = {"k": "v"}
    blob.upload_from_string("content", content_type="text/x-a")
    bucket.copy_blob(blob, other, "b")
    blob.delete()

    found = other.get_blob("b")
    assert (found.download_as_bytes(), found.metadata, found.content_type) == (b"content", {"k": "v"}, "text/x-a")


def test_the_xml_api_copies_what_the_source_still_is(region: Region, bucket: storage.Bucket) -> None:
    bucket.blob("a").upload_from_string("a")
    generation = bucket.get_blob("a").generation
    with region.http() as http:
        source = {"x-goog-copy-source": f"/{bucket.name}/a"}
        same = {**source, "x-goog-copy-source-if-generation-match": str(generation)}
        other = {**source, "x-goog-copy-source-if-generation-match": "1"}
        statuses = [http.put(f"/{bucket.name}/b", headers=headers).status_code for headers in (other, same)]
        listed = {**source, "x-goog-acl": "public-read"}
        statuses.append(http.put(f"/{bucket.name}/c", headers=listed).status_code)
        statuses.append(http.put(f"/{bucket.name}/a?compose", content=b"<ComposeRequest/>").status_code)

    assert statuses == [412, 200, 400, 501]
    assert {blob.name: blob.download_as_bytes() for blob in bucket.list_blobs()} == {"a": b"a", "b": b"a"}


def test_a_rewrite_changes_the_storage_class(bucket: storage.Bucket) -> None:
    blob = bucket.blob("a")
    blob.upload_from_string("content")
    generation = blob.generation

    blob.update_storage_class("NEARLINE")

    found = bucket.get_blob("a")
    assert (found.storage_class, found.download_as_bytes()) == ("NEARLINE", b"content")
    assert found.generation > generation


def test_a_rewrite_answers_what_it_did(bucket: storage.Bucket) -> None:
    bucket.blob("a").upload_from_string("content")

    token, rewritten, total = bucket.blob("b").rewrite(bucket.blob("a"))

    assert (token, rewritten, total) == (None, 7, 7)
    with pytest.raises(PreconditionFailed):
        bucket.blob("b").rewrite(bucket.blob("a"), if_generation_match=0)


def test_a_rewrite_to_another_class_takes_as_many_calls_as_its_limit_asks_for(
    region: Region, bucket: storage.Bucket
) -> None:
    content = os.urandom(2 * MIB + 1)
    bucket.blob("a").upload_from_string(content)
    objects = region.api("storage", "v1").objects()

    def rewrite(limit: int, token: str | None) -> dict[str, Any]:
        names = {"sourceBucket": bucket.name, "sourceObject": "a", "destinationBucket": bucket.name}
        query = {"destinationObject": "b", "maxBytesRewrittenPerCall": limit, "rewriteToken": token}
        answer: dict[str, Any] = objects.rewrite(**names, **query, body={"storageClass": "NEARLINE"}).execute()
        return answer

    answers = [rewrite(MIB, None)]
    while not answers[-1]["done"]:
        assert bucket.get_blob("b") is None
        answers.append(rewrite(MIB, answers[-1]["rewriteToken"]))

    assert [int(answer["totalBytesRewritten"]) for answer in answers] == [MIB, 2 * MIB, 2 * MIB + 1]
    assert bucket.blob("b").download_as_bytes() == content
    for limit, token in [(2 * MIB, answers[0]["rewriteToken"]), (MIB, "nonsense"), (1000, None)]:
        with pytest.raises(HttpError, match="HttpError 400"):
            rewrite(limit, token)


def test_composed_objects_have_the_checksum_of_their_content(bucket: storage.Bucket) -> None:
    parts = [os.urandom(size) for size in (1, 300_000, 0, 70_001)]
    blobs = []
    for number, part in enumerate(parts):
        blobs.append(bucket.blob(f"part-{number}"))
        blobs[-1].upload_from_string(part, content_type="text/x-part")
    whole = bucket.blob("whole")
    whole.compose(blobs)

    content = b"".join(parts)
    assert whole.download_as_bytes(checksum="crc32c") == content
    assert whole.crc32c == base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()
    assert (whole.component_count, whole.md5_hash, whole.content_type) == (4, None, "text/x-part")
    again = bucket.blob("again")
    again.compose([whole, blobs[0]])
    assert again.component_count == 5


def test_compose_takes_at_most_32_objects(bucket: storage.Bucket) -> None:
    blob = bucket.blob("a")
    blob.upload_from_string("a")

    with pytest.raises(BadRequest, match=r"exceeds the maximum \(32\)"):
        bucket.blob("b").compose([blob] * 33)
    with pytest.raises(PreconditionFailed):
        bucket.blob("b").compose([blob], if_source_generation_match=[1])


def test_an_object_can_be_renamed(bucket: storage.Bucket) -> None:
    bucket.blob("old").upload_from_string("content")

    bucket.rename_blob(bucket.blob("old"), "new")
    bucket.move_blob(bucket.blob("new"), "newest")

    assert [(b.name, b.download_as_bytes()) for b in bucket.list_blobs()] == [("newest", b"content")]


# Lists


NAMES = ["a.txt", "a/1.txt", "a/2.csv", "a/b/3.txt", "a/b/", "b/4.txt", "é.txt", "z"]


@pytest.fixture
def filled(bucket: storage.Bucket) -> storage.Bucket:
    for name in NAMES:
        bucket.blob(name).upload_from_string(name)
    return bucket


def test_a_list_is_ordered_by_bytes(filled: storage.Bucket) -> None:
    assert [b.name for b in filled.list_blobs()] == [
        *("a.txt", "a/1.txt", "a/2.csv", "a/b/", "a/b/3.txt", "b/4.txt", "z", "é.txt")
    ]


def test_a_delimiter_folds_names_into_prefixes(filled: storage.Bucket) -> None:
    top = filled.list_blobs(delimiter="/")
    assert [b.name for b in top] == ["a.txt", "z", "é.txt"]
    assert top.prefixes == {"a/", "b/"}

    below = filled.list_blobs(prefix="a/", delimiter="/", include_trailing_delimiter=True)
    assert [b.name for b in below] == ["a/1.txt", "a/2.csv", "a/b/"]
    assert below.prefixes == {"a/b/"}


@pytest.mark.parametrize("page_size", [1, 2, 3])
def test_pages_add_up_to_the_whole_list(filled: storage.Bucket, page_size: int) -> None:
    listing = filled.list_blobs(delimiter="/", page_size=page_size)
    names = [[b.name for b in page] for page in listing.pages]

    assert sorted(name for page in names for name in page) == ["a.txt", "z", "é.txt"]
    assert listing.prefixes == {"a/", "b/"}
    assert all(len(page) <= page_size for page in names)


@pytest.mark.parametrize(
    ("glob", "names"),
    [
        ("a/*.txt", ["a/1.txt"]),
        ("**/*.txt", ["a.txt", "a/1.txt", "a/b/3.txt", "b/4.txt", "é.txt"]),
        ("a/{1,2}.*", ["a/1.txt", "a/2.csv"]),
        ("?", ["z"]),
        ("[ab]/[0-9].txt", ["a/1.txt", "b/4.txt"]),
    ],
)
def test_a_glob_selects(filled: storage.Bucket, glob: str, names: list[str]) -> None:
    assert [b.name for b in filled.list_blobs(match_glob=glob)] == names


def test_offsets_bound_a_list(filled: storage.Bucket) -> None:
    names = [b.name for b in filled.list_blobs(start_offset="a/2", end_offset="b/4.txt")]

    assert names == ["a/2.csv", "a/b/", "a/b/3.txt"]


def test_contexts_have_times_and_filter_a_list(bucket: storage.Bucket) -> None:
    for name, value in (("a", "x"), ("b", "y")):
        blob = bucket.blob(name)
        blob.contexts = ObjectContexts(blob, {"kind": ObjectCustomContextPayload(value=value)})
        blob.upload_from_string(name)
    bucket.blob("c").upload_from_string("c")
    first = bucket.get_blob("a").contexts.custom["kind"]
    blob = bucket.get_blob("a")
    blob.contexts = ObjectContexts(blob, {"more": ObjectCustomContextPayload(value="z")})
    blob.patch()
    bucket.copy_blob(blob, bucket, "d")

    def found(text: str) -> list[str]:
        return [each.name for each in bucket.list_blobs(filter_=text)]

    assert bucket.get_blob("a").contexts.custom["kind"] == first
    assert first.create_time == first.update_time
    assert found('contexts."kind":*') == ["a", "b", "d"]
    assert found('contexts."kind"="x"') == ["a", "d"]
    assert found('-contexts."kind":*') == ["c"]
    assert found('-contexts."more"="z"') == ["b", "c"]
    with pytest.raises(BadRequest, match="Invalid filter"):
        found("kind = x")


@pytest.mark.parametrize(
    "path",
    [
        "/storage/v1/b/{bucket}/o/a?generation=9223372036854775808",
        "/storage/v1/b/{bucket}/o/a?alt=media&generation=-9223372036854775809",
        "/storage/v1/b/{bucket}/o?pageToken=WyJhIiwxZTMwMF0=",
        "/storage/v1/b/{bucket}/o?maxResults=-1",
        "/{bucket}/a?generation=1000000000000000000000",
        "/{bucket}?max-keys=-1",
    ],
)
def test_a_number_that_is_none_is_refused(region: Region, bucket: storage.Bucket, path: str) -> None:
    bucket.blob("a").upload_from_string("a")
    with region.http() as http:
        assert http.get(path.format(bucket=bucket.name)).status_code == 400


@pytest.mark.parametrize("body", [b'{"metadata": {"a": "\\ud800"}}', b'{"name": "\\ud800"}', b"[" * 100_000, b"{"])
def test_json_that_is_none_is_refused(region: Region, bucket: storage.Bucket, body: bytes) -> None:
    bucket.blob("a").upload_from_string("a")
    form = b"--x\r\nContent-Type: application/json\r\n\r\n" + body + b"\r\n--x\r\n\r\na\r\n--x--"
    related = {"Content-Type": "multipart/related; boundary=x"}
    upload = f"/upload/storage/v1/b/{bucket.name}/o?name=b"
    with region.http() as http:
        changed = http.patch(f"/storage/v1/b/{bucket.name}/o/a", content=body)
        started = http.post(f"{upload}&uploadType=resumable", content=body)
        uploaded = http.post(f"{upload}&uploadType=multipart", content=form, headers=related)

    refused = [answer.json()["error"]["errors"][0]["reason"] for answer in (changed, started, uploaded)]
    assert refused == ["parseError"] * 3


def test_fields_select_parts_of_an_answer(filled: storage.Bucket) -> None:
    first = next(iter(filled.list_blobs(fields="items(name,size),nextPageToken", max_results=1)))

    assert first._properties == {"name": "a.txt", "size": "5"}


# Batches and the transfer manager


def test_a_batch_answers_each_call(client: storage.Client, bucket: storage.Bucket) -> None:
    blobs = [bucket.blob(f"b{number}") for number in range(3)]
    for blob in blobs:
        blob.upload_from_string("x")

    with client.batch():
        blobs[0].metadata = {"changed": "yes"}
        blobs[0].patch()
        blobs[1].delete()
    with client.batch(raise_exception=False) as second:
        bucket.blob("b2").delete()
        bucket.blob("nothing").delete()

    assert [answer.status_code for answer in second._responses] == [204, 404]
    assert [(b.name, b.metadata) for b in bucket.list_blobs()] == [("b0", {"changed": "yes"})]


def test_the_transfer_manager_uploads_and_downloads_in_parts(bucket: storage.Bucket, tmp_path: Path) -> None:
    content = os.urandom(11 * MIB)
    (tmp_path / "up").write_bytes(content)
    blob = bucket.blob("folder/big file")
    blob.metadata = {"k": "v"}
    transfer_manager.upload_chunks_concurrently(
        str(tmp_path / "up"), blob, chunk_size=5 * MIB, worker_type=transfer_manager.THREAD, max_workers=2
    )
    found = bucket.get_blob(blob.name)
    transfer_manager.download_chunks_concurrently(
        found, str(tmp_path / "down"), chunk_size=4 * MIB, worker_type=transfer_manager.THREAD, max_workers=2
    )

    assert (tmp_path / "down").read_bytes() == content
    assert (found.metadata, found.component_count) == ({"k": "v"}, 3)
    assert found.crc32c == base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


# Who may do what


def test_an_account_without_a_role_is_refused_by_the_name_of_the_permission(
    region: Region, bucket: storage.Bucket, project: str
) -> None:
    bucket.blob("a").upload_from_string("a")
    account = region.account(project, "nobody-much")
    theirs = storage_client(region, project, region.credentials(account.email)).bucket(bucket.name)

    with pytest.raises(Forbidden) as refusal:
        theirs.blob("a").download_as_bytes()

    assert (
        f"{account.email} does not have storage.objects.get access to the Google Cloud Storage object."
        " Permission 'storage.objects.get' denied on resource (or it may not exist)."
    ) in refusal.value.message
    with pytest.raises(Forbidden, match=r"storage\.objects\.create"):
        theirs.blob("b").upload_from_string("b")
    with pytest.raises(Forbidden, match=r"storage\.objects\.list"):
        list(theirs.list_blobs())
    with pytest.raises(Forbidden, match=r"storage\.buckets\.get access to the Google Cloud Storage bucket"):
        theirs.reload()
    with pytest.raises(Forbidden, match=r"storage\.buckets\.create access to the Google Cloud project"):
        theirs.client.create_bucket(f"{project}-theirs")


def test_overwriting_needs_the_permission_to_delete(region: Region, bucket: storage.Bucket, project: str) -> None:
    creator = region.account(project, "creator")
    grant(bucket, "roles/storage.objectCreator", creator.member)
    theirs = storage_client(region, project, region.credentials(creator.email)).bucket(bucket.name)

    theirs.blob("a").upload_from_string("first")
    with pytest.raises(Forbidden, match=r"storage\.objects\.delete"):
        theirs.blob("a").upload_from_string("second")
    with pytest.raises(Forbidden, match=r"storage\.objects\.delete"):
        theirs.blob("a").upload_from_string(b"x" * 9 * MIB)
    assert bucket.blob("a").download_as_bytes() == b"first"


def test_who_may_not_list_does_not_learn_what_does_not_exist(
    region: Region, bucket: storage.Bucket, project: str
) -> None:
    reader = region.account(project, "legacy-reader")
    grant(bucket, "roles/storage.legacyObjectReader", reader.member)
    theirs = storage_client(region, project, region.credentials(reader.email)).bucket(bucket.name)

    with pytest.raises(Forbidden, match=r"storage\.objects\.list"):
        theirs.blob("nothing").download_as_bytes()


def test_a_condition_limits_a_grant_to_a_prefix(region: Region, bucket: storage.Bucket, project: str) -> None:
    reader = region.account(project, "prefix-reader")
    for name in ("reports/a", "private/a"):
        bucket.blob(name).upload_from_string(name)
    policy = bucket.get_iam_policy(requested_policy_version=3)
    policy.version = 3
    prefix = f"projects/_/buckets/{bucket.name}/objects/reports/"
    policy.bindings.append(
        {
            "role": "roles/storage.objectViewer",
            "members": {reader.member},
            "condition": {"title": "reports", "expression": f'resource.name.startsWith("{prefix}")'},
        }
    )
    bucket.set_iam_policy(policy)
    theirs = storage_client(region, project, region.credentials(reader.email)).bucket(bucket.name)

    assert theirs.blob("reports/a").download_as_bytes() == b"reports/a"
    with pytest.raises(Forbidden):
        theirs.blob("private/a").download_as_bytes()


def test_a_policy_change_from_a_stale_read_is_refused(bucket: storage.Bucket) -> None:
    stale = bucket.get_iam_policy(requested_policy_version=3)
    grant(bucket, "roles/storage.objectViewer", "allAuthenticatedUsers")

    with pytest.raises(PreconditionFailed):
        bucket.set_iam_policy(stale)


def test_a_public_bucket_is_readable_by_anybody_and_a_private_one_is_not(
    region: Region, bucket: storage.Bucket, project: str
) -> None:
    bucket.blob("a").upload_from_string("public")
    nobody = storage_client(region, project, AnonymousCredentials())

    refused = httpx.get(f"{region.url}/download/storage/v1/b/{bucket.name}/o/a?alt=media")
    grant(bucket, "roles/storage.objectViewer", "allUsers")

    assert refused.status_code == 401
    assert "Anonymous caller does not have storage.objects.get access" in refused.json()["error"]["message"]
    assert nobody.bucket(bucket.name).blob("a").download_as_bytes() == b"public"
    answer = httpx.get(f"{region.url}/{bucket.name}/a")
    assert (answer.content, answer.headers["cache-control"]) == (b"public", "public, max-age=3600")


def test_public_access_prevention_refuses_public_members_and_overrides_old_ones(
    region: Region, bucket: storage.Bucket, project: str
) -> None:
    bucket.blob("a").upload_from_string("a")
    grant(bucket, "roles/storage.objectViewer", "allUsers", "allAuthenticatedUsers")
    somebody = region.account(project, "somebody")
    theirs = storage_client(region, project, region.credentials(somebody.email)).bucket(bucket.name)
    before = theirs.blob("a").download_as_bytes()
    bucket.iam_configuration.public_access_prevention = "enforced"
    bucket.patch()

    assert before == b"a"
    assert httpx.get(f"{region.url}/{bucket.name}/a").status_code == 403
    with pytest.raises(Forbidden):
        theirs.blob("a").download_as_bytes()
    with pytest.raises(PreconditionFailed, match="public access prevention is enforced"):
        bucket.set_iam_policy(bucket.get_iam_policy(requested_policy_version=3))


def test_permissions_can_be_asked_for(region: Region, bucket: storage.Bucket, project: str) -> None:
    viewer = region.account(project, "viewer")
    grant(bucket, "roles/storage.objectViewer", viewer.member)
    theirs = storage_client(region, project, region.credentials(viewer.email)).bucket(bucket.name)

    assert theirs.test_iam_permissions(["storage.objects.get", "storage.objects.delete"]) == ["storage.objects.get"]


def test_access_control_lists_are_refused_under_uniform_access(bucket: storage.Bucket) -> None:
    bucket.blob("a").upload_from_string("a")

    with pytest.raises(BadRequest, match="Cannot use ACL API to get object policy when uniform bucket-level access"):
        bucket.blob("a").acl.reload()
    with pytest.raises(BadRequest, match="Cannot insert legacy ACL"):
        bucket.blob("b").upload_from_string("b", predefined_acl="publicRead")


def test_a_notification_is_kept_as_it_was_configured(bucket: storage.Bucket) -> None:
    notification = bucket.notification(
        "changes",
        topic_project="some-project",
        event_types=["OBJECT_FINALIZE"],
        blob_name_prefix="inbox/",
        payload_format="JSON_API_V1",
        custom_attributes={"k": "v"},
    )
    notification.create()

    [found] = bucket.list_notifications()
    assert (found.topic_name, found.topic_project) == ("changes", "some-project")
    assert found.event_types == ["OBJECT_FINALIZE"]
    assert (found.blob_name_prefix, found.payload_format) == ("inbox/", "JSON_API_V1")
    assert found.custom_attributes == {"k": "v"}
    assert bucket.get_notification(notification.notification_id).etag == found.etag
    with pytest.raises(BadRequest, match="Invalid event type: 'OBJECT_READ'"):
        bucket.notification("changes", event_types=["OBJECT_READ"]).create()
    notification.delete()
    assert list(bucket.list_notifications()) == []
    assert not notification.exists()


# Signed URLs


def test_a_signed_url_reads_and_writes_as_the_account_that_signed_it(
    region: Region, bucket: storage.Bucket, project: str
) -> None:
    signer = region.account(project, "signer")
    blob = bucket.blob("folder/a b.txt")

    def url(method: str, **arguments: Any) -> str:
        return str(
            blob.generate_signed_url(
                version="v4", expiration=60, method=method, credentials=signer.credentials, **arguments
            )
        )

    refused = httpx.put(url("PUT", content_type="text/plain"), content=b"x", headers={"Content-Type": "text/plain"})
    grant(bucket, "roles/storage.objectUser", signer.member)
    written = httpx.put(url("PUT", content_type="text/plain"), content=b"hi", headers={"Content-Type": "text/plain"})
    read = httpx.get(url("GET", response_disposition="attachment; filename=x.txt"))

    assert (refused.status_code, "AccessDenied" in refused.text) == (403, True)
    assert written.status_code == 200
    assert (read.status_code, read.content) == (200, b"hi")
    assert read.headers["content-disposition"] == "attachment; filename=x.txt"
    assert bucket.get_blob(blob.name).content_type == "text/plain"


def test_a_changed_signed_url_grants_nothing(region: Region, bucket: storage.Bucket, project: str) -> None:
    signer = region.account(project, "signer", "roles/storage.admin")
    blob = bucket.blob("a")
    blob.upload_from_string("a")
    bucket.blob("b").upload_from_string("b")
    url = blob.generate_signed_url(version="v4", expiration=60, credentials=signer.credentials)
    other = region.account(project, "another", "roles/storage.admin")

    changed = {
        "object": url.replace(f"{bucket.name}/a", f"{bucket.name}/b"),
        "expiry": url.replace("X-Goog-Expires=60", "X-Goog-Expires=6000"),
        "query": f"{url}&response-content-type=text/html",
        "account": url.replace(signer.email.replace("@", "%40"), other.email.replace("@", "%40")),
    }
    answers = {what: httpx.get(each) for what, each in changed.items()}
    assert {what: answer.status_code for what, answer in answers.items()} == dict.fromkeys(changed, 403)
    assert all("SignatureDoesNotMatch" in answer.text for answer in answers.values())
    assert httpx.delete(url).status_code == 403
    assert httpx.get(url).content == b"a"


def test_a_signed_url_is_for_no_header_that_was_not_signed(
    region: Region, bucket: storage.Bucket, project: str
) -> None:
    signer = region.account(project, "signer", "roles/storage.admin")
    blob = bucket.blob("a")
    colour = {"x-goog-meta-colour": "red"}

    def put(signed: dict[str, str]) -> httpx.Response:
        url = blob.generate_signed_url(
            version="v4", expiration=60, method="PUT", credentials=signer.credentials, headers=signed
        )
        return httpx.put(url, content=b"a", headers=colour)

    refused = put({})

    assert (refused.status_code, "x-goog-meta-colour" in refused.text, blob.exists()) == (403, True, False)
    assert put(colour).status_code == 200
    assert bucket.get_blob("a").metadata == {"colour": "red"}


def test_an_expired_signed_url_says_so(region: Region, bucket: storage.Bucket, project: str) -> None:
    signer = region.account(project, "signer", "roles/storage.admin")
    bucket.blob("a").upload_from_string("a")
    hour_ago = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y%m%dT%H%M%SZ")
    url = _signing.generate_signed_url_v4(
        signer.credentials, f"/{bucket.name}/a", 60, api_access_endpoint=region.url, _request_timestamp=hour_ago
    )

    answer = httpx.get(url)

    assert (answer.status_code, "<Code>ExpiredToken</Code>" in answer.text) == (400, True)


def test_an_hmac_key_signs_while_it_is_active(region: Region, bucket: storage.Bucket, project: str) -> None:
    signer = region.account(project, "signer", "roles/storage.objectViewer")
    bucket.blob("a").upload_from_string("a")
    key, secret = bucket.client.create_hmac_key(signer.email)
    url = f"{region.url}/{bucket.name}/a?{_signed_with_hmac(region, key.access_id, secret, f'/{bucket.name}/a')}"

    active = httpx.get(url)
    changed = httpx.get(url.replace("/a?", "/b?"))
    with pytest.raises(BadRequest, match="set its state to INACTIVE first"):
        key.delete()
    key.state = "INACTIVE"
    key.update()
    inactive = httpx.get(url)
    key.delete()

    assert (active.status_code, active.content) == (200, b"a")
    assert (changed.status_code, inactive.status_code) == (403, 403)
    assert list(bucket.client.list_hmac_keys()) == []
    assert [each.state for each in bucket.client.list_hmac_keys(show_deleted_keys=True)] == ["DELETED"]


def test_a_v2_signature_is_refused_by_name(region: Region, bucket: storage.Bucket, project: str) -> None:
    signer = region.account(project, "signer", "roles/storage.admin")
    url = bucket.blob("a").generate_signed_url(version="v2", expiration=60, credentials=signer.credentials)

    answer = httpx.get(url)

    assert (answer.status_code, "sign with version='v4'" in answer.text.replace("&apos;", "'")) == (400, True)


def test_a_signed_resumable_session_takes_a_browser_upload(
    region: Region, bucket: storage.Bucket, project: str
) -> None:
    signer = region.account(project, "signer", "roles/storage.objectAdmin")
    blob = bucket.blob("from the browser")
    url = blob.generate_signed_url(version="v4", expiration=60, method="RESUMABLE", credentials=signer.credentials)

    started = httpx.post(url, headers={"x-goog-resumable": "start"})
    done = httpx.put(started.headers["location"], content=b"0123456789")

    assert (started.status_code, done.status_code) == (201, 200)
    assert blob.download_as_bytes() == b"0123456789"


def _signed_with_hmac(region: Region, access_id: str, secret: str, path: str) -> str:
    """The query of a signed URL to read `path`; Google's client signs with RSA only."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{now[:8]}/auto/storage/goog4_request"
    query = urlencode(
        {
            "X-Goog-Algorithm": "GOOG4-HMAC-SHA256",
            "X-Goog-Credential": f"{access_id}/{scope}",
            "X-Goog-Date": now,
            "X-Goog-Expires": "60",
            "X-Goog-SignedHeaders": "host",
        }
    )
    host = region.url.removeprefix("http://")
    canonical = f"GET\n{path}\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
    text = f"GOOG4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = b"GOOG4" + secret.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return f"{query}&X-Goog-Signature={hmac.digest(key, text.encode(), 'sha256').hex()}"


def _content_files(region: Region) -> int:
    return sum(1 for path in (region.core.settings.data_dir / "storage").rglob("*") if path.is_file())
