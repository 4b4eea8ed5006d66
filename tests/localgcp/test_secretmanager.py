"""Secret Manager, seen by Google's client."""

from datetime import UTC, datetime, timedelta
from typing import Any

import google_crc32c
import pytest
from google.api_core.exceptions import BadRequest, Conflict, Forbidden, NotFound
from google.cloud import secretmanager_v1
from google.cloud.secretmanager_v1 import SecretManagerServiceClient, SecretVersion
from google.protobuf import duration_pb2, field_mask_pb2

from tests.localgcp.fixtures import Region, served, temporary_data_dir

AUTOMATIC: dict[str, Any] = {"replication": {"automatic": {}}}
State = SecretVersion.State


@pytest.fixture
def client(region: Region) -> Any:
    return region.client(SecretManagerServiceClient)


@pytest.fixture
def secret(client: Any, project: str) -> str:
    client.create_secret(parent=f"projects/{project}", secret_id="django-key", secret=AUTOMATIC)
    return f"projects/{project}/secrets/django-key"


def add(client: Any, secret: str, data: bytes) -> str:
    name: str = client.add_secret_version(parent=secret, payload={"data": data}).name
    return name


def access(client: Any, name: str) -> bytes:
    data: bytes = client.access_secret_version(name=name).payload.data
    return data


def test_a_payload_comes_back_with_its_checksum_under_the_projects_number(
    region: Region, client: Any, secret: str, project: str
) -> None:
    version = add(client, secret, b"s3cret")

    answer = client.access_secret_version(name=f"{secret}/versions/1")

    number = region.core.project_number(project)
    assert version == answer.name == f"projects/{number}/secrets/django-key/versions/1"
    assert (answer.payload.data, answer.payload.data_crc32c) == (b"s3cret", google_crc32c.value(b"s3cret"))


def test_latest_is_the_newest_version_even_when_it_is_disabled(client: Any, secret: str) -> None:
    add(client, secret, b"old")
    new = add(client, secret, b"new")
    assert access(client, f"{secret}/versions/latest") == b"new"

    client.disable_secret_version(name=new)

    with pytest.raises(BadRequest, match="is in DISABLED state"):
        access(client, f"{secret}/versions/latest")
    assert access(client, f"{secret}/versions/1") == b"old"


def test_versions_are_listed_newest_first_and_by_state(client: Any, secret: str) -> None:
    for data in (b"1", b"2", b"3"):
        add(client, secret, data)
    client.disable_secret_version(name=f"{secret}/versions/2")

    every = client.list_secret_versions(parent=secret)
    enabled = client.list_secret_versions(request={"parent": secret, "filter": "state:ENABLED"})

    assert [version.name.rpartition("/")[2] for version in every] == ["3", "2", "1"]
    assert [version.name.rpartition("/")[2] for version in enabled] == ["3", "1"]


def test_a_version_is_disabled_enabled_and_destroyed_for_good(client: Any, secret: str) -> None:
    name = add(client, secret, b"value")
    states = [
        client.disable_secret_version(name=name).state,
        client.enable_secret_version(name=name).state,
        client.destroy_secret_version(name=name).state,
    ]

    assert states == [State.DISABLED, State.ENABLED, State.DESTROYED]
    for refused in (client.enable_secret_version, client.disable_secret_version, client.access_secret_version):
        with pytest.raises(BadRequest, match="DESTROYED"):
            refused(name=name)


def test_a_destroyed_payload_is_gone_from_the_disk(region: Region, client: Any, secret: str) -> None:
    name = add(client, secret, b"value")

    client.destroy_secret_version(name=name)

    assert region.core.store.rows("SELECT * FROM secret_payloads WHERE key LIKE ?", (f"%{secret}/%",)) == []


def test_a_version_number_is_never_given_out_twice(client: Any, secret: str) -> None:
    client.destroy_secret_version(name=add(client, secret, b"1"))

    assert add(client, secret, b"2").endswith("/versions/2")


