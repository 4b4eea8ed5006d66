"""Where APIs are served, and what is answered elsewhere."""

import httpx
import pytest
from google.api_core.exceptions import Forbidden
from google.cloud.scheduler_v1 import CloudSchedulerClient
from google.cloud.secretmanager_v1 import SecretManagerServiceClient
from google.cloud.tasks_v2 import CloudTasksClient
from googleapiclient.errors import HttpError

from tests.localgcp.fixtures import Region

SECRET: dict[str, object] = {"replication": {"automatic": {}}}


@pytest.mark.parametrize(
    "path", ["/secretmanager/v9/projects/p/secrets", "/sqladmin/sql/v2/projects", "/run/v1/projects", "/run/v2/nothing"]
)
def test_a_path_that_no_api_has_is_not_found_in_the_form_of_an_api(region: Region, path: str) -> None:
    with region.http() as http:
        answer = http.get(path)

    assert answer.json() == {
        "error": {
            "code": 404,
            "message": f"The requested URL {path} was not found on this server.",
            "status": "NOT_FOUND",
            "errors": [
                {
                    "message": f"The requested URL {path} was not found on this server.",
                    "domain": "global",
                    "reason": "notFound",
                }
            ],
        }
    }


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        (
            "POST",
            "secretmanager/v1/projects/{}/secrets?secretId=a",
            SECRET | {"expireTime": "2026-13-01T00:00:00Z"},
            400,
        ),
        ("POST", "secretmanager/v1/projects/{}/secrets?secretId=b", SECRET | {"ttl": "99999999999999s"}, 400),
        ("POST", "compute/v1/projects/{}/global/addresses", {"name": "a", "address": "*"}, 400),
        (
            "POST",
            "compute/v1/projects/{}/global/addresses",
            {"name": "b", "addressType": "INTERNAL", "purpose": "VPC_PEERING", "prefixLength": 5},
            400,
        ),
        ("GET", "storagetransfer/v1/transferJobs?filter=[]", None, 400),
        ("POST", "dns/v1/projects/{}/managedZones", {"name": "a", "dnsName": None}, 400),
        ("PUT", "logging/v2/projects/{}/metrics/a", {"filter": None}, 200),
    ],
)
def test_what_no_careful_client_sends_is_not_met_with_a_fault(
    region: Region, project: str, method: str, path: str, body: object, status: int
) -> None:
    with region.http() as http:
        answer = http.request(method, path.format(project), json=body)

    assert answer.status_code == status, answer.text


def test_the_address_with_an_apis_name_is_an_endpoint_also_for_clients_with_paths_of_their_own(
    region: Region, project: str
) -> None:
    region.api("storage", "v1").buckets().insert(project=project, body={"name": f"{project}-files"}).execute()
    region.api("dns", "v1").managedZones().create(
        project=project, body={"name": "zone", "dnsName": "example.com.", "description": ""}
    ).execute()

    with region.http() as http:
        buckets = http.get("/storage/v1/b", params={"project": project}).json()
        zones = http.get(f"/dns/v1/projects/{project}/managedZones").json()
        networks = http.get(f"/compute/compute/v1/projects/{project}/global/networks")

    assert [bucket["name"] for bucket in buckets["items"]] == [f"{project}-files"]
    assert [zone["name"] for zone in zones["managedZones"]] == ["zone"]
    assert networks.status_code == 200


@pytest.mark.parametrize("location", ["austrlia-southeast1", "us-central1-a"])
def test_a_location_that_does_not_exist_is_refused(region: Region, project: str, location: str) -> None:
    queues = region.api("cloudtasks", "v2").projects().locations().queues()

    with pytest.raises(HttpError) as refused:
        queues.list(parent=f"projects/{project}/locations/{location}").execute()

    assert refused.value.status_code == 403
    assert refused.value.reason == f"Permission denied on 'locations/{location}' (or it may not exist)."
    assert refused.value.error_details[0]["reason"] == "LOCATION_POLICY_VIOLATED"


def test_the_locations_of_an_api_are_google_clouds(region: Region, project: str) -> None:
    for client in (region.client(CloudTasksClient), region.client(CloudSchedulerClient)):
        listed = client.list_locations(request={"name": f"projects/{project}", "page_size": 1000}).locations
        one = client.get_location(request={"name": f"projects/{project}/locations/australia-southeast1"})

        assert one.location_id == "australia-southeast1"
        assert one.name == f"projects/{project}/locations/australia-southeast1"
        assert one in listed
        with pytest.raises(Forbidden):
            client.get_location(request={"name": f"projects/{project}/locations/austrlia-southeast1"})


def test_compute_names_the_region_that_it_does_not_know(region: Region, project: str) -> None:
    with region.http() as http:
        unknown = http.get(f"/compute/v1/projects/{project}/regions/austrlia-southeast1/subnetworks")
        known = http.get(f"/compute/v1/projects/{project}/regions/australia-southeast1/subnetworks")

    assert unknown.json()["error"]["message"] == (
        "Invalid value for field 'region': 'austrlia-southeast1'. Unknown region."
    )
    assert (unknown.status_code, known.status_code) == (400, 200)


