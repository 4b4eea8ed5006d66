"""Access control lists, seen by Google's own clients and by anybody with a browser."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from google.api_core.exceptions import BadRequest, Forbidden, NotFound, PreconditionFailed
from google.cloud import storage
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError

from tests.localgcp.fixtures import Account, Region
from tests.localgcp.storage.buckets import create_bucket, storage_client


@pytest.fixture
def fine(client: storage.Client, project: str) -> storage.Bucket:
    """A bucket with fine-grained access, as Google makes it when nobody asks for anything else."""
    return client.create_bucket(f"{project}-fine", location="australia-southeast1")


@pytest.fixture
def reader(region: Region, project: str) -> Account:
    return region.account(project, "reader")


def theirs(region: Region, project: str, account: Account, bucket: storage.Bucket) -> storage.Bucket:
    return storage_client(region, project, region.credentials(account.email)).bucket(bucket.name)


def entries(acl: Any) -> dict[str, str]:
    acl.reload()
    return {entry["entity"]: entry["role"] for entry in acl}


def team(bucket: storage.Bucket) -> dict[str, str]:
    number = bucket.project_number
    return {
        f"project-owners-{number}": "OWNER",
        f"project-editors-{number}": "OWNER",
        f"project-viewers-{number}": "READER",
    }


def json_api(region: Region) -> Any:
    # Unlike those of most APIs, this one's endpoint has the version in it.
    options = {"api_endpoint": f"{region.url}/storage/v1/"}
    return build("storage", "v1", credentials=region.credentials(), client_options=options, static_discovery=True)


def status(region: Region, bucket: storage.Bucket, name: str) -> int:
    """What anybody is answered who follows the object's public address."""
    return httpx.get(f"{region.url}/{bucket.name}/{name}").status_code


def test_a_new_bucket_and_its_objects_are_open_to_the_project_and_to_who_wrote_them(
    fine: storage.Bucket, project: str
) -> None:
    blob = fine.blob("a")
    blob.upload_from_string("a")
    blob.reload(projection="full")

    assert entries(fine.acl) == entries(fine.default_object_acl) == team(fine)
    assert entries(blob.acl) == {**team(fine), blob.owner["entity"]: "OWNER"}
    assert fine.get_iam_policy().bindings == [
        {"role": "roles/storage.legacyBucketOwner", "members": {f"projectOwner:{project}", f"projectEditor:{project}"}},
        {"role": "roles/storage.legacyBucketReader", "members": {f"projectViewer:{project}"}},
    ]


def test_an_object_that_is_made_public_can_be_fetched_by_anybody_until_it_is_private_again(
    region: Region, fine: storage.Bucket
) -> None:
    blob = fine.blob("folder/a b.txt")
    blob.upload_from_string("public")
    fine.blob("other").upload_from_string("private")

    blob.make_public()
    fetched = httpx.get(blob.public_url)
    blob.make_private()
    blob.reload()

    assert (fetched.status_code, fetched.text) == (200, "public")
    assert fetched.headers["cache-control"] == "public, max-age=3600"
    assert blob.metageneration == 3
    assert [status(region, fine, name) for name in ("folder/a b.txt", "other", "missing")] == [403, 403, 403]


def test_an_entry_lets_an_account_read_one_object_and_its_signed_urls_with_it(
    region: Region, fine: storage.Bucket, project: str, reader: Account
) -> None:
    for name in ("a", "b"):
        fine.blob(name).upload_from_string(name)
    bucket = theirs(region, project, reader, fine)
    granted = fine.blob("a")
    granted.acl.user(reader.email).grant_read()
    granted.acl.save()

    def signed(name: str) -> httpx.Response:
        blob = fine.blob(name)
        return httpx.get(blob.generate_signed_url(version="v4", expiration=60, credentials=reader.credentials))

    seen = bucket.blob("a")
    seen.reload(projection="full")

    assert (seen.download_as_bytes(), seen.owner) == (b"a", None)
    assert [signed(name).status_code for name in ("a", "b")] == [200, 403]
    with pytest.raises(Forbidden, match=r"storage\.objects\.get access"):
        bucket.blob("b").download_as_bytes()
    with pytest.raises(Forbidden, match=r"storage\.objects\.getIamPolicy access"):
        bucket.blob("a").acl.reload()
    with pytest.raises(Forbidden, match=r"storage\.objects\.update access"):
        bucket.blob("a").acl.save_predefined("publicRead")