def test_a_payload_with_the_wrong_checksum_is_refused(client: Any, secret: str) -> None:
    good = {"data": b"value", "data_crc32c": google_crc32c.value(b"value")}
    bad = good | {"data_crc32c": 1}

    assert client.add_secret_version(parent=secret, payload=good).client_specified_payload_checksum
    with pytest.raises(BadRequest, match="checksum"):
        client.add_secret_version(parent=secret, payload=bad)
    assert len(list(client.list_secret_versions(parent=secret))) == 1


@pytest.mark.parametrize("size", [0, 64 * 1024 + 1])
def test_a_payload_that_is_empty_or_too_large_is_refused(client: Any, secret: str, size: int) -> None:
    with pytest.raises(BadRequest, match="1 to 65536 bytes"):
        add(client, secret, b"x" * size)


def test_an_alias_stands_for_a_version(client: Any, secret: str) -> None:
    add(client, secret, b"old")
    add(client, secret, b"new")
    mask = field_mask_pb2.FieldMask(paths=["version_aliases"])
    client.update_secret(secret={"name": secret, "version_aliases": {"stable": 1}}, update_mask=mask)

    assert access(client, f"{secret}/versions/stable") == b"old"
    with pytest.raises(BadRequest, match="does not exist"):
        client.update_secret(secret={"name": secret, "version_aliases": {"stable": 7}}, update_mask=mask)


def test_an_update_needs_the_current_etag(client: Any, secret: str) -> None:
    mask = field_mask_pb2.FieldMask(paths=["labels"])
    read = client.get_secret(name=secret)
    client.update_secret(secret={"name": secret, "labels": {"by": "somebody"}}, update_mask=mask)

    with pytest.raises(BadRequest, match="does not match the current etag"):
        client.update_secret(secret={"name": secret, "labels": {"by": "me"}, "etag": read.etag}, update_mask=mask)
    with pytest.raises(BadRequest, match="does not match the current etag"):
        client.delete_secret(request={"name": secret, "etag": read.etag})
    assert dict(client.get_secret(name=secret).labels) == {"by": "somebody"}


def test_replication_cannot_change(client: Any, secret: str) -> None:
    mask = field_mask_pb2.FieldMask(paths=["replication"])

    with pytest.raises(BadRequest, match="immutable"):
        client.update_secret(secret={"name": secret, **AUTOMATIC}, update_mask=mask)


def test_a_secret_needs_a_replication_and_a_new_name(client: Any, secret: str, project: str) -> None:
    parent = f"projects/{project}"

    with pytest.raises(Conflict, match="already exists"):
        client.create_secret(parent=parent, secret_id="django-key", secret=AUTOMATIC)
    with pytest.raises(BadRequest, match="replication"):
        client.create_secret(parent=parent, secret_id="other", secret={})


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"labels": {"Stack": "au"}}, "Invalid label key 'Stack'"),
        ({"labels": {"stack": "AU"}}, "Invalid value 'AU' of label 'stack'"),
        ({"annotations": {"note": "x" * 16_384}}, "must have less than 16 KiB, got 16388 bytes"),
        ({"topics": [{"name": "rotations"}]}, "A topic is named"),
        ({"expire_time": datetime(2020, 1, 1, tzinfo=UTC)}, "Secret.expireTime must be in the future"),
    ],
)
def test_a_secret_is_described_as_secret_manager_allows(
    client: Any, project: str, described: dict[str, Any], message: str
) -> None:
    secret = {"replication": {"automatic": {}}, **described}

    with pytest.raises(BadRequest, match=message):
        client.create_secret(parent=f"projects/{project}", secret_id="key", secret=secret)

    assert list(client.list_secrets(parent=f"projects/{project}")) == []


def test_user_managed_replicas_are_told_of_each_version(client: Any, project: str) -> None:
    replicas = [{"location": "australia-southeast1"}]
    secret = client.create_secret(
        parent=f"projects/{project}",
        secret_id="regional",
        secret={"replication": {"user_managed": {"replicas": replicas}}},
    )

    version = client.add_secret_version(parent=secret.name, payload={"data": b"x"})

    assert [replica.location for replica in version.replication_status.user_managed.replicas] == [
        "australia-southeast1"
    ]


