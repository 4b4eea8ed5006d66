"""IAM, seen by Google's clients: accounts, roles, policies, and what they let whom do."""

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.auth import exceptions
from google.auth.transport.requests import Request
from google.oauth2 import service_account
from googleapiclient.errors import HttpError

from localgcp.clock import Clock
from localgcp.errors import Aborted, InvalidArgument, PreconditionFailed
from localgcp.iam.policies import Iam
from localgcp.iam.principal import ANONYMOUS, OPERATOR, Principal
from localgcp.iam.roles import predefined
from localgcp.store import Store
from tests.localgcp.fixtures import SCOPES, Account, Region

PROJECT = "cloudresourcemanager/projects/demo"
SECRET = "secretmanager/projects/demo/secrets/key"
ACCESS = "secretmanager.versions.access"
ACCESSOR = "roles/secretmanager.secretAccessor"
ANN = Principal("ann@example.com")


@pytest.fixture
def accounts(region: Region) -> Any:
    return region.api("iam", "v1").projects().serviceAccounts()


@pytest.fixture
def roles(region: Region) -> Any:
    return region.api("iam", "v1").projects().roles()


@pytest.fixture
def projects(region: Region) -> Any:
    return region.api("cloudresourcemanager", "v1").projects()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "region.sqlite3")


@pytest.fixture
def iam(store: Store) -> Iam:
    return Iam(store, Clock())


