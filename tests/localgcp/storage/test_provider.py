"""The requests of Pulumi's gcp provider, as it sends them, and answers that leave it nothing to change."""

from typing import Any

import pytest

from tests.localgcp.fixtures import Region

CREATE: dict[str, Any] = {
    "cors": [{"maxAgeSeconds": 3600, "method": ["GET"], "origin": ["https://au.example"], "responseHeader": ["ETag"]}],
    "iamConfiguration": {"publicAccessPrevention": "enforced", "uniformBucketLevelAccess": {"enabled": True}},
    "labels": {"goog-pulumi-provisioned": "true", "stack": "au"},
    "lifecycle": {"rule": [{"action": {"type": "Delete"}, "condition": {"daysSinceNoncurrentTime": 30}}]},
    "location": "australia-southeast1",
    "retentionPolicy": {"retentionPeriod": "604800"},
    "softDeletePolicy": {"retentionDurationSeconds": "1209600"},
    "storageClass": "STANDARD",
    "versioning": {"enabled": True},
}
SERVER_SET = {"lockedTime", "effectiveTime"}


def without_server_set(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_server_set(each) for key, each in value.items() if key not in SERVER_SET}
    return value


@pytest.fixture
def name(region: Region, project: str) -> str:
    with region.http() as http:
        body = CREATE | {"name": f"{project}-media"}
        assert http.post("/storage/v1/b", params={"project": project}, json=body).status_code == 200
    return f"{project}-media"


def test_a_bucket_reads_back_as_it_was_written(region: Region, name: str, project: str) -> None:
    with region.http() as http:
        bucket = http.get(f"/storage/v1/b/{name}").json()

    written = {key: without_server_set(bucket[key]) for key in CREATE}
    expected = CREATE | {"location": "AUSTRALIA-SOUTHEAST1"}
    expected["iamConfiguration"] = CREATE["iamConfiguration"] | {"bucketPolicyOnly": {"enabled": True}}
    assert written == expected
    assert bucket["projectNumber"] == region.core.project_number(project)
    assert (bucket["kind"], bucket["metageneration"], bucket["locationType"]) == ("storage#bucket", "1", "region")


def test_an_empty_lifecycle_is_none_at_all(region: Region, name: str) -> None:
    with region.http() as http:
        bucket = http.patch(f"/storage/v1/b/{name}", json={"lifecycle": {"rule": []}}).json()

    assert "lifecycle" not in bucket


def test_a_patch_leaves_alone_what_it_does_not_name(region: Region, name: str) -> None:
    with region.http() as http:
        before = http.get(f"/storage/v1/b/{name}").json()
        patch = {"labels": {"stack": "us"}, "softDeletePolicy": {"retentionDurationSeconds": "2592000"}}
        after = http.patch(f"/storage/v1/b/{name}", json=patch).json()

    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert changed == {"labels", "softDeletePolicy", "metageneration", "etag", "updated"}
    assert after["softDeletePolicy"]["retentionDurationSeconds"] == "2592000"


def test_the_last_member_leaves_a_policy_without_bindings(region: Region, name: str, project: str) -> None:
    member = region.account(project, "workload").member
    binding = {"members": [member], "role": "roles/storage.objectAdmin"}
    with region.http() as http:
        url = f"/storage/v1/b/{name}/iam"
        empty = http.get(url, params={"optionsRequestedPolicyVersion": "3"}).json()
        granted = http.put(url, json={"bindings": [binding], "etag": empty["etag"], "version": 3}).json()
        read = http.get(url, params={"optionsRequestedPolicyVersion": "3"}).json()
        emptied = http.put(url, json={"version": 3}).json()

    assert "bindings" not in empty
    assert (granted["bindings"], read) == ([binding], granted)
    assert "bindings" not in emptied
    assert emptied["resourceId"] == f"projects/_/buckets/{name}"


def test_an_object_of_the_provider_is_deleted_before_its_bucket(region: Region, name: str) -> None:
    body = (
        '--b\r\nContent-Type: application/json\r\n\r\n{"bucket":"' + name + '","contentType":"text/plain",'
        '"metadata":{"origin":"pulumi"}}\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhello\n\r\n--b--\r\n'
    )
    with region.http() as http:
        params = {"name": "reports/readme.txt", "uploadType": "multipart"}
        headers = {"Content-Type": "multipart/related; boundary=b"}
        made = http.post(f"/upload/storage/v1/b/{name}/o", params=params, content=body, headers=headers).json()
        caches = http.get(f"/storage/v1/b/{name}/anywhereCaches/").json()
        objects = http.get(f"/storage/v1/b/{name}/o", params={"versions": "true"}).json()
        refused = http.delete(f"/storage/v1/b/{name}").status_code

    assert (made["name"], made["size"], made["md5Hash"]) == ("reports/readme.txt", "6", "sZRqySSS0jR8YjW00mERhA==")
    assert caches == {"kind": "storage#anywhereCaches", "items": []}
    assert [item["name"] for item in objects["items"]] == ["reports/readme.txt"]
    assert refused == 409
