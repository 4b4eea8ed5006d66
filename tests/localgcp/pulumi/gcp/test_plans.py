"""check, diff and preview: what can be said without asking an API."""

import inspect
import re
from collections.abc import Mapping
from typing import Any

import pytest
from pulumi_gcp.provider import ProviderArgs

from localgcp.pulumi.gcp.kinds import KINDS
from localgcp.pulumi.gcp.provider import GcpProvider
from localgcp.pulumi.gcp.schema import tokens
from localgcp.pulumi.provider import UNKNOWN, Change, Diff, FileAsset

BUCKET = "gcp:storage/bucket:Bucket"
SERVICE = "gcp:cloudrunv2/service:Service"
NETWORK = "gcp:compute/network:Network"
SUBNETWORK = "gcp:compute/subnetwork:Subnetwork"
FIREWALL = "gcp:compute/firewall:Firewall"
QUEUE = "gcp:cloudtasks/queue:Queue"
SECRET = "gcp:secretmanager/secret:Secret"
RECORD = "gcp:dns/recordSet:RecordSet"
BUCKET_MEMBER = "gcp:storage/bucketIAMMember:BucketIAMMember"
MEMBER = "gcp:projects/iAMMember:IAMMember"
INSTANCE = "gcp:sql/databaseInstance:DatabaseInstance"
OBJECT = "gcp:storage/bucketObject:BucketObject"

ENVIRONMENT = {"GOOGLE_PROJECT": "demo", "GOOGLE_REGION": "australia-southeast1"}


@pytest.fixture
def provider() -> GcpProvider:
    return GcpProvider(environment=ENVIRONMENT)


def urn(type: str) -> str:
    return f"urn:pulumi:au::validibot::{type}::thing"


def failures(provider: GcpProvider, type: str, **news: Any) -> dict[str, str]:
    _, found = provider.check(type, urn(type), olds=None, news=news, random_seed=b"seed")
    return {failure.property: failure.reason for failure in found}


def inputs(provider: GcpProvider, type: str, /, **news: Any) -> dict[str, Any]:
    checked, found = provider.check(type, urn(type), olds=None, news=news, random_seed=b"seed")
    assert not found
    return checked


def diff(provider: GcpProvider, type: str, old: dict[str, Any], new: dict[str, Any], **outputs: Any) -> Diff:
    return provider.diff(
        type,
        urn(type),
        "id",
        old_inputs=inputs(provider, type, **old),
        old_outputs=outputs,
        news=inputs(provider, type, **new),
    )


# check


def test_an_unknown_property_is_refused_with_the_one_that_was_meant(provider: GcpProvider) -> None:
    found = failures(
        provider, BUCKET, name="b", location="US", storageclass="NEARLINE", uniform_bucket_level_access=True
    )
    assert found == {
        "storageclass": "is unknown; did you mean storageClass?",
        "uniform_bucket_level_access": "is unknown; did you mean uniformBucketLevelAccess?",
    }


def test_a_nested_failure_names_the_whole_path(provider: GcpProvider) -> None:
    container = {"image": "i", "envs": [{"nam": "A"}], "resources": {"limits": ["1"]}}
    found = failures(provider, SERVICE, name="s", location="l", template={"containers": [container]})
    assert found == {
        "template.containers[0].envs[0].nam": "is unknown; did you mean name?",
        "template.containers[0].envs[0].name": "is required and missing",
        "template.containers[0].resources.limits": "must be an object of strings, not a list",
    }


def test_what_is_required_must_be_there_or_be_unknown_yet(provider: GcpProvider) -> None:
    assert failures(provider, BUCKET, name="b") == {"location": "is required and missing"}
    assert failures(provider, BUCKET, name="b", location=UNKNOWN) == {}


def test_an_output_cannot_be_set(provider: GcpProvider) -> None:
    assert failures(provider, BUCKET, name="b", location="US", url="gs://b") == {
        "url": "cannot be set: the API chooses it"
    }


def test_values_are_converted_only_where_nothing_is_lost(provider: GcpProvider) -> None:
    checked = inputs(provider, QUEUE, name="q", location="l", rateLimits={"maxConcurrentDispatches": "20"})
    assert checked["rateLimits"] == {"maxConcurrentDispatches": 20}
    assert failures(provider, QUEUE, name="q", location="l", rateLimits={"maxConcurrentDispatches": 1.5}) == {
        "rateLimits.maxConcurrentDispatches": "must be a whole number, not 1.5"
    }
    assert failures(provider, BUCKET, name="b", location="US", versioning=True) == {
        "versioning": "must be an object, not True"
    }


