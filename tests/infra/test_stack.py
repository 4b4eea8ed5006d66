"""A recorded stack: what is registered, in which order, and with whose rights."""

import base64
import json
from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from infra.components.secrets import ed25519_pem
from tests.infra.inventory import INVENTORY, STACKS, inventory_of, recorded_stack
from tests.infra.recording import Recorded


@cache
def au() -> dict[str, Recorded]:
    return {resource.name: resource for resource in recorded_stack("au")}


def waits_for(name: str) -> set[str]:
    """Everything that the engine finishes before it touches the resource."""
    seen: set[str] = set()
    left = [name]
    while left:
        for before in au()[left.pop()].waits_for - seen:
            seen.add(before)
            left.append(before)
    return seen


@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_registers_exactly_what_its_inventory_lists(stack: str) -> None:
    expected = json.loads((INVENTORY / f"{stack}.json").read_text())

    assert inventory_of(stack) == expected, "if the change is meant: make inventory, and read the diff"


def test_no_revision_starts_before_the_migration_has_succeeded() -> None:
    assert "jobs-migration" in waits_for("validibot-web")
    assert "jobs-migration" in waits_for("validibot-worker")


def test_the_migration_runs_when_its_account_may_log_in_and_read_its_secret() -> None:
    assert waits_for("jobs-migration") >= {
        "validibot-migrate",
        "database-migrate",
        "database-web",
        "database-database",
        "identity-migrate-client",
        "identity-migrate-instanceUser",
        "django-secret-key-migrate",
        "django-secret-key-value",
        "storage-static-migrate",
        "images-app",
    }


def test_nothing_is_made_before_its_api_is_enabled() -> None:
    apis = {name for name, resource in au().items() if resource.type == "gcp:projects/service:Service"}
    made = [r for r in au().values() if r.type.startswith("gcp:") and r.name not in apis]

    assert len(apis) == 16
    assert [r.name for r in made if not apis <= waits_for(r.name)] == []


def test_the_database_waits_for_the_peering_that_its_address_lives_behind() -> None:
    assert "network-peering" in waits_for("database-pg")


def test_what_cannot_be_made_again_is_protected() -> None:
    assert {r.name for r in au().values() if r.protect} == {
        "database-pg",
        "database-database",
        "storage-media",
        "storage-backups",
        *(f"queues-{queue}" for queue in ("validations", "workflows", "simulations", "webhooks")),
        *(f"queues-{queue}-dead-letters" for queue in ("validations", "workflows", "simulations", "webhooks")),
    }


def test_a_stack_that_is_taken_down_protects_nothing() -> None:
    assert [r.name for r in recorded_stack("staging") if r.protect] == []


