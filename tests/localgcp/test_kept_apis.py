"""APIs whose resources are kept and checked, and do nothing more: what they refuse is what a program gets wrong."""

from collections.abc import Callable
from typing import Any

import pytest
from googleapiclient.errors import HttpError

from tests.localgcp.fixtures import Region

THRESHOLD = {
    "displayName": "5xx",
    "conditionThreshold": {
        "filter": 'metric.type="run.googleapis.com/request_count" AND resource.type="cloud_run_revision"',
        "comparison": "COMPARISON_GT",
        "thresholdValue": 0.01,
        "duration": "300s",
    },
}


def refused(call: Callable[[], Any]) -> tuple[int, str]:
    with pytest.raises(HttpError) as error:
        call()
    return error.value.status_code, error.value.reason


@pytest.fixture
def monitoring(region: Region) -> Any:
    return region.api("monitoring", "v3").projects()


@pytest.fixture
def certificates(region: Region) -> Any:
    return region.api("certificatemanager", "v1").projects().locations()


@pytest.fixture
def connections(region: Region) -> Any:
    return region.api("servicenetworking", "v1").services().connections()


@pytest.fixture
def network(region: Region, project: str) -> str:
    """A network with an allocated range; the name that Service Networking takes."""
    compute = region.api("compute", "v1")
    main = compute.networks().insert(project=project, body={"name": "main", "autoCreateSubnetworks": False}).execute()
    allocated = {"addressType": "INTERNAL", "purpose": "VPC_PEERING", "prefixLength": 20, "network": main["targetLink"]}
    compute.globalAddresses().insert(project=project, body={"name": "services", **allocated}).execute()
    return f"projects/{region.core.project_number(project)}/global/networks/main"


def test_a_channel_that_a_policy_uses_is_not_deleted_without_force(monitoring: Any, project: str) -> None:
    name = f"projects/{project}"
    channels, policies = monitoring.notificationChannels(), monitoring.alertPolicies()
    channel = channels.create(name=name, body={"type": "email", "labels": {"email_address": "a@b.test"}}).execute()
    body = {"displayName": "5xx", "combiner": "OR", "conditions": [THRESHOLD]}
    body["notificationChannels"] = [channel["name"]]
    policy = policies.create(name=name, body=body).execute()

    status, reason = refused(lambda: channels.delete(name=channel["name"]).execute())
    assert (status, policy["name"] in reason) == (400, True)

    channels.delete(name=channel["name"], force=True).execute()
    assert policies.get(name=policy["name"]).execute().get("notificationChannels", []) == []


def test_an_alert_policy_names_channels_that_exist(monitoring: Any, project: str) -> None:
    missing = f"projects/{project}/notificationChannels/1"
    body = {"displayName": "5xx", "combiner": "OR", "conditions": [THRESHOLD], "notificationChannels": [missing]}

    status, reason = refused(lambda: monitoring.alertPolicies().create(name=f"projects/{project}", body=body).execute())

    assert (status, missing in reason) == (404, True)


def test_conditions_get_names_below_their_policy_and_keep_them(monitoring: Any, project: str) -> None:
    body = {"displayName": "5xx", "combiner": "OR", "conditions": [THRESHOLD]}
    policy = monitoring.alertPolicies().create(name=f"projects/{project}", body=body).execute()
    condition = policy["conditions"][0]["name"]

    changed = dict(policy, conditions=[dict(policy["conditions"][0], displayName="more"), THRESHOLD])
    patched = monitoring.alertPolicies().patch(name=policy["name"], body=changed, updateMask="conditions").execute()

    assert condition.startswith(policy["name"] + "/conditions/")
    names = [found["name"] for found in patched["conditions"]]
    assert (names[0], names[1].startswith(policy["name"]), len(set(names))) == (condition, True, 2)


def test_nothing_pretends_to_be_measured(monitoring: Any, project: str) -> None:
    status, _ = refused(
        lambda: monitoring.timeSeries().create(name=f"projects/{project}", body={"timeSeries": []}).execute()
    )

    assert status == 501