def test_a_deleted_secret_takes_its_versions_with_it(client: Any, secret: str) -> None:
    parent = secret.partition("/secrets/")[0]
    version = add(client, secret, b"old")
    client.delete_secret(name=secret)
    with pytest.raises(NotFound):
        access(client, version)

    client.create_secret(parent=parent, secret_id="django-key", secret=AUTOMATIC)

    with pytest.raises(NotFound, match="not found or has no versions"):
        access(client, f"{secret}/versions/latest")


def test_a_secret_with_a_lifetime_ends_with_it(moved: Region) -> None:
    client = moved.client(SecretManagerServiceClient)
    body = AUTOMATIC | {"ttl": duration_pb2.Duration(seconds=3600)}
    secret = client.create_secret(parent="projects/expiry", secret_id="short", secret=body).name
    version = add(client, secret, b"x")

    moved.core.clock.advance(timedelta(hours=2))

    with pytest.raises(NotFound):
        access(client, version)
    assert list(client.list_secrets(parent="projects/expiry")) == []


def test_a_version_with_a_destroy_delay_can_be_saved_until_its_end(moved: Region) -> None:
    client = moved.client(SecretManagerServiceClient)
    body = AUTOMATIC | {"version_destroy_ttl": duration_pb2.Duration(seconds=86400)}
    secret = client.create_secret(parent="projects/delay", secret_id="careful", secret=body).name
    saved, lost = add(client, secret, b"saved"), add(client, secret, b"lost")
    for version in (saved, lost):
        assert client.destroy_secret_version(name=version).state is State.DISABLED
    client.enable_secret_version(name=saved)

    moved.core.clock.advance(timedelta(days=2))

    assert access(client, saved) == b"saved"
    assert client.get_secret_version(name=lost).state is State.DESTROYED


def test_the_name_of_the_missing_permission_is_told(region: Region, secret: str, project: str) -> None:
    account = region.account(project, "web-app")
    add(region.client(SecretManagerServiceClient), secret, b"x")
    client = region.client(SecretManagerServiceClient, account.credentials)

    with pytest.raises(Forbidden, match=r"Permission 'secretmanager\.versions\.access' denied for resource") as refused:
        access(client, f"{secret}/versions/1")

    assert refused.value.reason == "IAM_PERMISSION_DENIED"
    assert refused.value.metadata["permission"] == "secretmanager.versions.access"


def test_an_accessor_of_one_secret_reads_that_one_only(region: Region, client: Any, secret: str, project: str) -> None:
    account = region.account(project, "web-app")
    other = client.create_secret(parent=f"projects/{project}", secret_id="other", secret=AUTOMATIC).name
    versions = [add(client, name, b"x") for name in (secret, other)]
    policy = client.get_iam_policy(request={"resource": secret})
    policy.bindings.add(role="roles/secretmanager.secretAccessor", members=[account.member])
    client.set_iam_policy(request={"resource": secret, "policy": policy})
    as_account = region.client(SecretManagerServiceClient, account.credentials)

    assert access(as_account, versions[0]) == b"x"
    with pytest.raises(Forbidden):
        access(as_account, versions[1])
    with pytest.raises(Forbidden):
        as_account.get_secret(name=secret)


def test_a_regional_secret_lives_in_its_location(client: Any, project: str) -> None:
    parent = f"projects/{project}/locations/australia-southeast1"
    secret = client.create_secret(parent=parent, secret_id="here", secret=secretmanager_v1.Secret())

    version = client.add_secret_version(parent=secret.name, payload={"data": b"regional"})

    assert "/locations/australia-southeast1/secrets/here/versions/1" in version.name
    assert access(client, version.name) == b"regional"


def test_secrets_survive_a_restart() -> None:
    with temporary_data_dir() as data_dir:
        with served(data_dir) as first:
            client = first.client(SecretManagerServiceClient)
            secret = client.create_secret(parent="projects/durable", secret_id="kept", secret=AUTOMATIC).name
            add(client, secret, b"value")
        with served(data_dir) as second:
            found: Any = access(second.client(SecretManagerServiceClient), f"{secret}/versions/latest")

    assert found == b"value"