def binding(role: str, *members: str, expression: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {"role": role, "members": list(members)}
    return found | ({"condition": {"title": "when", "expression": expression}} if expression else {})


def policy(*bindings: dict[str, Any]) -> dict[str, Any]:
    return {"version": 3, "bindings": list(bindings)}


def refused(call: Callable[[], Any]) -> tuple[int, str]:
    with pytest.raises(HttpError) as error:
        call()
    return error.value.status_code, error.value.reason


# Service accounts


def test_an_account_is_created_and_found_by_address_and_by_unique_id(accounts: Any, project: str) -> None:
    wanted = {"accountId": "web-app", "serviceAccount": {"displayName": "Web"}}
    created = accounts.create(name=f"projects/{project}", body=wanted).execute()
    email = f"web-app@{project}.iam.gserviceaccount.com"

    names = [f"projects/{project}/serviceAccounts/{email}", f"projects/-/serviceAccounts/{email}"]
    names.append(f"projects/-/serviceAccounts/{created['uniqueId']}")

    assert [accounts.get(name=name).execute() for name in names] == [created] * 3
    assert (created["email"], created["displayName"], created["projectId"]) == (email, "Web", project)
    assert len(created["uniqueId"]) == 21
    assert created["oauth2ClientId"] == created["uniqueId"]
    assert accounts.list(name=f"projects/{project}").execute() == {"accounts": [created]}


@pytest.mark.parametrize("account_id", ["short", "Upper-case", "ends-with-", "1starts-wrong", "x" * 31])
def test_an_account_id_out_of_form_is_refused(accounts: Any, project: str, account_id: str) -> None:
    status, reason = refused(
        lambda: accounts.create(name=f"projects/{project}", body={"accountId": account_id}).execute()
    )

    assert (status, account_id in reason) == (400, True)


def test_an_account_is_changed_by_a_mask_in_snake_case(region: Region, accounts: Any, project: str) -> None:
    name = f"projects/{project}/serviceAccounts/{region.account(project, 'web-app').email}"
    wanted = {"displayName": "Web service", "description": "Runs it"}

    accounts.patch(name=name, body={"serviceAccount": wanted, "updateMask": "display_name"}).execute()

    found = accounts.get(name=name).execute()
    assert (found["displayName"], "description" in found) == ("Web service", False)


def test_an_account_that_exists_is_a_conflict(region: Region, accounts: Any, project: str) -> None:
    region.account(project, "web-app")

    status, reason = refused(
        lambda: accounts.create(name=f"projects/{project}", body={"accountId": "web-app"}).execute()
    )

    assert (status, reason) == (409, f"Service account web-app already exists within project projects/{project}.")


def test_an_account_made_anew_has_nothing_of_its_namesake(
    region: Region, accounts: Any, projects: Any, project: str
) -> None:
    old = region.account(project, "web-app", "roles/viewer")
    token = region.credentials(old.email).token
    accounts.delete(name=f"projects/{project}/serviceAccounts/{old.email}").execute()

    new = region.account(project, "web-app")

    with pytest.raises(exceptions.RefreshError):
        old.credentials.refresh(Request())
    url = f"{region.url}/cloudresourcemanager/v1/projects/{project}"
    assert httpx.get(url, headers={"Authorization": f"Bearer {token}"}).status_code == 401
    as_new = region.api("cloudresourcemanager", "v1", new.credentials).projects()
    assert refused(lambda: as_new.get(projectId=project).execute())[0] == 403
    members = projects.getIamPolicy(resource=project, body={}).execute()["bindings"][0]["members"]
    assert [member.partition("?uid=")[0] for member in members] == [f"deleted:serviceAccount:{old.email}"]


def test_an_account_undeleted_has_its_grants_and_keys_again(region: Region, accounts: Any, project: str) -> None:
    account = region.account(project, "web-app", "roles/viewer")
    name = f"projects/-/serviceAccounts/{account.email}"
    unique_id = accounts.get(name=name).execute()["uniqueId"]
    accounts.delete(name=name).execute()

    accounts.undelete(name=f"projects/-/serviceAccounts/{unique_id}", body={}).execute()

    as_account = region.api("cloudresourcemanager", "v1", account.credentials).projects()
    assert as_account.get(projectId=project).execute()["projectId"] == project


def test_a_key_is_a_file_that_googles_library_reads(region: Region, accounts: Any, project: str) -> None:
    email = region.account(project, "web-app", "roles/viewer").email
    key = accounts.keys().create(name=f"projects/{project}/serviceAccounts/{email}", body={}).execute()

    info = json.loads(base64.b64decode(key["privateKeyData"]))
    credentials = service_account.Credentials.from_service_account_info(info, scopes=SCOPES)

    assert region.api("cloudresourcemanager", "v1", credentials).projects().get(projectId=project).execute()
    listed = accounts.keys().list(name=f"projects/-/serviceAccounts/{email}", keyTypes="USER_MANAGED").execute()
    assert key["name"] in [found["name"] for found in listed["keys"]]
    assert all("privateKeyData" not in found for found in listed["keys"])


def test_an_org_policy_forbids_new_keys(region: Region, accounts: Any, project: str) -> None:
    email = region.account(project, "web-app").email
    name = f"projects/{project}/policies/iam.disableServiceAccountKeyCreation"
    region.api("orgpolicy", "v2").projects().policies().create(
        parent=f"projects/{project}", body={"name": name, "spec": {"rules": [{"enforce": True}]}}
    ).execute()

    status, reason = refused(
        lambda: accounts.keys().create(name=f"projects/-/serviceAccounts/{email}", body={}).execute()
    )

    assert status == 400
    assert "not allowed on this service account" in reason


# Roles


def test_a_custom_role_grants_what_it_includes_until_it_is_deleted(
    region: Region, roles: Any, projects: Any, project: str
) -> None:
    role = {"title": "Reader", "includedPermissions": ["resourcemanager.projects.get"], "stage": "GA"}
    name = roles.create(parent=f"projects/{project}", body={"roleId": "projectReader", "role": role}).execute()["name"]
    account = region.account(project, "web-app", name)
    as_account = region.api("cloudresourcemanager", "v1", account.credentials).projects()
    assert as_account.get(projectId=project).execute()

    assert roles.delete(name=name).execute()["deleted"] is True
    assert refused(lambda: as_account.get(projectId=project).execute())[0] == 403
    assert roles.list(parent=f"projects/{project}").execute() == {}

    roles.undelete(name=name, body={}).execute()
    assert as_account.get(projectId=project).execute()


def test_a_deleted_role_keeps_its_name(roles: Any, project: str) -> None:
    body = {"roleId": "reader", "role": {"title": "Reader"}}
    name = roles.create(parent=f"projects/{project}", body=body).execute()["name"]
    roles.delete(name=name).execute()

    status, reason = refused(lambda: roles.create(parent=f"projects/{project}", body=body).execute())

    assert (status, reason) == (409, f"A role named reader in projects/{project} already exists.")


def test_a_predefined_role_shows_its_permissions(region: Region) -> None:
    found = region.api("iam", "v1").roles().get(name="roles/run.invoker").execute()

    assert found["includedPermissions"] == ["run.jobs.run", "run.routes.invoke"]


def test_every_predefined_role_is_well_formed() -> None:
    for role in predefined().values():
        assert role.title, role.name
        assert role.is_basic or role.permissions, role.name
        assert all(permission.count(".") == 2 for permission in role.permissions), role.name


# Policies over the wire


def test_a_policy_is_read_changed_and_written_with_its_etag(projects: Any, project: str) -> None:
    read = projects.getIamPolicy(resource=project, body={}).execute()
    assert "bindings" not in read

    body = {"policy": {"etag": read["etag"], "bindings": [binding("roles/viewer", "user:ann@example.com")]}}
    written = projects.setIamPolicy(resource=project, body=body).execute()

    assert written["bindings"] == [{"role": "roles/viewer", "members": ["user:ann@example.com"]}]
    assert projects.getIamPolicy(resource=project, body={}).execute() == written
    status, reason = refused(lambda: projects.setIamPolicy(resource=project, body=body).execute())
    assert (status, "concurrent policy changes" in reason) == (409, True)


def test_a_policy_without_members_has_no_bindings_key(projects: Any, project: str) -> None:
    body = {"policy": policy(binding("roles/viewer", "user:ann@example.com"))}
    etag = projects.setIamPolicy(resource=project, body=body).execute()["etag"]

    emptied = projects.setIamPolicy(resource=project, body={"policy": {"etag": etag, "version": 3}}).execute()

    assert emptied == {"version": 3, "etag": emptied["etag"]}


def test_audit_configs_are_kept_unless_the_mask_names_them(projects: Any, project: str) -> None:
    audit = [{"service": "allServices", "auditLogConfigs": [{"logType": "DATA_READ"}]}]
    named = {"policy": {"auditConfigs": audit}, "updateMask": "bindings,etag,auditConfigs"}
    projects.setIamPolicy(resource=project, body=named).execute()

    body = {"policy": policy(binding("roles/viewer", "user:ann@example.com"))}
    projects.setIamPolicy(resource=project, body=body).execute()

    found = projects.getIamPolicy(resource=project, body={}).execute()
    assert (found["auditConfigs"], found["bindings"][0]["role"]) == (audit, "roles/viewer")


def test_a_reader_that_does_not_know_conditions_cannot_drop_one(projects: Any, project: str) -> None:
    conditional = binding("roles/logging.viewer", "user:ann@example.com", expression="request.time < request.time")
    projects.setIamPolicy(resource=project, body={"policy": policy(conditional)}).execute()

    read = projects.getIamPolicy(resource=project, body={}).execute()
    version_3 = {"options": {"requestedPolicyVersion": 3}}

    assert read["bindings"][0]["role"].startswith("roles/logging.viewer_withcond_")
    assert projects.getIamPolicy(resource=project, body=version_3).execute()["bindings"] == [conditional]
    assert refused(lambda: projects.setIamPolicy(resource=project, body={"policy": read}).execute())[0] == 400


def test_permissions_can_be_tested_by_whoever_has_none(region: Region, project: str) -> None:
    account = region.account(project, "web-app", "roles/run.invoker")
    as_account = region.api("cloudresourcemanager", "v1", account.credentials).projects()
    wanted = {"permissions": ["run.routes.invoke", "run.services.get", "run.jobs.run"]}

    answer = as_account.testIamPermissions(resource=project, body=wanted).execute()

    assert answer == {"permissions": ["run.routes.invoke", "run.jobs.run"]}


def test_a_call_without_credentials_is_not_authenticated(region: Region, project: str) -> None:
    answer = httpx.get(f"{region.url}/cloudresourcemanager/v1/projects/{project}")

    assert (answer.status_code, answer.json()["error"]["status"]) == (401, "UNAUTHENTICATED")


def test_the_refusal_names_the_permission(region: Region, project: str) -> None:
    account = region.account(project, "web-app")

    answer = httpx.get(
        f"{region.url}/iam/v1/projects/{project}/serviceAccounts",
        headers={"Authorization": f"Bearer {region.credentials(account.email).token}"},
    )

    error = answer.json()["error"]
    assert (error["code"], error["status"]) == (403, "PERMISSION_DENIED")
    assert "iam.serviceAccounts.list" in error["message"]
    assert error["details"][0]["reason"] == "IAM_PERMISSION_DENIED"


# Decisions


def test_the_operator_owns_every_project_and_nobody_else_any(iam: Iam) -> None:
    asked = [iam.allows(who, ACCESS, SECRET) for who in (OPERATOR, ANN, ANONYMOUS)]

    assert asked == [True, False, False]


@pytest.mark.parametrize("key", [SECRET, f"{SECRET}/versions/1", "secretmanager/projects/demo/secrets/other"])
def test_a_grant_on_the_project_holds_for_everything_in_it(iam: Iam, key: str) -> None:
    iam.set_policy(PROJECT, policy(binding(ACCESSOR, "user:ann@example.com")))

    assert iam.allows(ANN, ACCESS, key)
    assert not iam.allows(ANN, "secretmanager.versions.add", key)
    assert not iam.allows(ANN, ACCESS, key.replace("/demo/", "/elsewhere/"))


def test_a_grant_on_a_resource_holds_below_it_and_not_beside_it(iam: Iam) -> None:
    iam.set_policy(SECRET, policy(binding(ACCESSOR, "user:ann@example.com")))

    asked = [iam.allows(ANN, ACCESS, key) for key in (f"{SECRET}/versions/1", SECRET, f"{SECRET}2", PROJECT)]

    assert asked == [True, True, False, False]


def test_a_policy_that_is_gone_grants_nothing(iam: Iam, store: Store) -> None:
    store.create(SECRET, {})
    iam.set_policy(SECRET, policy(binding(ACCESSOR, "user:ann@example.com")))
    assert iam.allows(ANN, ACCESS, SECRET)

    store.delete(SECRET)

    assert not iam.allows(ANN, ACCESS, SECRET)


@pytest.mark.parametrize(
    ("member", "who", "expected"),
    [
        ("allUsers", ANONYMOUS, True),
        ("allAuthenticatedUsers", ANONYMOUS, False),
        ("allAuthenticatedUsers", ANN, True),
        ("user:ANN@example.com", ANN, True),
        ("domain:example.com", ANN, True),
        ("domain:example.org", ANN, False),
        ("user:bob@example.com", ANN, False),
    ],
)
def test_members_are_who_they_say(iam: Iam, member: str, who: Principal, expected: bool) -> None:
    iam.set_policy(SECRET, policy(binding(ACCESSOR, member)))

    assert iam.allows(who, ACCESS, SECRET) is expected


def test_a_bucket_can_be_granted_to_the_projects_editors(iam: Iam, store: Store) -> None:
    with store.transaction() as tx:
        tx.execute("INSERT INTO projects (id, number) VALUES ('demo', '123')")
    store.create("storage/b/media", {"projectNumber": "123"})
    iam.set_policy("storage/b/media", policy(binding("roles/storage.objectViewer", "projectEditor:demo")))
    iam.set_policy(PROJECT, policy(binding("roles/editor", "user:ann@example.com")))

    objects = "storage/b/media/o/a/b.txt"

    assert iam.allows(ANN, "storage.objects.get", objects)
    assert not iam.allows(ANN, "storage.objects.create", objects)
    assert not iam.allows(Principal("bob@example.com"), "storage.objects.get", objects)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('resource.name.startsWith("projects/_/buckets/media/objects/reports/")', True),
        ('resource.name.startsWith("projects/_/buckets/media/objects/other/")', False),
        ('resource.type == "storage.googleapis.com/Object" && resource.service == "storage.googleapis.com"', True),
        ('resource.name.extract("/objects/{folder}/") == "reports"', True),
        ('request.time < timestamp("2020-01-01T00:00:00Z")', False),
        ('request.time > timestamp("2020-01-01T00:00:00Z")', True),
        ("1 / 0 == 1", False),
        ('timestamp("never") < request.time', False),
    ],
)
def test_a_condition_decides_and_one_that_fails_grants_nothing(iam: Iam, expression: str, expected: bool) -> None:
    grant = binding("roles/storage.objectViewer", "user:ann@example.com", expression=expression)
    iam.set_policy("storage/b/media", policy(grant))

    assert iam.allows(ANN, "storage.objects.get", "storage/b/media/o/reports/1.json") is expected