def test_a_writer_of_the_bucket_owns_what_he_writes(
    region: Region, fine: storage.Bucket, project: str, reader: Account
) -> None:
    bucket = theirs(region, project, reader, fine)
    with pytest.raises(Forbidden, match=r"storage\.objects\.create access"):
        bucket.blob("mine").upload_from_string("mine")

    fine.acl.user(reader.email).grant_write()
    fine.acl.save()
    bucket.blob("mine").upload_from_string("mine")
    bucket.blob("mine").make_public()

    assert status(region, fine, "mine") == 200
    assert entries(bucket.blob("mine").acl) == {**team(fine), f"user-{reader.email}": "OWNER", "allUsers": "READER"}
    assert {"role": "roles/storage.legacyBucketWriter", "members": {reader.member}} in fine.get_iam_policy().bindings
    with pytest.raises(Forbidden, match=r"storage\.buckets\.update access"):
        bucket.acl.save_predefined("publicRead")


def test_a_role_that_is_granted_through_the_policy_shows_in_the_list(fine: storage.Bucket, reader: Account) -> None:
    policy = fine.get_iam_policy(requested_policy_version=3)
    policy.bindings.append({"role": "roles/storage.legacyBucketReader", "members": {reader.member, "allUsers"}})
    policy.bindings.append({"role": "roles/storage.objectViewer", "members": {reader.member}})
    fine.set_iam_policy(policy)

    assert entries(fine.acl) == {**team(fine), f"user-{reader.email}": "READER", "allUsers": "READER"}
    fine.acl.clear()
    assert entries(fine.acl) == {f"project-owners-{fine.project_number}": "OWNER"}
    assert {binding["role"]: binding["members"] for binding in fine.get_iam_policy().bindings} == {
        "roles/storage.legacyBucketOwner": {f"projectOwner:{fine.client.project}"},
        "roles/storage.objectViewer": {reader.member},
    }


def test_a_bucket_is_made_public_with_what_it_holds_and_will_hold(region: Region, fine: storage.Bucket) -> None:
    fine.blob("before").upload_from_string("before")
    fine.reload()
    metageneration = fine.metageneration

    fine.make_public(recursive=True, future=True)
    fine.blob("after").upload_from_string("after")
    fine.reload()

    listing = httpx.get(f"{region.url}/storage/v1/b/{fine.name}/o")
    assert [item["name"] for item in listing.json()["items"]] == ["after", "before"]
    assert [status(region, fine, name) for name in ("before", "after", "missing")] == [200, 200, 404]
    assert fine.metageneration == metageneration + 2
    fine.make_private(recursive=True, future=True)
    fine.blob("later").upload_from_string("later")
    assert [status(region, fine, name) for name in ("before", "after", "later")] == [403, 403, 403]


@pytest.mark.parametrize(
    ("predefined", "expected"),
    [
        ("private", {}),
        ("publicRead", {"allUsers": "READER"}),
        ("authenticatedRead", {"allAuthenticatedUsers": "READER"}),
        ("bucketOwnerRead", {"project-owners-": "READER"}),
        ("bucketOwnerFullControl", {"project-owners-": "OWNER"}),
        ("projectPrivate", {"project-owners-": "OWNER", "project-editors-": "OWNER", "project-viewers-": "READER"}),
    ],
)
def test_a_predefined_list_is_given_when_an_object_is_written(
    fine: storage.Bucket, predefined: str, expected: dict[str, str]
) -> None:
    whole, chunked = fine.blob("whole"), fine.blob("chunked", chunk_size=256 * 1024)
    whole.upload_from_string("whole", predefined_acl=predefined)
    with chunked.open("wb", predefined_acl=predefined) as stream:
        stream.write(b"chunked")
    whole.reload(projection="full")

    number = fine.project_number
    named = {f"{entity}{number}" if entity.endswith("-") else entity: role for entity, role in expected.items()}
    assert entries(whole.acl) == entries(chunked.acl) == {whole.owner["entity"]: "OWNER", **named}


