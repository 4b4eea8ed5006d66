"""Cloud Storage of a region, as Google's own client sees it, and buckets that no other test uses."""

from typing import Any

from google.cloud import storage

from tests.localgcp.fixtures import Region


def storage_client(region: Region, project: str, credentials: Any = None) -> storage.Client:
    return storage.Client(
        project=project,
        credentials=credentials or region.credentials(),
        client_options={"api_endpoint": region.url},
    )


def create_bucket(client: storage.Client, name: str, **properties: Any) -> storage.Bucket:
    """`create_bucket(client, name, versioning_enabled=True)`: a bucket in Sydney with uniform access."""
    bucket = client.bucket(name)
    bucket.iam_configuration.uniform_bucket_level_access_enabled = True
    for key, value in properties.items():
        setattr(bucket, key, value)
    return client.create_bucket(bucket, location="australia-southeast1")