def test_a_certificate_in_a_map_is_not_deleted(certificates: Any, project: str) -> None:
    parent = f"projects/{project}/locations/global"
    authorization = {"domain": "au.example.test"}
    certificates.dnsAuthorizations().create(parent=parent, dnsAuthorizationId="au", body=authorization).execute()
    managed = {"domains": ["au.example.test"], "dnsAuthorizations": [f"{parent}/dnsAuthorizations/au"]}
    made = certificates.certificates().create(parent=parent, certificateId="au", body={"managed": managed}).execute()
    certificates.certificateMaps().create(parent=parent, certificateMapId="au", body={}).execute()
    entries = certificates.certificateMaps().certificateMapEntries()
    entry = {"hostname": "au.example.test", "certificates": [f"{parent}/certificates/au"]}
    entries.create(parent=f"{parent}/certificateMaps/au", certificateMapEntryId="au", body=entry).execute()

    assert (made["done"], made["response"]["sanDnsnames"]) == (True, ["au.example.test"])
    record = certificates.dnsAuthorizations().get(name=f"{parent}/dnsAuthorizations/au").execute()["dnsResourceRecord"]
    assert (record["name"], record["type"]) == ("_acme-challenge.au.example.test.", "CNAME")
    assert refused(lambda: certificates.certificates().delete(name=f"{parent}/certificates/au").execute())[0] == 400
    assert (
        refused(lambda: certificates.certificateMaps().delete(name=f"{parent}/certificateMaps/au").execute())[0] == 400
    )

    entries.delete(name=f"{parent}/certificateMaps/au/certificateMapEntries/au").execute()
    certificates.certificates().delete(name=f"{parent}/certificates/au").execute()


def test_a_private_connection_needs_a_network_and_an_allocated_range(
    connections: Any, network: str, project: str
) -> None:
    parent = "services/servicenetworking.googleapis.com"
    nowhere = {"network": network + "2", "reservedPeeringRanges": ["services"]}
    no_range = {"network": network, "reservedPeeringRanges": ["elsewhere"]}

    assert refused(lambda: connections.create(parent=parent, body=nowhere).execute())[0] == 404
    status, reason = refused(lambda: connections.create(parent=parent, body=no_range).execute())
    assert (status, "'elsewhere'" in reason) == (400, True)
    assert connections.list(parent=parent, network=network).execute() == {}


def test_a_private_connection_stays_while_an_instance_uses_it(
    region: Region, connections: Any, network: str, project: str
) -> None:
    parent = "services/servicenetworking.googleapis.com"
    body = {"network": network, "reservedPeeringRanges": ["services"]}
    connections.create(parent=parent, body=body).execute()
    private = {"privateNetwork": f"projects/{project}/global/networks/main"}
    instance = f"sqladmin/projects/{project}/instances/pg"
    region.core.store.create(instance, {"name": "pg", "settings": {"ipConfiguration": private}})
    name = f"{parent}/connections/servicenetworking-googleapis-com"

    def delete() -> Any:
        return connections.deleteConnection(name=name, body={"consumerNetwork": network}).execute()

    refusal = delete()["error"]
    assert (refusal["code"], "are still using this connection" in refusal["message"]) == (9, True)
    assert connections.list(parent=parent, network=network).execute()["connections"][0]["network"] == network

    region.core.store.delete(instance)
    assert delete()["done"] is True
    assert connections.list(parent=parent, network=network).execute() == {}


def test_a_network_is_not_deleted_before_its_peering(
    region: Region, connections: Any, network: str, project: str
) -> None:
    parent = "services/servicenetworking.googleapis.com"
    connections.create(parent=parent, body={"network": network, "reservedPeeringRanges": ["services"]}).execute()
    networks, addresses = region.api("compute", "v1").networks(), region.api("compute", "v1").globalAddresses()
    addresses.delete(project=project, address="services").execute()
    peering = {"name": "servicenetworking-googleapis-com"}

    assert "already being used" in refused(networks.delete(project=project, network="main").execute)[1]
    networks.removePeering(project=project, network="main", body=peering).execute()
    assert refused(networks.removePeering(project=project, network="main", body=peering).execute)[0] == 400
    networks.delete(project=project, network="main").execute()

    assert connections.list(parent=parent, network=network).execute() == {}


def test_a_transfer_job_is_kept_and_does_not_pretend_to_run(region: Region, project: str) -> None:
    jobs = region.api("storagetransfer", "v1").transferJobs()
    name = f"transferJobs/{project}"
    jobs.create(body={"name": name, "projectId": project, "status": "ENABLED", "description": "media"}).execute()
    patch = {"projectId": project, "transferJob": {"description": "all"}, "updateTransferJobFieldMask": "description"}

    assert jobs.patch(jobName=name, body=patch).execute()["description"] == "all"
    assert jobs.get(jobName=name, projectId=project).execute()["status"] == "ENABLED"
    assert refused(lambda: jobs.run(jobName=name, body={"projectId": project}).execute())[0] == 501
    jobs.delete(jobName=name, projectId=project).execute()
    assert jobs.get(jobName=name, projectId=project).execute()["status"] == "DELETED"