def test_a_value_that_the_real_provider_would_refuse_is_refused_with_the_allowed_ones(provider: GcpProvider) -> None:
    assert failures(provider, FIREWALL, name="f", network="n", direction="INWARD") == {
        "direction": "must be one of INGRESS, EGRESS, not 'INWARD'"
    }
    assert failures(provider, FIREWALL, name="f", network="n", direction="EGRESS") == {}
    assert failures(provider, FIREWALL, name="f", network="n", direction="") == {}
    assert failures(provider, FIREWALL, name="f", network="n", direction=UNKNOWN) == {}
    # In a list, in an object, and where the real provider leaves it to the API.
    traffic = [{"type": "LATEST", "percent": 100}]
    assert failures(provider, SERVICE, name="s", location="l", template={}, traffics=traffic) == {
        "traffics[0].type": "must be one of TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST, "
        "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION, not 'LATEST'"
    }
    assert failures(provider, BUCKET, name="b", location="US", storageClass="FAST") == {}


def test_properties_that_exclude_one_another_are_refused(provider: GcpProvider) -> None:
    rule = [{"protocol": "tcp"}]
    assert failures(provider, FIREWALL, name="f", network="n", allows=rule, denies=rule) == {
        "denies": "conflicts with allows: only one of allows, denies can be set"
    }
    assert failures(provider, SECRET, secretId="s", replication={}) == {
        "replication": "takes exactly one of auto and userManaged"
    }
    assert list(failures(provider, MEMBER, project="p", role="viewer", member="alice@example.com")) == [
        "member",
        "role",
    ]
    assert list(failures(provider, OBJECT, bucket="b", name="o")) == ["content"]


def test_defaults_are_filled_in_and_remembered(provider: GcpProvider) -> None:
    checked = inputs(provider, QUEUE, name="q", location="l")
    assert checked == {"name": "q", "location": "l", "desiredState": "RUNNING", "__defaults": ["desiredState"]}


def test_a_missing_name_is_made_up_once_and_then_kept(provider: GcpProvider) -> None:
    first, _ = provider.check(BUCKET, urn(BUCKET), olds=None, news={"location": "US"}, random_seed=b"one")
    assert first["name"].startswith("thing-")
    assert len(first["name"]) == len("thing-") + 7
    again, _ = provider.check(BUCKET, urn(BUCKET), olds=first, news={"location": "US"}, random_seed=b"two")
    assert again["name"] == first["name"]
    # A name that the program gave and gives no longer is not kept.
    given = inputs(provider, BUCKET, name="given", location="US")
    dropped, _ = provider.check(BUCKET, urn(BUCKET), olds=given, news={"location": "US"}, random_seed=b"two")
    assert dropped["name"].startswith("thing-")


@pytest.mark.parametrize(
    ("type", "name", "pattern", "news"),
    [
        (SECRET, "secretId", r"thing-[0-9a-f]{7}", {"replication": {"auto": {}}}),
        ("gcp:serviceaccount/account:Account", "accountId", r"thing-[0-9a-f]{7}", {}),
        ("gcp:projects/iAMCustomRole:IAMCustomRole", "roleId", r"thing_[0-9a-f]{7}", {"title": "T", "permissions": []}),
    ],
)
def test_ids_that_the_sdk_lets_out_are_made_up_in_the_form_that_the_api_takes(
    provider: GcpProvider, type: str, name: str, pattern: str, news: dict[str, Any]
) -> None:
    made, failures = provider.check(type, urn(type), olds=None, news=news, random_seed=b"one")
    assert not failures
    assert re.fullmatch(pattern, made[name])
    long = f"urn:pulumi:au::validibot::{type}::{'a' * 80}"
    assert len(provider.check(type, long, olds=None, news=news, random_seed=b"one")[0][name]) <= 63


def test_a_made_up_account_fits_into_thirty_letters(provider: GcpProvider) -> None:
    account = "gcp:serviceaccount/account:Account"
    long = f"urn:pulumi:au::validibot::{account}::a-rather-long-name-for-an-account"
    made, failures = provider.check(account, long, olds=None, news={}, random_seed=b"one")
    assert not failures
    assert len(made["accountId"]) == 30


def test_a_type_that_is_not_known_is_refused(provider: GcpProvider) -> None:
    assert "is not known to this provider" in failures(provider, "gcp:redis/instance:Instance")[""]


# diff


