"""Forms that a browser posts, with the policy documents that Google's own client signs."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from google.cloud import storage

from tests.localgcp.fixtures import Account, Region
from tests.localgcp.storage.buckets import storage_client

Post = Callable[..., httpx.Response]


@pytest.fixture
def signer(region: Region, project: str) -> Account:
    return region.account(project, "signer", "roles/storage.objectAdmin")


@pytest.fixture
def post(region: Region, project: str, bucket: storage.Bucket, signer: Account) -> Post:
    """`post(fields, conditions, **changed)`: sign a policy, change fields of the form, and post a file with it."""
    client = storage_client(region, project)

    def send(
        fields: dict[str, str] | None = None,
        conditions: tuple[list[Any], ...] = (),
        *,
        name: str = "inbox/${filename}",
        minutes: int = 5,
        **changed: str,
    ) -> httpx.Response:
        policy = client.generate_signed_post_policy_v4(
            bucket.name,
            name,
            expiration=timedelta(minutes=minutes),
            conditions=list(conditions),
            fields=fields or {},
            credentials=signer.credentials,
        )
        form = {**policy["fields"], **{field.replace("_", "-"): value for field, value in changed.items()}}
        return httpx.post(policy["url"], data=form, files={"file": ('ü "a".txt', b"12345")})

    return send


def code(answer: httpx.Response) -> tuple[int, str]:
    found = re.search("<Code>(.*)</Code>", answer.text)
    return answer.status_code, found[1] if found else ""


def test_a_signed_form_uploads_a_file(post: Post, bucket: storage.Bucket) -> None:
    answer = post({"Content-Type": "text/plain", "x-goog-meta-origin": "browser"}, (["content-length-range", 1, 5],))

    blob = bucket.get_blob('inbox/ü "a".txt')
    assert (answer.status_code, answer.content) == (204, b"")
    assert (blob.content_type, blob.metadata) == ("text/plain", {"origin": "browser"})
    assert blob.download_as_bytes() == b"12345"


def test_the_answer_is_what_the_form_asks_for(post: Post, bucket: storage.Bucket) -> None:
    created = post({"success_action_status": "201"}, name="a")
    redirected = post({"success_action_redirect": "https://au.example/done?x=1"}, name="a")

    assert created.status_code == 201
    assert f"<Bucket>{bucket.name}</Bucket><Key>a</Key>" in created.text
    assert redirected.status_code == 303
    assert redirected.headers["location"].startswith(f"https://au.example/done?x=1&bucket={bucket.name}&key=a&etag=")


def test_what_the_policy_does_not_allow_is_refused(post: Post, bucket: storage.Bucket) -> None:
    image = ["starts-with", "$Content-Type", "image/"]

    assert code(post(conditions=(["content-length-range", 0, 4],))) == (400, "EntityTooLarge")
    assert code(post(conditions=(["content-length-range", 6, 9],))) == (400, "EntityTooSmall")
    assert code(post(conditions=(image,), Content_Type="text/html")) == (400, "InvalidPolicyDocument")
    assert code(post(key="elsewhere")) == (400, "InvalidPolicyDocument")
    assert code(post(acl="public-read")) == (400, "InvalidPolicyDocument")
    assert code(post(minutes=-1)) == (400, "ExpiredToken")
    assert code(post(x_goog_signature="00" * 256)) == (403, "SignatureDoesNotMatch")
    assert list(bucket.list_blobs()) == []

    assert post(conditions=(image,), Content_Type="image/png", x_ignore_me="1").status_code == 204


def test_a_policy_is_for_one_bucket_and_its_signer_needs_the_role(
    region: Region, project: str, client: storage.Client, bucket: storage.Bucket
) -> None:
    nobody = region.account(project, "nobody")
    arguments = {"expiration": timedelta(minutes=5), "conditions": [], "credentials": nobody.credentials}
    policy = client.generate_signed_post_policy_v4(bucket.name, "a", **arguments)
    elsewhere = client.generate_signed_post_policy_v4("some-other-bucket", "a", **arguments)

    refused = httpx.post(policy["url"], data=policy["fields"], files={"file": b"x"})
    other = httpx.post(policy["url"], data=elsewhere["fields"], files={"file": b"x"})
    anonymous = httpx.post(policy["url"], data={"key": "a"}, files={"file": b"x"})

    assert code(refused) == (403, "AccessDenied")
    assert f"{nobody.email} does not have storage.objects.create access" in refused.text
    assert code(other) == (400, "InvalidPolicyDocument")
    assert code(anonymous) == (403, "AccessDenied")


def test_a_form_needs_a_key_and_a_file(region: Region, bucket: storage.Bucket) -> None:
    with region.http() as http:
        keyless = http.post(f"/{bucket.name}", data={"x": "y"}, files={"file": b"x"})
        empty = http.post(f"/{bucket.name}", files={"key": (None, b"a")})
        whole = http.post(f"/{bucket.name}", data={"key": "a"}, files={"file": b"x"})

    assert code(keyless) == (400, "UserKeyMustBeSpecified")
    assert code(empty) == (400, "InvalidArgument")
    assert whole.status_code == 204


def test_a_signed_address_can_limit_the_size(bucket: storage.Bucket, signer: Account) -> None:
    headers = {"x-goog-content-length-range": "2,4"}
    url = bucket.blob("a").generate_signed_url(
        version="v4", expiration=60, method="PUT", credentials=signer.credentials, headers=dict(headers)
    )
    session = bucket.blob("b").generate_signed_url(
        version="v4", expiration=60, method="RESUMABLE", credentials=signer.credentials, headers=dict(headers)
    )
    started = httpx.post(session, headers={"x-goog-resumable": "start", **headers})

    assert code(httpx.put(url, content=b"1", headers=headers)) == (400, "EntityTooSmall")
    assert code(httpx.put(url, content=b"12345", headers=headers)) == (400, "EntityTooLarge")
    assert code(httpx.put(started.headers["location"], content=b"12345")) == (400, "EntityTooLarge")
    assert list(bucket.list_blobs()) == []
    assert httpx.put(url, content=b"1234", headers=headers).status_code == 200