def test_a_budget_is_for_whoever_may_see_the_account(region: Region, project: str) -> None:
    parent = "billingAccounts/000000-111111-222222"
    amount = {"specifiedAmount": {"currencyCode": "AUD", "units": "500"}}
    budgets = region.api("billingbudgets", "v1").billingAccounts().budgets()
    budget = budgets.create(parent=parent, body={"displayName": project, "amount": amount}).execute()
    owner = region.account(project, "owner-app", "roles/owner")
    as_owner = region.api("billingbudgets", "v1", owner.credentials).billingAccounts().budgets()

    assert budgets.get(name=budget["name"]).execute()["amount"] == amount
    assert refused(lambda: as_owner.get(name=budget["name"]).execute())[0] == 403


def test_an_org_policy_is_changed_by_a_mask_that_names_it(region: Region, project: str) -> None:
    policies = region.api("orgpolicy", "v2").projects().policies()
    name = f"projects/{project}/policies/gcp.resourceLocations"
    rule = {"values": {"allowedValues": ["in:australia-locations"]}}
    made = policies.create(parent=f"projects/{project}", body={"name": name, "spec": {"rules": [rule]}}).execute()
    wider = {"values": {"allowedValues": ["in:australia-locations", "in:us-locations"]}}

    body = {"spec": {"etag": made["spec"]["etag"], "rules": [wider]}}
    changed = policies.patch(name=name, updateMask="policy.spec", body=body).execute()

    assert changed["spec"]["rules"] == [wider]
    assert refused(lambda: policies.patch(name=name, updateMask="policy.spec", body=body).execute())[0] == 409
    policies.delete(name=name).execute()
    assert refused(lambda: policies.get(name=name).execute())[0] == 404


def test_a_resource_of_compute_must_have_a_name_that_compute_takes(region: Region, project: str) -> None:
    with region.http() as http:
        refused = http.post(f"/compute/v1/projects/{project}/global/addresses", json={"name": "Not_A_Name"})

    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == (
        "Invalid value for field 'resource.name': 'Not_A_Name'. Must be a match of regex"
        " '(?:[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?)'"
    )


def test_zones_are_in_their_regions_and_regions_name_their_zones(region: Region, project: str) -> None:
    compute = region.api("compute", "v1")
    regions = {found["name"]: found for found in compute.regions().list(project=project).execute()["items"]}
    zones = {found["name"]: found for found in compute.zones().list(project=project).execute()["items"]}

    assert {"australia-southeast1", "us-central1", "europe-west1"} <= set(regions)
    for found in regions.values():
        inside = [zone for zone in zones.values() if zone["region"] == found["selfLink"]]
        assert [zone["selfLink"] for zone in inside] == found["zones"], found["name"]
    assert len(zones) == sum(len(found["zones"]) for found in regions.values())
    ids = [found["id"] for found in (*regions.values(), *zones.values())]
    assert len(ids) == len(set(ids))


def test_record_sets_change_together_or_not_at_all(region: Region, project: str) -> None:
    dns = region.api("dns", "v1")
    zone = {"project": project, "managedZone": "zone"}
    dns.managedZones().create(
        project=project, body={"name": "zone", "dnsName": "x.test.", "description": "a zone"}
    ).execute()
    policy = {"wrr": {"items": [{"weight": 1, "rrdatas": ["203.0.113.9"]}]}}
    plain = {"name": "a.x.test.", "type": "A", "ttl": 60, "rrdatas": ["203.0.113.9"]}
    routed = {"name": "b.x.test.", "type": "A", "ttl": 60, "routingPolicy": policy}

    def change(**body: Any) -> Any:
        return dns.changes().create(**zone, body=body).execute()

    def status_and_reason(**body: Any) -> tuple[int, str]:
        return refused(lambda: change(**body))

    def records() -> list[str]:
        return [found["name"] for found in dns.resourceRecordSets().list(**zone, type="A").execute()["rrsets"]]

    change(additions=[plain, routed])
    assert records() == ["a.x.test.", "b.x.test."]
    for lacking in ("name", "type", "rrdatas"):
        incomplete = {name: value for name, value in plain.items() if name != lacking}
        assert status_and_reason(deletions=[plain], additions=[incomplete]) == (
            400,
            f"Required field 'entity.change.additions.{lacking}' not specified",
        )
        assert status_and_reason(deletions=[routed, incomplete])[0] == 400
    assert status_and_reason(deletions=[{**plain, "ttl": 61}])[0] == 404
    assert records() == ["a.x.test.", "b.x.test."]

    change(deletions=[plain, routed])

    assert "rrsets" not in dns.resourceRecordSets().list(**zone, type="A").execute()
    assert refused(lambda: dns.managedZones().update(**zone, body={"name": "zone"}).execute())[0] == 400