def test_changes_are_named_by_path_and_replace_only_where_they_must(provider: GcpProvider) -> None:
    base = {"name": "n", "network": "v", "ipCidrRange": "10.0.0.0/24", "region": "r"}
    changed = diff(provider, SUBNETWORK, base, {**base, "ipCidrRange": "10.0.0.0/23", "privateIpGoogleAccess": True})
    assert changed == Diff(changes={"ipCidrRange": "update", "privateIpGoogleAccess": "add"})
    moved = diff(provider, SUBNETWORK, base, {**base, "network": "w"})
    assert moved == Diff(changes={"network": "update"}, replaces=("network",), delete_before_replace=True)


@pytest.mark.parametrize(
    ("type_", "base", "changed", "goes_first"),
    [
        (SUBNETWORK, {"name": "n", "network": "v", "ipCidrRange": "10.0.0.0/24"}, {"name": "m"}, True),
        (SUBNETWORK, {"network": "v", "ipCidrRange": "10.0.0.0/24"}, {"network": "w"}, False),
        (SECRET, {"secretId": "a", "replication": {"auto": {}}}, {"secretId": "b"}, True),
        (MEMBER, {"project": "p", "role": "roles/viewer", "member": "user:a@b.c"}, {"member": "user:d@b.c"}, True),
        (BUCKET_MEMBER, {"bucket": "b", "role": "roles/storage.admin", "member": "allUsers"}, {"bucket": "c"}, False),
        (RECORD, {"managedZone": "z", "name": "a.b.", "type": "A", "rrdatas": ["192.0.2.1"]}, {"name": "c.b."}, False),
    ],
)
def test_a_resource_that_the_program_named_goes_before_its_successor(
    provider: GcpProvider, type_: str, base: dict[str, Any], changed: dict[str, Any], goes_first: bool
) -> None:
    found = diff(provider, type_, base, base | changed)

    assert found.replaces == tuple(changed)
    assert found.delete_before_replace == goes_first


@pytest.mark.parametrize(
    ("type", "old", "new"),
    [
        (
            QUEUE,
            {"name": "q", "location": "l", "retryConfig": {"minBackoff": "60s"}},
            {"name": "q", "location": "l", "retryConfig": {"minBackoff": "60.0s"}},
        ),
        (
            FIREWALL,
            {
                "name": "f",
                "network": "v",
                "allows": [{"protocol": "tcp"}, {"protocol": "icmp"}],
                "sourceRanges": ["a", "b"],
            },
            {
                "name": "f",
                "network": "https://www.googleapis.com/compute/v1/projects/demo/global/networks/v",
                "allows": [{"protocol": "icmp"}, {"protocol": "tcp"}],
                "sourceRanges": ["b", "a"],
            },
        ),
        (
            BUCKET,
            {"name": "b", "location": "australia-southeast1", "labels": {}},
            {"name": "b", "location": "AUSTRALIA-SOUTHEAST1", "versioning": None},
        ),
        (
            BUCKET,
            {"name": "b", "location": "US", "retentionPolicy": {"retentionPeriod": "604800"}},
            {"name": "b", "location": "US", "retentionPolicy": {"retentionPeriod": 604800, "isLocked": False}},
        ),
        (
            OBJECT,
            {"bucket": "b", "name": "o", "source": FileAsset("/here/o", "abc")},
            {"bucket": "b", "name": "o", "source": FileAsset("/elsewhere/o", "abc")},
        ),
    ],
)
def test_what_means_the_same_is_no_difference(
    provider: GcpProvider, type: str, old: dict[str, Any], new: dict[str, Any]
) -> None:
    assert diff(provider, type, old, new) == Diff()


def test_a_label_more_or_less_is_a_change_of_that_label(provider: GcpProvider) -> None:
    old = {"name": "b", "location": "US", "labels": {"a": "1", "app.kubernetes.io/name": "x"}}
    changed = diff(provider, BUCKET, old, {**old, "labels": {"a": "2", "b": "3"}})
    assert changed.changes == {"labels.a": "update", "labels.b": "add", 'labels["app.kubernetes.io/name"]': "delete"}


def test_an_unknown_value_is_a_change(provider: GcpProvider) -> None:
    old = {"name": "n", "network": "v", "ipCidrRange": "10.0.0.0/24", "region": "r"}
    changed = diff(provider, SUBNETWORK, old, {**old, "network": UNKNOWN})
    assert changed.changes == {"network": "update"}
    assert changed.replaces == ("network",)


def test_another_default_project_replaces_and_the_same_one_does_not(provider: GcpProvider) -> None:
    network = {"name": "n"}
    assert diff(provider, NETWORK, network, network, project="demo") == Diff()
    assert diff(provider, NETWORK, network, network, project="other").replaces == ("project",)
    assert diff(provider, NETWORK, network, {"name": "n", "project": "demo"}, project="demo") == Diff()


