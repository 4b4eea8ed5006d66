"""Customer-supplied encryption keys, as Google's own client sends them."""

import io
from pathlib import Path

import pytest
from google.api_core.exceptions import BadRequest
from google.cloud import storage
from google.cloud.storage import transfer_manager

from tests.localgcp.fixtures import Region

KEY = b"k" * 32
OTHER = b"o" * 32
ENCRYPTED = "The target object is encrypted by a customer-supplied encryption key"
MIB = 1024 * 1024


@pytest.fixture
def locked(bucket: storage.Bucket) -> storage.Blob:
    blob = bucket.blob("locked", encryption_key=KEY)
    blob.upload_from_string("content")
    return blob


def test_only_the_key_opens_an_object(bucket: storage.Bucket, locked: storage.Blob) -> None:
    assert locked.download_as_bytes() == b"content"
    with pytest.raises(BadRequest, match=ENCRYPTED):
        bucket.blob("locked").download_as_bytes()
    with pytest.raises(BadRequest, match="The provided encryption key is incorrect"):
        bucket.blob("locked", encryption_key=OTHER).download_as_bytes()
    bucket.blob("open").upload_from_string("content")
    with pytest.raises(BadRequest, match="is not encrypted by a customer-supplied encryption key"):
        bucket.blob("open", encryption_key=KEY).download_as_bytes()


def test_metadata_is_for_everybody_and_checksums_for_those_with_the_key(
    bucket: storage.Bucket, locked: storage.Blob
) -> None:
    locked.reload()
    without = bucket.get_blob("locked")

    assert locked.crc32c is not None
    assert locked.md5_hash is not None
    assert (without.size, without.crc32c, without.md5_hash) == (7, None, None)
    assert without._properties["customerEncryption"] == locked._properties["customerEncryption"]
    assert [blob.crc32c for blob in bucket.list_blobs()] == [None]


def test_a_rewrite_changes_the_key_or_takes_it_away(bucket: storage.Bucket, locked: storage.Blob) -> None:
    rotated = bucket.blob("rotated", encryption_key=OTHER)
    rotated.rewrite(locked)
    opened = bucket.blob("opened")
    opened.rewrite(locked)
    locked.update_storage_class("NEARLINE")

    assert rotated.download_as_bytes() == b"content"
    assert opened.download_as_bytes() == b"content"
    assert locked.download_as_bytes() == b"content"
    with pytest.raises(BadRequest, match=ENCRYPTED):
        bucket.blob("x").rewrite(bucket.blob("locked"))
    with pytest.raises(BadRequest, match=ENCRYPTED):
        bucket.copy_blob(bucket.blob("locked"), bucket, "x")
    with pytest.raises(BadRequest, match=ENCRYPTED):
        bucket.blob("x").compose([locked])


def test_uploads_in_parts_keep_the_key(bucket: storage.Bucket, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096 * 6
    (tmp_path / "source").write_bytes(content)
    resumable = bucket.blob("resumable", encryption_key=KEY, chunk_size=MIB)
    resumable.upload_from_file(io.BytesIO(content), size=len(content))
    multipart = bucket.blob("multipart", encryption_key=KEY)
    transfer_manager.upload_chunks_concurrently(
        str(tmp_path / "source"), multipart, chunk_size=5 * MIB, max_workers=2, worker_type=transfer_manager.THREAD
    )

    assert resumable.download_as_bytes() == content
    assert multipart.download_as_bytes() == content
    for name in ("resumable", "multipart"):
        with pytest.raises(BadRequest, match=ENCRYPTED):
            bucket.blob(name).download_as_bytes()


def test_a_key_that_is_none_is_refused_by_name(region: Region, bucket: storage.Bucket) -> None:
    url = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=a"
    headers = {"x-goog-encryption-algorithm": "AES256", "x-goog-encryption-key": "c2hvcnQ="}
    with region.http() as http:
        short = http.post(url, content=b"a", headers=headers).json()
        algorithm = http.post(url, content=b"a", headers={**headers, "x-goog-encryption-algorithm": "AES128"}).json()

    assert short["error"]["errors"][0]["reason"] == "customerEncryptionKeyFormatIsInvalid"
    assert algorithm["error"]["errors"][0]["reason"] == "customerEncryptionAlgorithmIsInvalid"
    assert bucket.get_blob("a") is None
