"""Cloud Storage of the session's region, and buckets that no other test uses."""

from collections.abc import Callable
from typing import Any

import pytest
from google.cloud import storage

from tests.localgcp.fixtures import Region

BucketFactory = Callable[..., storage.Bucket]


@pytest.fixture
def client(region: Region, project: str) -> storage.Client:
    return storage_client(region, project)


@pytest.fixture
def new_bucket(client: storage.Client, project: str) -> BucketFactory:
    """`new_bucket(versioning_enabled=True)`: a bucket in Sydney with uniform access."""
    numbers = iter(range(1, 100))

    def create(**properties: Any) -> storage.Bucket:
        bucket = client.bucket(f"{project}-{next(numbers)}")
        bucket.iam_configuration.uniform_bucket_level_access_enabled = True
        for name, value in properties.items():
            setattr(bucket, name, value)
        return client.create_bucket(bucket, location="australia-southeast1")

    return create


@pytest.fixture
def bucket(new_bucket: BucketFactory) -> storage.Bucket:
    return new_bucket()


def storage_client(region: Region, project: str, credentials: Any = None) -> storage.Client:
    return storage.Client(
        project=project,
        credentials=credentials or region.credentials(),
        client_options={"api_endpoint": region.url},
    )