# preview


def test_a_preview_knows_the_inputs_and_asks_nothing(provider: GcpProvider) -> None:
    wanted = inputs(provider, BUCKET, name="b", location="US", labels={"a": "1"})
    id, outputs = provider.create(BUCKET, urn(BUCKET), inputs=wanted, preview=True, timeout_seconds=None)
    assert id == ""
    assert outputs["name"] == "b"
    assert outputs["url"] is UNKNOWN
    assert outputs["effectiveLabels"] == {"a": "1", "goog-pulumi-provisioned": "true"}


def test_a_preview_of_an_update_keeps_what_the_state_knows(provider: GcpProvider) -> None:
    old = inputs(provider, BUCKET, name="b", location="US")
    new = inputs(provider, BUCKET, name="b", location="US", versioning={"enabled": True})
    state = {"name": "b", "location": "US", "url": "gs://b", "selfLink": "https://…/b"}
    outputs = provider.update(
        BUCKET,
        urn(BUCKET),
        "b",
        old_inputs=old,
        old_outputs=state,
        news=new,
        preview=True,
        timeout_seconds=None,
    )
    assert (outputs["url"], outputs["selfLink"]) == ("gs://b", "https://…/b")
    assert outputs["versioning"] == {"enabled": True}


# configuration


def test_the_stacks_configuration_wins_over_the_environment(provider: GcpProvider) -> None:
    provider.configure({"project": "configured"})
    network = {"name": "n"}
    assert diff(provider, NETWORK, network, network, project="configured") == Diff()
    assert provider.check_config({"pollInterval": "soon"})[0].property == "pollInterval"


def test_a_misspelt_setting_is_refused_with_the_one_that_was_meant(provider: GcpProvider) -> None:
    found = provider.check_config(
        {
            "projct": "p",
            "storageCustomEndpoint": "http://127.0.0.1:1/storage/v1/",
            "zone": "z",
            "defaultLabels": "[1]",
            "impersonateServiceAccount": "a@b.c",
            "region": UNKNOWN,
        }
    )
    assert {failure.property: failure.reason.partition(":")[0] for failure in found} == {
        "projct": "gcp",
        "defaultLabels": "must be an object of strings",
        "impersonateServiceAccount": "is not there in the offline provider",
    }
    assert found[0].reason == "gcp:projct is no setting of the provider; did you mean gcp:project?"


def test_every_setting_of_the_sdk_is_known(provider: GcpProvider) -> None:
    settings = {
        getattr(found.fget, "_pulumi_name", name)
        for name, found in inspect.getmembers(ProviderArgs, lambda member: isinstance(member, property))
    }
    assert {"project", "storageCustomEndpoint", "preferRegionalEndpoints"} <= settings

    found = provider.check_config(dict.fromkeys([*settings, "disableGlobalProjectWarning", "skipRegionValidation"], ""))

    assert {failure.property for failure in found if "is no setting" in failure.reason} == set()


def test_default_labels_are_part_of_the_plan_and_changes_of_them_are_changes(provider: GcpProvider) -> None:
    wanted = inputs(provider, BUCKET, name="b", location="US", labels={"team": "mine"})
    provider.configure({"project": "p", "defaultLabels": '{"team": "platform", "cost": "7"}'})
    _, outputs = provider.create(BUCKET, urn(BUCKET), inputs=wanted, preview=True, timeout_seconds=None)
    labelled = {"team": "mine", "cost": "7", "goog-pulumi-provisioned": "true"}
    assert outputs["pulumiLabels"] == labelled
    assert outputs["labels"] == {"team": "mine"}

    state = {"name": "b", "project": "p", "location": "US", "pulumiLabels": labelled, "effectiveLabels": labelled}

    def changes() -> Mapping[str, Change]:
        found = provider.diff(BUCKET, urn(BUCKET), "b", old_inputs=wanted, old_outputs=state, news=wanted)
        assert not found.replaces
        return found.changes

    assert changes() == {}
    provider.configure({"project": "p", "defaultLabels": {"cost": "8"}})
    assert changes() == {"pulumiLabels": "update"}
    provider.configure({"project": "p"})
    assert changes() == {"pulumiLabels": "update"}


# the types


def test_every_type_that_is_described_can_be_managed() -> None:
    assert set(KINDS) == set(tokens())
    for kind in KINDS.values():
        known = set(kind.properties)
        assert kind.sent_on_update <= known, kind.type
        assert {path.partition(".")[0] for path in kind.alike} <= known, kind.type
        assert {name for group in kind.conflicts for name in group} <= known, kind.type