def test_copies_compositions_and_restored_objects_have_the_bucket_s_default_list_or_the_one_asked_for(
    region: Region, fine: storage.Bucket
) -> None:
    api = json_api(region)
    objects = api.objects()
    fine.blob("a").upload_from_string("a", predefined_acl="publicRead")
    at = {"sourceBucket": fine.name, "sourceObject": "a", "destinationBucket": fine.name}
    objects.copy(**at, destinationObject="copy", body={}).execute()
    objects.rewrite(**at, destinationObject="public", destinationPredefinedAcl="publicRead", body={}).execute()
    listed = {"acl": [{"entity": "allUsers", "role": "READER"}]}
    copied = objects.copy(**at, destinationObject="listed", body=listed).execute()
    composing = {"sourceObjects": [{"name": "a"}, {"name": "copy"}]}
    objects.compose(destinationBucket=fine.name, destinationObject="composed", body=composing).execute()
    generation = fine.get_blob("a").generation
    fine.blob("a").delete()
    fine.restore_blob("a", generation=generation)
    default = status(region, fine, "a")
    fine.restore_blob("a", generation=generation, copy_source_acl=True)

    names = ("copy", "public", "listed", "composed", "a")
    assert [status(region, fine, name) for name in names] == [403, 200, 200, 403, 200]
    assert default == 403
    assert {entry["entity"] for entry in copied["acl"]} == {"allUsers", copied["owner"]["entity"]}


def test_a_bucket_is_made_with_the_lists_that_were_asked_for(
    region: Region, client: storage.Client, project: str
) -> None:
    made = client.create_bucket(
        f"{project}-open", predefined_acl="publicRead", predefined_default_object_acl="publicRead"
    )
    made.blob("a").upload_from_string("a")

    assert entries(made.acl) == {f"project-owners-{made.project_number}": "OWNER", "allUsers": "READER"}
    assert entries(made.default_object_acl) == {"allUsers": "READER"}
    assert status(region, made, "a") == 200
    made.default_object_acl.save_predefined("private")
    made.blob("b").upload_from_string("b")
    assert [status(region, made, name) for name in ("a", "b")] == [200, 403]


@pytest.mark.parametrize("collection", ["bucketAccessControls", "defaultObjectAccessControls", "objectAccessControls"])
def test_entries_are_read_and_changed_one_by_one(region: Region, fine: storage.Bucket, collection: str) -> None:
    fine.blob("a/b").upload_from_string("a")
    api = json_api(region)
    methods = getattr(api, collection)()
    named = {"bucket": fine.name} | ({"object": "a/b"} if collection == "objectAccessControls" else {})
    group = {**named, "entity": "group-Team@example.com"}
    before = methods.list(**named).execute()["items"]

    made = methods.insert(**named, body={"entity": "group-team@example.com", "role": "READER"}).execute()
    seen = [methods.get(**group).execute()["role"]]
    seen.append(methods.patch(**group, body={"role": "OWNER"}).execute()["role"])
    seen.append(methods.update(**group, body={"role": "READER"}).execute()["role"])
    after = methods.list(**named).execute()["items"]
    methods.delete(**group).execute()

    assert (made["entity"], made["email"], made["role"]) == ("group-team@example.com", "team@example.com", "READER")
    assert seen == ["READER", "OWNER", "READER"]
    assert sorted(item["entity"] for item in after) == sorted(
        ["group-team@example.com", *(item["entity"] for item in before)]
    )
    with pytest.raises(HttpError, match="404"):
        methods.get(**group).execute()


@pytest.mark.parametrize(
    ("entity", "role", "message"),
    [
        ("user-nobody", "READER", "Could not parse entity"),
        ("user-gone@missing.iam.gserviceaccount.com", "READER", "Unknown user email address"),
        ("allUsers", "WRITER", "Invalid role"),
        ("allUsers", "ADMIN", "Invalid role"),
    ],
)
def test_an_entry_that_means_nothing_is_refused(fine: storage.Bucket, entity: str, role: str, message: str) -> None:
    blob = fine.blob("a")
    blob.upload_from_string("a")

    with pytest.raises(BadRequest, match=message):
        blob.acl.save([{"entity": entity, "role": role}])