def test_a_record_set_is_read_changed_and_deleted_by_its_name_and_type(region: Region, project: str) -> None:
    dns = region.api("dns", "v1")
    zone = {"name": "au", "dnsName": "au.example.test.", "description": ""}
    dns.managedZones().create(project=project, body=zone).execute()
    records = dns.resourceRecordSets()
    where = {"project": project, "managedZone": "au"}
    record = {"name": "www.au.example.test.", "type": "A", "ttl": 300, "rrdatas": ["203.0.113.7"]}
    named = where | {"name": record["name"], "type": "A"}
    records.create(**where, body=record).execute()

    changed = records.patch(**named, body={"ttl": 60}).execute()
    nowhere = refused(records.create(**where, body=record | {"name": "x.au.example.test.", "rrdatas": ["x"]}).execute)

    assert records.get(**named).execute() == changed == {"kind": "dns#resourceRecordSet", **record, "ttl": 60}
    assert nowhere == (400, "Invalid value for 'entity.change.additions.rrdata[0]': 'x'")
    records.delete(**named).execute()
    gone = (404, "The 'parameters.name' resource named 'www.au.example.test. (A)' does not exist.")
    assert refused(records.get(**named).execute) == gone
    assert refused(records.delete(**named).execute) == gone
    dns.managedZones().delete(project=project, managedZone="au").execute()


@pytest.mark.parametrize(
    ("firewall", "message"),
    [
        ({}, "'resource.allowed': a firewall must have rules that allow, or rules that deny, and not both"),
        (
            {"allowed": [{"IPProtocol": "htpp"}]},
            "'resource.allowed.IPProtocol': 'htpp'. It must be a number, or one of",
        ),
        ({"denied": [{"IPProtocol": "tcp", "ports": ["443-80"]}]}, "'resource.denied.ports': '443-80'"),
        ({"denied": [{"IPProtocol": "6"}], "sourceRanges": ["10.0.0.0/33"]}, "'resource.sourceRanges': '10.0.0.0/33'"),
        ({"denied": [{"IPProtocol": "all"}], "priority": 65536}, "'resource.priority': '65536'"),
    ],
)
def test_a_firewall_that_means_nothing_is_refused(
    region: Region, project: str, firewall: dict[str, Any], message: str
) -> None:
    compute = region.api("compute", "v1")
    compute.networks().insert(project=project, body={"name": "net", "autoCreateSubnetworks": False}).execute()
    body = {"name": "rules", "network": "global/networks/net", **firewall}

    status, reason = refused(compute.firewalls().insert(project=project, body=body).execute)

    assert (status, message in reason) == (400, True), reason
    assert "items" not in compute.firewalls().list(project=project).execute()


@pytest.mark.parametrize(
    ("threshold", "message"),
    [
        ({"filter": 'resource.type="cloud_run_revision"'}, 'must specify a restriction on "metric.type"'),
        ({"duration": "90s"}, "must be a multiple of a minute, got 90s"),
    ],
)
def test_a_threshold_that_monitoring_could_not_watch_is_refused(
    monitoring: Any, project: str, threshold: dict[str, str], message: str
) -> None:
    condition = THRESHOLD | {"conditionThreshold": {**THRESHOLD["conditionThreshold"], **threshold}}  # type: ignore[dict-item]
    policy = {"displayName": "errors", "combiner": "OR", "conditions": [condition]}

    status, reason = refused(monitoring.alertPolicies().create(name=f"projects/{project}", body=policy).execute)

    assert (status, message in reason) == (400, True), reason


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ({"period": "61s", "timeout": "10s"}, "The period of an uptime check is one of"),
        ({"period": "60s", "timeout": "61s"}, "The timeout of an uptime check is 1 to 60 seconds, got 61"),
    ],
)
def test_an_uptime_check_has_the_times_that_google_offers(
    monitoring: Any, project: str, times: dict[str, str], message: str
) -> None:
    host = {"type": "uptime_url", "labels": {"host": "au.example.test"}}
    check = {"displayName": "door", "monitoredResource": host, "httpCheck": {"path": "/"}, **times}

    status, reason = refused(monitoring.uptimeCheckConfigs().create(parent=f"projects/{project}", body=check).execute)

    assert (status, message in reason) == (400, True), reason