def test_each_workload_has_exactly_its_grants() -> None:
    grants = {
        (
            r.inputs["member"].removeprefix("serviceAccount:").partition("@")[0],
            r.inputs["role"].removeprefix("roles/"),
            r.name,
        )
        for r in au().values()
        if "member" in r.inputs
    }

    queueing = {grant for grant in grants if grant[1].startswith("cloudtasks.")}
    assert grants - queueing == {
        ("allUsers", "run.invoker", "validibot-web-public-invokes"),
        ("allUsers", "storage.objectViewer", "storage-static-public"),
        ("validibot-backup", "storage.objectUser", "storage-backups-backup"),
        ("validibot-build", "artifactregistry.writer", "images-build-writes"),
        ("validibot-build", "logging.logWriter", "identity-build-log-writer"),
        ("validibot-build", "storage.objectViewer", "storage-build-source-build"),
        ("validibot-migrate", "cloudsql.client", "identity-migrate-client"),
        ("validibot-migrate", "cloudsql.instanceUser", "identity-migrate-instanceUser"),
        ("validibot-migrate", "secretmanager.secretAccessor", "django-secret-key-migrate"),
        ("validibot-migrate", "storage.objectUser", "storage-static-migrate"),
        ("validibot-scheduler", "run.invoker", "validibot-worker-scheduler-invokes"),
        ("validibot-tasks", "run.invoker", "validibot-worker-tasks-invokes"),
        ("validibot-web", "cloudsql.client", "identity-web-client"),
        ("validibot-web", "cloudsql.instanceUser", "identity-web-instanceUser"),
        ("validibot-web", "iam.serviceAccountTokenCreator", "identity-web-signs"),
        ("validibot-web", "iam.serviceAccountUser", "queues-web-acts-as-tasks"),
        ("validibot-web", "secretmanager.secretAccessor", "callback-keys-web"),
        ("validibot-web", "secretmanager.secretAccessor", "django-secret-key-web"),
        ("validibot-web", "storage.objectUser", "storage-media-web"),
        ("validibot-worker", "cloudsql.client", "identity-worker-client"),
        ("validibot-worker", "cloudsql.instanceUser", "identity-worker-instanceUser"),
        ("validibot-worker", "iam.serviceAccountTokenCreator", "identity-worker-signs"),
        ("validibot-worker", "iam.serviceAccountUser", "queues-worker-acts-as-tasks"),
        ("validibot-worker", "secretmanager.secretAccessor", "callback-keys-worker"),
        ("validibot-worker", "secretmanager.secretAccessor", "credential-key-worker"),
        ("validibot-worker", "secretmanager.secretAccessor", "django-secret-key-worker"),
        ("validibot-worker", "storage.objectUser", "storage-media-worker"),
    }
    assert queueing == {
        (f"validibot-{workload}", f"cloudtasks.{role}", f"queues-{queue}-{workload}-{role}")
        for queue in ("validations", "workflows", "simulations", "webhooks")
        for workload, role in (("web", "enqueuer"), ("worker", "enqueuer"), ("worker", "viewer"))
    } | {
        ("validibot-worker", f"cloudtasks.{role}", f"queues-{queue}-dead-letters-worker-{role}")
        for queue in ("validations", "workflows", "simulations", "webhooks")
        for role in ("enqueuer", "viewer", "taskDeleter")
    }


def test_the_worker_is_told_the_address_that_its_tokens_are_for() -> None:
    worker = au()["validibot-worker"].inputs
    environment = {env["name"]: env.get("value") for env in worker["template"]["containers"][0]["envs"]}
    url = "https://validibot-worker-123456789012.australia-southeast1.run.app"

    assert environment["VALIDIBOT_WORKER_URL"] == url
    assert worker["customAudiences"] == [url]
    assert environment["VALIDIBOT_TASKS_SERVICE_ACCOUNT"] == "validibot-tasks@validibot-au.iam.gserviceaccount.com"


def test_only_the_worker_has_the_key_that_credentials_are_signed_with() -> None:
    """Neither the web service, which lists the public half, nor the jobs that run as the worker."""
    containers = {
        resource.name: template.get("template", template)["containers"][0]
        for resource in au().values()
        if (template := resource.inputs.get("template")) is not None
    }
    holders = {
        (name, env["valueSource"]["secretKeyRef"]["version"])
        for name, container in containers.items()
        for env in container["envs"]
        if env["name"] == "VALIDIBOT_CREDENTIAL_KEY"
    }

    assert len(containers) == 4
    assert holders == {("validibot-worker", "1")}


def test_the_key_of_credentials_is_one_that_the_application_signs_with() -> None:
    seed = bytes(range(32))
    key = load_pem_private_key(ed25519_pem(base64.b64encode(seed).decode()).encode(), password=None)

    assert isinstance(key, Ed25519PrivateKey)
    assert key.private_bytes_raw() == seed


def test_nothing_is_scheduled_before_the_worker_lets_the_scheduler_in() -> None:
    assert waits_for("schedules-re-enqueue-pending") >= {"validibot-worker", "validibot-worker-scheduler-invokes"}


def test_a_revision_starts_when_it_may_enqueue() -> None:
    assert waits_for("validibot-web") >= {"queues-validations-web-enqueuer", "queues-web-acts-as-tasks"}


def test_only_the_migrate_account_owns_the_schema() -> None:
    users = {r.inputs["name"]: r.inputs for r in au().values() if r.type == "gcp:sql/user:User"}
    accounts = {name: props for name, props in users.items() if props["type"] == "CLOUD_IAM_SERVICE_ACCOUNT"}

    assert {name: props.get("databaseRoles") for name, props in accounts.items()} == {
        "validibot-migrate@validibot-au.iam": ["cloudsqlsuperuser"],
        "validibot-web@validibot-au.iam": None,
        "validibot-worker@validibot-au.iam": None,
    }
    assert users.keys() - accounts.keys() == {"break-glass"}