def test_who_wrote_an_object_stays_its_owner(fine: storage.Bucket) -> None:
    blob = fine.blob("a")
    blob.upload_from_string("a")
    blob.acl.clear()
    blob.reload(projection="full")

    assert entries(blob.acl) == {blob.owner["entity"]: "OWNER"}


def test_lists_are_changed_by_who_may_set_policies_and_metadata_by_who_may_update(
    region: Region, fine: storage.Bucket, project: str
) -> None:
    user = region.account(project, "object-user", "roles/storage.objectUser")
    fine.blob("a").upload_from_string("a")
    blob = theirs(region, project, user, fine).blob("a")

    blob.metadata = {"k": "v"}
    blob.patch()
    assert fine.get_blob("a").metadata == {"k": "v"}
    with pytest.raises(Forbidden, match=r"storage\.objects\.setIamPolicy access"):
        blob.acl.save_predefined("publicRead")


def test_a_list_with_an_account_that_is_gone_can_still_be_saved(
    region: Region, fine: storage.Bucket, project: str, reader: Account
) -> None:
    blob, other = fine.blob("a"), fine.blob("b")
    blob.upload_from_string("a")
    other.upload_from_string("b")
    blob.acl.user(reader.email).grant_read()
    blob.acl.save()
    region.api("iam", "v1").projects().serviceAccounts().delete(
        name=f"projects/{project}/serviceAccounts/{reader.email}"
    ).execute()

    blob.make_public()

    assert status(region, fine, "a") == 200
    with pytest.raises(BadRequest, match="Unknown user email address"):
        other.acl.save([{"entity": f"user-{reader.email}", "role": "READER"}])


def test_lists_are_answered_to_those_who_ask_for_them(region: Region, fine: storage.Bucket) -> None:
    fine.default_object_acl.save_predefined("publicRead")
    fine.blob("a").upload_from_string("a")
    api, lists = json_api(region), {"acl", "defaultObjectAcl", "owner"}

    def shown(request: Any) -> set[str]:
        return {*lists & request.execute().keys()}

    assert shown(api.buckets().get(bucket=fine.name)) == set()
    assert shown(api.buckets().get(bucket=fine.name, projection="full")) == lists
    assert shown(api.buckets().patch(bucket=fine.name, body={})) == lists
    assert shown(api.objects().get(bucket=fine.name, object="a")) == set()
    assert shown(api.objects().get(bucket=fine.name, object="a", projection="full")) == {"acl", "owner"}
    assert shown(api.objects().patch(bucket=fine.name, object="a", body={}, projection="noAcl")) == set()


def test_an_upload_may_bring_its_list(region: Region, fine: storage.Bucket) -> None:
    described = {"name": "a", "acl": [{"entity": "allUsers", "role": "READER"}]}
    with region.http() as http:
        session = http.post(f"/upload/storage/v1/b/{fine.name}/o?uploadType=resumable", json=described)
        made = http.put(session.headers["location"], content=b"a").json()

    assert {entry["entity"] for entry in made["acl"]} == {"allUsers", made["owner"]["entity"]}
    assert status(region, fine, "a") == 200


def test_metadata_and_lists_change_without_each_other(region: Region, fine: storage.Bucket) -> None:
    blob = fine.blob("a")
    blob.upload_from_string("a", content_type="text/plain")
    blob.make_public()
    blob.metadata = {"k": "v"}
    blob.patch()
    blob.update()

    assert status(region, fine, "a") == 200
    assert fine.get_blob("a").metadata == {"k": "v"}
    with pytest.raises(PreconditionFailed):
        blob.make_private(if_metageneration_match=1)


