import pytest
from google.cloud import storage

from tests.localgcp.fixtures import Region
from tests.localgcp.storage.buckets import create_bucket, storage_client


@pytest.fixture
def client(region: Region, project: str) -> storage.Client:
    return storage_client(region, project)


@pytest.fixture
def bucket(client: storage.Client, project: str) -> storage.Bucket:
    return create_bucket(client, f"{project}-bucket")