def test_a_list_whose_filter_is_too_long_for_an_address_is_answered(region: Region, project: str) -> None:
    """The client sends it as a POST that says it is a GET."""
    secrets = region.api("secretmanager", "v1").projects().secrets()
    for name in ("first", "second"):
        secrets.create(parent=f"projects/{project}", secretId=name, body={"replication": {"automatic": {}}}).execute()
    expression = " OR ".join([*(f"name:none-{n:04}" for n in range(300)), "name:second"])

    found = secrets.list(parent=f"projects/{project}", filter=expression).execute()

    assert [secret["name"].rpartition("/")[2] for secret in found["secrets"]] == ["second"]


@pytest.mark.parametrize(
    ("query", "headers"),
    [("?fields=secrets.name", {}), ("?$fields=secrets.name", {}), ("", {"X-Goog-FieldMask": "secrets.name"})],
)
def test_a_client_may_ask_for_some_fields_in_three_ways(
    region: Region, project: str, query: str, headers: dict[str, str]
) -> None:
    path = f"/secretmanager/v1/projects/{project}/secrets"
    number = region.core.project_number(project)
    with region.http() as http:
        http.post(f"{path}?secretId=key", json={"replication": {"automatic": {}}})
        answer = http.get(path + query, headers=headers).json()

    assert answer == {"secrets": [{"name": f"projects/{number}/secrets/key"}]}


@pytest.mark.parametrize("fields", ["secrets(nmae)", "secrets/nmae", "nextPageToken/x", "bogus"])
def test_a_field_that_no_answer_has_cannot_be_asked_for(region: Region, project: str, fields: str) -> None:
    with region.http() as http:
        answer = http.get(f"/secretmanager/v1/projects/{project}/secrets", params={"fields": fields})

    error = answer.json()["error"]
    assert (error["code"], error["message"].split()[:3]) == (400, ["Invalid", "field", "selection"])
    assert error["errors"][0]["location"] == "fields"


def test_who_shows_no_token_is_asked_for_one(region: Region, project: str) -> None:
    answer = httpx.get(f"{region.url}/secretmanager/v1/projects/{project}/secrets")

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="https://accounts.google.com/"'
    assert answer.json()["error"]["status"] == "UNAUTHENTICATED"


def test_a_list_is_read_to_its_end_though_what_it_answered_is_deleted_meanwhile(region: Region, project: str) -> None:
    """As whoever tidies up does: delete what a page holds, ask for the next one."""
    secrets = region.client(SecretManagerServiceClient)
    accounts = region.api("iam", "v1").projects().serviceAccounts()
    for number in range(5):
        secrets.create_secret(
            parent=f"projects/{project}", secret_id=f"key-{number}", secret={"replication": {"automatic": {}}}
        )
        accounts.create(name=f"projects/{project}", body={"accountId": f"account-{number}"}).execute()

    for secret in secrets.list_secrets({"parent": f"projects/{project}", "page_size": 2}):
        secrets.delete_secret(name=secret.name)
    request = accounts.list(name=f"projects/{project}", pageSize=2)
    while request is not None:
        page = request.execute()
        for account in page["accounts"]:
            accounts.delete(name=account["name"]).execute()
        request = accounts.list_next(request, page)

    assert list(secrets.list_secrets(parent=f"projects/{project}")) == []
    assert accounts.list(name=f"projects/{project}").execute() == {}


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (None, ["blue", "green", "red"]),
        ("creationTimestamp desc", ["blue", "red", "green"]),
        ("mtu, name desc", ["red", "blue", "green"]),
    ],
)
def test_a_list_has_the_order_that_is_asked_for_on_every_page(
    region: Region, project: str, order: str | None, expected: list[str]
) -> None:
    networks = region.api("compute", "v1").networks()
    for name, mtu in (("green", 1500), ("red", 1460), ("blue", 1460)):
        networks.insert(project=project, body={"name": name, "mtu": mtu, "autoCreateSubnetworks": False}).execute()

    names: list[str] = []
    request = networks.list(project=project, orderBy=order, maxResults=1)
    while request is not None and len(names) < 4:
        page = request.execute()
        names += [network["name"] for network in page["items"]]
        request = networks.list_next(request, page)

    assert names == expected


def test_an_order_that_is_none_is_refused(region: Region, project: str) -> None:
    with pytest.raises(HttpError, match="Invalid value for orderBy"):
        region.api("compute", "v1").networks().list(project=project, orderBy="name down").execute()


@pytest.mark.parametrize("token", ["x", "bGF0ZXIgeA==", "MTA="])
def test_a_page_token_that_no_list_answered_is_refused(region: Region, project: str, token: str) -> None:
    with region.http() as http:
        answer = http.get(f"/secretmanager/v1/projects/{project}/secrets", params={"pageToken": token})

    assert (answer.status_code, "The page token is not one" in answer.text) == (400, True)