def test_a_grant_with_an_end_ends(store: Store) -> None:
    clock = Clock()
    iam = Iam(store, clock)
    until = (clock.now() + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    grant = binding(ACCESSOR, "user:ann@example.com", expression=f'request.time < timestamp("{until}")')
    iam.set_policy(PROJECT, policy(grant))
    assert iam.allows(ANN, ACCESS, SECRET)

    clock.advance(timedelta(hours=2))

    assert not iam.allows(ANN, ACCESS, SECRET)


def test_viewers_and_editors_do_not_read_what_secrets_hold(iam: Iam) -> None:
    for role in ("roles/viewer", "roles/editor"):
        iam.set_policy(PROJECT, policy(binding(role, "user:ann@example.com")))
        assert iam.allows(ANN, "secretmanager.secrets.get", SECRET)
        assert not iam.allows(ANN, ACCESS, SECRET)
        assert not iam.allows(ANN, "secretmanager.secrets.setIamPolicy", SECRET)


@pytest.mark.parametrize(
    ("grant", "message"),
    [
        (binding("roles/storage.objectReader", "user:ann@example.com"), "roles/storage.objectReader is not supported"),
        (binding("projects/demo/roles/none", "user:ann@example.com"), "does not exist in the resource's hierarchy"),
        (binding("viewer", "user:ann@example.com"), "must be in the format"),
        (binding(ACCESSOR, "ann@example.com"), "Invalid member"),
        (binding(ACCESSOR, "user:ann"), "Invalid member"),
        (binding(ACCESSOR, "serviceAccount:web@demo.iam.gserviceaccount.com"), "does not exist"),
        (binding(ACCESSOR, "user:web@demo.iam.gserviceaccount.com"), 'is of type "serviceAccount"'),
        (binding(ACCESSOR, "user:ann@example.com", expression="1 +"), "Syntax error"),
        (binding(ACCESSOR, "user:ann@example.com", expression="resource.name"), "not a boolean"),
        (binding(ACCESSOR, "user:ann@example.com", expression="request.host == 'x'"), "undeclared reference"),
        (binding("roles/editor", "user:ann@example.com", expression="true"), "primitive roles"),
        (binding(ACCESSOR, "allUsers", expression="true"), "allUsers"),
    ],
)
def test_a_binding_that_cannot_be_granted_is_refused_by_name(iam: Iam, grant: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        iam.set_policy(SECRET, policy(grant))

    assert message in error.value.message
    assert iam.get_policy(SECRET) == {"version": 1, "etag": "ACAB"}


def test_a_project_cannot_be_opened_to_all_users(iam: Iam) -> None:
    with pytest.raises(InvalidArgument, match="allUsers"):
        iam.set_policy(PROJECT, policy(binding(ACCESSOR, "allUsers")))


def test_a_condition_needs_version_3(iam: Iam) -> None:
    grant = binding(ACCESSOR, "user:ann@example.com", expression="true")

    with pytest.raises(InvalidArgument, match="version must be 3"):
        iam.set_policy(SECRET, policy(grant) | {"version": 1})


def test_bindings_of_one_role_become_one(iam: Iam) -> None:
    first = binding(ACCESSOR, "user:bob@example.com", "user:ann@example.com")
    again = binding(ACCESSOR, "user:ann@example.com")

    written = iam.set_policy(SECRET, policy(first, again))

    assert written["bindings"] == [{"role": ACCESSOR, "members": ["user:ann@example.com", "user:bob@example.com"]}]


@pytest.mark.parametrize(("key", "error"), [(SECRET, Aborted), ("storage/b/media", PreconditionFailed)])
def test_a_stale_etag_is_refused_in_the_words_of_the_api(iam: Iam, key: str, error: type[Exception]) -> None:
    etag = iam.set_policy(key, policy(binding(ACCESSOR, "user:ann@example.com")))["etag"]
    iam.set_policy(key, policy(binding(ACCESSOR, "user:bob@example.com")))

    with pytest.raises(error):
        iam.set_policy(key, policy() | {"etag": etag})


# Other APIs of projects


def test_an_api_is_enabled_listed_and_disabled(region: Region, project: str) -> None:
    services = region.api("serviceusage", "v1").services()
    name = f"projects/{project}/services/run.googleapis.com"
    number = region.core.project_number(project)

    operation = services.enable(name=name, body={}).execute()
    listed = services.list(parent=f"projects/{project}", filter="state:ENABLED").execute()
    services.disable(name=name, body={"checkIfServiceHasUsage": "SKIP"}).execute()

    expected = {
        "name": f"projects/{number}/services/run.googleapis.com",
        "parent": f"projects/{number}",
        "state": "ENABLED",
        "config": {"name": "run.googleapis.com"},
    }
    assert (operation["done"], operation["response"]["service"]) == (True, expected)
    assert listed == {"services": [expected]}
    assert services.get(name=name).execute()["state"] == "DISABLED"


def test_a_batch_with_an_unknown_api_enables_none(region: Region, project: str) -> None:
    services = region.api("serviceusage", "v1").services()
    body = {"serviceIds": ["run.googleapis.com", "runn.googleapis.com"]}

    status, reason = refused(lambda: services.batchEnable(parent=f"projects/{project}", body=body).execute())

    assert (status, reason) == (403, "Not found or permission denied for service(s): runn.googleapis.com.")
    assert services.list(parent=f"projects/{project}", filter="state:ENABLED").execute() == {}


def test_a_project_has_one_number_in_both_versions(region: Region, projects: Any, project: str) -> None:
    number = projects.get(projectId=project).execute()["projectNumber"]
    v3 = region.api("cloudresourcemanager", "v3").projects()

    found = [v3.get(name=f"projects/{name}").execute() for name in (project, number)]

    assert found[0] == found[1]
    assert (found[0]["name"], found[0]["projectId"], found[0]["state"]) == (f"projects/{number}", project, "ACTIVE")


def test_what_kms_encrypts_only_the_same_key_decrypts(region: Region, project: str) -> None:
    rings = region.api("cloudkms", "v1").projects().locations().keyRings()
    location = f"projects/{project}/locations/australia-southeast1"
    rings.create(parent=location, keyRingId="state", body={}).execute()
    keys = rings.cryptoKeys()
    for name in ("pulumi", "other"):
        body = {"purpose": "ENCRYPT_DECRYPT", "rotationPeriod": "7776000s", "nextRotationTime": "2099-01-01T00:00:00Z"}
        keys.create(parent=f"{location}/keyRings/state", cryptoKeyId=name, body=body).execute()
    key = f"{location}/keyRings/state/cryptoKeys/pulumi"
    plaintext = base64.b64encode(b"state").decode()

    sealed = keys.encrypt(name=key, body={"plaintext": plaintext}).execute()["ciphertext"]
    keys.updatePrimaryVersion(
        name=key,
        body={"cryptoKeyVersionId": keys.cryptoKeyVersions().create(parent=key, body={}).execute()["name"][-1]},
    ).execute()

    assert keys.get(name=key).execute()["primary"]["name"] == f"{key}/cryptoKeyVersions/2"
    assert keys.decrypt(name=key, body={"ciphertext": sealed}).execute()["plaintext"] == plaintext
    other = key.replace("pulumi", "other")
    assert refused(lambda: keys.decrypt(name=other, body={"ciphertext": sealed}).execute())[0] == 400
    keys.cryptoKeyVersions().destroy(name=f"{key}/cryptoKeyVersions/1", body={}).execute()
    assert refused(lambda: keys.decrypt(name=key, body={"ciphertext": sealed}).execute())[0] == 400


@pytest.mark.parametrize(
    ("periods", "reason"),
    [
        ({"rotationPeriod": "0s", "nextRotationTime": "2026-01-01T00:00:00Z"}, "rotation_period must be at least 24"),
        ({"rotationPeriod": "315576000001s"}, "google.protobuf.Duration"),
        ({"rotationPeriod": "86400s"}, "next_rotation_time must be set"),
        (
            {"destroyScheduledDuration": "10368001s"},
            "destroy_scheduled_duration must be at least 1 day and at most 120",
        ),
    ],
)
def test_kms_keeps_no_period_that_it_could_not_keep_to(
    region: Region, project: str, periods: dict[str, str], reason: str
) -> None:
    rings = region.api("cloudkms", "v1").projects().locations().keyRings()
    parent = f"projects/{project}/locations/us-central1"
    rings.create(parent=parent, keyRingId="ring", body={}).execute()
    keys, body = rings.cryptoKeys(), {"purpose": "ENCRYPT_DECRYPT"}
    keys.create(parent=f"{parent}/keyRings/ring", cryptoKeyId="kept", body=body).execute()

    made = refused(
        lambda: keys.create(parent=f"{parent}/keyRings/ring", cryptoKeyId="key", body=body | periods).execute()
    )
    name = f"{parent}/keyRings/ring/cryptoKeys/kept"
    changed = refused(lambda: keys.patch(name=name, updateMask=",".join(periods), body=periods).execute())

    assert (made[0], changed[0]) == (400, 400)
    assert reason in made[1]
    assert reason in changed[1]
    assert "rotationPeriod" not in keys.get(name=name).execute()


def test_an_account_keeps_its_grant_over_a_restart_of_the_store(tmp_path: Path) -> None:
    Iam(Store(tmp_path / "region.sqlite3"), Clock()).set_policy(PROJECT, policy(binding(ACCESSOR, ANN.member)))

    assert Iam(Store(tmp_path / "region.sqlite3"), Clock()).allows(ANN, ACCESS, SECRET)


def test_an_account_without_a_project_role_reads_no_policy(region: Region, project: str) -> None:
    account: Account = region.account(project, "web-app")
    as_account = region.api("cloudresourcemanager", "v1", account.credentials).projects()

    status, reason = refused(lambda: as_account.getIamPolicy(resource=project, body={}).execute())

    assert (status, "resourcemanager.projects.getIamPolicy" in reason) == (403, True)


@pytest.mark.parametrize("query", ["id:{}", "name:{}", "projectId={} AND state=ACTIVE"])
def test_a_project_is_found_by_what_it_is_called(region: Region, project: str, query: str) -> None:
    projects = region.api("cloudresourcemanager", "v3").projects()
    projects.get(name=f"projects/{project}").execute()

    found = projects.search(query=query.format(project)).execute()

    assert project in [one["projectId"] for one in found["projects"]]
