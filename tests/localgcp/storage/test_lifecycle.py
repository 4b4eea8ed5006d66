"""Time passes: lifecycle rules, soft delete, sessions. A region of its own, because its clock moves."""

from datetime import timedelta

import httpx
import pytest
from google.api_core.exceptions import NotFound
from google.cloud import storage

from localgcp.storage.cloud_storage import of
from localgcp.storage.lifecycle import Applied
from tests.localgcp.fixtures import Region
from tests.localgcp.storage.buckets import create_bucket, storage_client


@pytest.fixture
def region(moved: Region) -> Region:
    return moved


@pytest.fixture
def bucket(region: Region, project: str) -> storage.Bucket:
    return create_bucket(storage_client(region, project), f"{project}-bucket")


def after(region: Region, bucket: storage.Bucket, days: float) -> tuple[Applied, storage.Bucket]:
    """What happens within `days`, and the bucket with a token that is good then."""
    region.core.clock.advance(timedelta(days=days))
    applied = of(region.core).apply_lifecycle()
    return applied, storage_client(region, bucket.client.project).bucket(bucket.name)


def names(bucket: storage.Bucket, **query: bool) -> list[str]:
    return [blob.name for blob in bucket.list_blobs(**query)]


def test_old_objects_of_a_prefix_are_deleted(region: Region, bucket: storage.Bucket) -> None:
    bucket.add_lifecycle_delete_rule(age=30, matches_prefix=["tmp/"], matches_suffix=[".log"])
    bucket.patch()
    for name in ("tmp/a.log", "tmp/a.txt", "kept/a.log"):
        bucket.blob(name).upload_from_string("x")

    early, bucket = after(region, bucket, 29.9)
    late, bucket = after(region, bucket, 0.2)

    assert (early.deleted, late.deleted) == (0, 1)
    assert names(bucket) == ["kept/a.log", "tmp/a.txt"]


def test_noncurrent_versions_go_by_age_and_by_number(region: Region, bucket: storage.Bucket) -> None:
    bucket.versioning_enabled = True
    bucket.add_lifecycle_delete_rule(number_of_newer_versions=2, is_live=False)
    bucket.add_lifecycle_delete_rule(days_since_noncurrent_time=30)
    bucket.patch()
    for content in ("1", "2", "3", "4"):
        bucket.blob("a").upload_from_string(content)

    by_number, bucket = after(region, bucket, 1)
    left = [blob.download_as_bytes() for blob in bucket.list_blobs(versions=True)]
    by_age, bucket = after(region, bucket, 30)

    assert (by_number.deleted, left) == (2, [b"3", b"4"])
    assert (by_age.deleted, [blob.download_as_bytes() for blob in bucket.list_blobs(versions=True)]) == (1, [b"4"])


def test_an_object_becomes_colder_once_and_keeps_its_generation(region: Region, bucket: storage.Bucket) -> None:
    bucket.add_lifecycle_set_storage_class_rule("NEARLINE", age=1, matches_storage_class=["STANDARD"])
    bucket.add_lifecycle_set_storage_class_rule("ARCHIVE", age=1, matches_prefix=["old/"])
    bucket.patch()
    blob = bucket.blob("a")
    blob.upload_from_string("x")
    bucket.blob("old/a").upload_from_string("x")

    first, bucket = after(region, bucket, 1.1)
    second, bucket = after(region, bucket, 1.1)

    assert (first.moved, second.moved) == (2, 0)
    assert {b.name: b.storage_class for b in bucket.list_blobs()} == {"a": "NEARLINE", "old/a": "ARCHIVE"}
    assert bucket.get_blob("a").generation == blob.generation


def test_a_hold_outlasts_a_rule(region: Region, bucket: storage.Bucket) -> None:
    bucket.add_lifecycle_delete_rule(age=1)
    bucket.patch()
    blob = bucket.blob("a")
    blob.upload_from_string("x")
    blob.temporary_hold = True
    blob.patch()

    applied, bucket = after(region, bucket, 2)

    assert (applied.deleted, names(bucket)) == (0, ["a"])


def test_custom_time_counts_when_it_is_set(region: Region, bucket: storage.Bucket) -> None:
    bucket.add_lifecycle_delete_rule(days_since_custom_time=10)
    bucket.patch()
    dated, undated = bucket.blob("dated"), bucket.blob("undated")
    dated.custom_time = region.core.clock.now() - timedelta(days=9)
    dated.upload_from_string("x")
    undated.upload_from_string("x")

    _, bucket = after(region, bucket, 1.5)

    assert names(bucket) == ["undated"]


def test_a_soft_deleted_object_is_purged_with_its_file_when_its_time_is_over(
    region: Region, bucket: storage.Bucket
) -> None:
    blob = bucket.blob("a")
    blob.upload_from_string("x")
    blob.delete()
    contents = of(region.core).objects.referenced_contents()

    early, bucket = after(region, bucket, 6.9)
    kept = names(bucket, soft_deleted=True)
    late, bucket = after(region, bucket, 0.2)

    assert (early.purged, kept, late.purged) == (0, ["a"], 1)
    assert names(bucket, soft_deleted=True) == []
    with pytest.raises(NotFound):
        bucket.restore_blob("a", generation=blob.generation)
    gone = contents - of(region.core).objects.referenced_contents()
    assert len(gone) == 1
    assert not any(of(region.core).files.path(content).exists() for content in gone)


def test_a_retention_period_ends(region: Region, bucket: storage.Bucket) -> None:
    bucket.retention_period = 86400
    bucket.patch()
    bucket.blob("a").upload_from_string("x")

    _, bucket = after(region, bucket, 1.01)
    bucket.blob("a").delete()

    assert names(bucket) == []


def test_an_abandoned_multipart_upload_is_aborted(region: Region, bucket: storage.Bucket) -> None:
    bucket.add_lifecycle_abort_incomplete_multipart_upload_rule(age=7)
    bucket.patch()
    with region.http() as http:
        started = http.post(f"/{bucket.name}/a?uploads")
        upload_id = started.text.partition("<UploadId>")[2].partition("</UploadId>")[0]
        http.put(f"/{bucket.name}/a", params={"uploadId": upload_id, "partNumber": "1"}, content=b"x")

    applied, _ = after(region, bucket, 7.1)

    with region.http() as http:
        answer = http.put(f"/{bucket.name}/a", params={"uploadId": upload_id, "partNumber": "2"}, content=b"x")
    assert (applied.aborted, answer.status_code, "NoSuchUpload" in answer.text) == (1, 404, True)


def test_a_resumable_session_lasts_a_week(region: Region, bucket: storage.Bucket) -> None:
    with region.http() as http:
        url = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=resumable&name=a"
        session = http.post(url).headers["location"]

    after(region, bucket, 7.1)

    assert httpx.put(session, content=b"x").status_code == 404
