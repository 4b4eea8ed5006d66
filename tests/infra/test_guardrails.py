"""Guardrails: each is broken once, and the repository's own stacks break none."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pulumi
import pytest

from infra.guardrails import Context, GuardrailError, Guardrails, findings
from tests.infra.inventory import STACKS, inventory_of, settings_of

CONTEXT = Context(project="validibot-au", location="australia-southeast1", production=True, deletion_protection=True)
BUCKET = "gcp:storage/bucket:Bucket storage-media"
DATABASE = "gcp:sql/databaseInstance:DatabaseInstance database-pg"
WEB = "gcp:cloudrunv2/service:Service validibot-web"
MIGRATE = "gcp:cloudrunv2/job:Job validibot-migrate"
SECRET = "gcp:secretmanager/secret:Secret django-secret-key"
NETWORK = "gcp:compute/network:Network network-vpc"
INVOKER = "gcp:cloudrunv2/serviceIamMember:ServiceIamMember validibot-worker-tasks-invokes"
READER = "gcp:storage/bucketIAMMember:BucketIAMMember storage-media-web"


@pytest.fixture(scope="module")
def inventory() -> dict[str, dict[str, Any]]:
    return inventory_of("au")


@pytest.mark.parametrize("stack", STACKS)
def test_no_stack_of_the_repository_breaks_a_rule(stack: str) -> None:
    context = Context.of(settings_of(stack))

    found = {key: findings(key.split()[0], props, context) for key, props in inventory_of(stack).items()}

    assert {key: lines for key, lines in found.items() if lines} == {}


def container(props: dict[str, Any]) -> dict[str, Any]:
    template = props["template"]
    first: dict[str, Any] = template.get("template", template)["containers"][0]
    return first


Change = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("resource", "change", "finding"),
    [
        (BUCKET, lambda p: p.pop("name"), "has no explicit name"),
        (BUCKET, lambda p: p.update(project="validibot-us"), "is in project validibot-us"),
        (BUCKET, lambda p: p.update(location="US"), "has location US"),
        (BUCKET, lambda p: p.update(uniformBucketLevelAccess=False), "allows ACLs"),
        (BUCKET, lambda p: p.update(publicAccessPrevention="inherited"), "can be made public"),
        (BUCKET, lambda p: p.pop("publicAccessPrevention"), "can be made public"),
        (BUCKET, lambda p: p.update(versioning={"enabled": False}), "forgets what is overwritten"),
        (SECRET, lambda p: p.update(replication={"auto": {}}), "has automatic replication"),
        (
            SECRET,
            lambda p: p["replication"]["userManaged"]["replicas"].append({"location": "us-central1"}),
            "has replication.userManaged.replicas.location us-central1",
        ),
        (DATABASE, lambda p: p["settings"]["ipConfiguration"].update(ipv4Enabled=True), "has a public address"),
        (DATABASE, lambda p: p["settings"]["ipConfiguration"].pop("ipv4Enabled"), "has a public address"),
        (
            DATABASE,
            lambda p: p["settings"]["ipConfiguration"].update(authorizedNetworks=[{"value": "0.0.0.0/0"}]),
            "lets networks of the internet in",
        ),
        (DATABASE, lambda p: p["settings"]["ipConfiguration"].pop("sslMode"), "accepts connections without TLS"),
        (
            DATABASE,
            lambda p: p["settings"]["backupConfiguration"].update(pointInTimeRecoveryEnabled=False),
            "has no backups with point-in-time recovery",
        ),
        (
            DATABASE,
            lambda p: p["settings"]["backupConfiguration"]["backupRetentionSettings"].update(retainedBackups=13),
            "retains 13 backups",
        ),
        (
            DATABASE,
            lambda p: p["settings"]["backupConfiguration"].update(location="us"),
            "has settings.backupConfiguration.location us",
        ),
        (DATABASE, lambda p: p.update(deletionProtection=False), "can be deleted by accident"),
        (
            DATABASE,
            lambda p: p["settings"].update(deletionProtectionEnabled=False),
            "can be deleted from the console",
        ),
        (WEB, lambda p: p.update(deletionProtection=False), "can be deleted by accident"),
        (WEB, lambda p: p.update(ingress="INGRESS_TRAFFIC_ALL"), "can be reached from the internet"),
        (WEB, lambda p: p.pop("ingress"), "can be reached from the internet"),
        (WEB, lambda p: p["template"].pop("serviceAccount"), "runs as the project's default account"),
        (WEB, lambda p: p["template"].pop("vpcAccess"), "is not in the VPC"),
        (WEB, lambda p: container(p).update(image="x/app:latest"), "has image x/app:latest"),
        (MIGRATE, lambda p: container(p).update(image="x/app:latest"), "has image x/app:latest"),
        (MIGRATE, lambda p: p["template"]["template"].pop("vpcAccess"), "is not in the VPC"),
        (
            WEB,
            lambda p: container(p)["envs"].append({"name": "MODAL_TOKEN", "value": "t"}),
            "has MODAL_TOKEN in the clear",
        ),
        (
            WEB,
            lambda p: container(p)["envs"][0]["valueSource"]["secretKeyRef"].update(version="latest"),
            "reads the latest version of DJANGO_SECRET_KEY",
        ),
        (INVOKER, lambda p: p.update(member="allUsers"), "grants roles/run.invoker to allUsers"),
        (READER, lambda p: p.update(member="allAuthenticatedUsers"), "grants roles/storage.objectUser to allAuth"),
        (READER, lambda p: p.update(role="roles/editor"), "grants roles/editor"),
        (NETWORK, lambda p: p.update(autoCreateSubnetworks=True), "creates a subnetwork in every region"),
    ],
)
def test_a_broken_rule_is_named(
    inventory: dict[str, dict[str, Any]], resource: str, change: Change, finding: str
) -> None:
    props = deepcopy(inventory[resource])
    change(props)

    (found,) = findings(resource.split()[0], props, CONTEXT)

    assert found.startswith(finding)


def test_a_key_of_a_service_account_is_refused() -> None:
    props = {"name": "key", "serviceAccountId": "validibot-web"}

    assert findings("gcp:serviceaccount/key:Key", props, CONTEXT) == [
        "is a key that can be copied: let the workload run as the account"
    ]


def test_writing_to_the_static_bucket_is_not_public_although_reading_is(
    inventory: dict[str, dict[str, Any]],
) -> None:
    props = inventory["gcp:storage/bucketIAMMember:BucketIAMMember storage-static-public"]

    assert findings("gcp:storage/bucketIAMMember:BucketIAMMember", props, CONTEXT) == []
    assert len(findings("gcp:storage/bucketIAMMember:BucketIAMMember", props | {"role": "x"}, CONTEXT)) == 1


def test_the_transform_refuses_the_resource_and_never_quotes_a_value() -> None:
    guardrails = Guardrails(settings_of("au"))
    secret = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "value": "hunter2"}
    env = [{"name": "DJANGO_SECRET_KEY", "value": secret}]
    args = pulumi.ResourceTransformArgs(
        custom=True,
        type_="gcp:cloudrunv2/job:Job",
        name="leak",
        props={
            "name": "leak",
            "deletionProtection": True,
            "template": {
                "template": {
                    "serviceAccount": "a",
                    "vpcAccess": {"networkInterfaces": []},
                    "containers": [{"envs": env}],
                }
            },
        },
        opts=pulumi.ResourceOptions(),
    )

    with pytest.raises(GuardrailError) as caught:
        guardrails.transform(args)

    assert str(caught.value) == (
        "gcp:cloudrunv2/job:Job leak has DJANGO_SECRET_KEY in the clear: take it from Secret Manager"
    )
