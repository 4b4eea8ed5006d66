"""Where APIs are served, and what is answered elsewhere."""

import pytest

from tests.localgcp.fixtures import Region


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


def test_the_address_with_an_apis_name_is_an_endpoint_for_the_clients_of_dns_and_compute(
    region: Region, project: str
) -> None:
    region.api("dns", "v1").managedZones().create(
        project=project, body={"name": "zone", "dnsName": "example.com.", "description": ""}
    ).execute()

    with region.http() as http:
        zones = http.get(f"/dns/v1/projects/{project}/managedZones").json()
        networks = http.get(f"/compute/compute/v1/projects/{project}/global/networks")

    assert [zone["name"] for zone in zones["managedZones"]] == ["zone"]
    assert networks.status_code == 200