def test_uniform_access_sets_lists_aside_and_gives_them_back(region: Region, fine: storage.Bucket) -> None:
    fine.default_object_acl.reload()
    fine.default_object_acl.all().grant_read()
    fine.default_object_acl.save()
    fine.blob("a").upload_from_string("a", predefined_acl="private")
    fine.blob("a").make_public()
    fine.iam_configuration.uniform_bucket_level_access_enabled = True
    fine.patch()
    fine.blob("uniform").upload_from_string("uniform")

    assert [status(region, fine, name) for name in ("a", "uniform")] == [403, 403]
    with pytest.raises(BadRequest, match="Cannot use ACL API to get bucket policy when uniform bucket-level access"):
        fine.acl.reload()
    with pytest.raises(BadRequest, match="Cannot use ACL API to update bucket policy when uniform"):
        fine.acl.save_predefined("publicRead")
    with pytest.raises(BadRequest, match="Cannot update access control for an object when uniform"):
        fine.blob("a").acl.save_predefined("private")
    assert "acl" not in json_api(region).objects().get(bucket=fine.name, object="a", projection="full").execute()
    fine.iam_configuration.uniform_bucket_level_access_enabled = False
    fine.patch()
    assert [status(region, fine, name) for name in ("a", "uniform")] == [200, 200]


def test_public_access_prevention_refuses_public_entries_and_overrides_old_ones(
    region: Region, fine: storage.Bucket, client: storage.Client, project: str, reader: Account
) -> None:
    fine.blob("a").upload_from_string("a", predefined_acl="publicRead")
    fine.blob("b").upload_from_string("b", predefined_acl="authenticatedRead")
    bucket = theirs(region, project, reader, fine)
    before = bucket.blob("b").download_as_bytes()
    fine.iam_configuration.public_access_prevention = "enforced"
    fine.patch()

    assert before == b"b"
    assert status(region, fine, "a") == 403
    with pytest.raises(Forbidden):
        bucket.blob("b").download_as_bytes()
    for refused in (fine.make_public, fine.blob("a").make_public):
        with pytest.raises(PreconditionFailed, match="public access prevention is enforced"):
            refused()
    with pytest.raises(PreconditionFailed, match="public access prevention is enforced"):
        fine.blob("c").upload_from_string("c", predefined_acl="publicRead")


def test_the_xml_api_takes_predefined_lists(region: Region, fine: storage.Bucket) -> None:
    with region.http() as http:
        put = http.put(f"/{fine.name}/a", content=b"a", headers={"x-goog-acl": "public-read"})
        unknown = http.put(f"/{fine.name}/b", content=b"b", headers={"x-goog-acl": "public-reed"})
        source = {"x-goog-copy-source": f"/{fine.name}/a"}
        copied = http.put(f"/{fine.name}/c", headers={**source, "x-goog-acl": "authenticated-read"})

    assert [put.status_code, unknown.status_code, copied.status_code] == [200, 400, 200]
    assert [status(region, fine, name) for name in ("a", "c")] == [200, 403]
    assert entries(fine.blob("c").acl)["allAuthenticatedUsers"] == "READER"


def test_a_form_may_ask_for_a_predefined_list(region: Region, fine: storage.Bucket, reader: Account) -> None:
    fine.acl.user(reader.email).grant_write()
    fine.acl.save()
    policy = fine.client.generate_signed_post_policy_v4(
        fine.name,
        "posted",
        expiration=timedelta(minutes=1),
        fields={"acl": "public-read"},
        credentials=reader.credentials,
    )

    answer = httpx.post(f"{region.url}/{fine.name}/", data=policy["fields"], files={"file": b"posted"})

    assert answer.status_code == 204
    assert httpx.get(f"{region.url}/{fine.name}/posted").text == "posted"


def test_a_bucket_with_uniform_access_is_not_made_with_lists(client: storage.Client, project: str) -> None:
    made = create_bucket(client, f"{project}-uniform")

    assert made.get_iam_policy().bindings == []
    bucket = client.bucket(f"{project}-refused")
    bucket.iam_configuration.uniform_bucket_level_access_enabled = True
    with pytest.raises(BadRequest, match="uniform bucket-level access"):
        client.create_bucket(bucket, predefined_acl="publicRead")
    with pytest.raises(NotFound):
        client.get_bucket(bucket.name)
