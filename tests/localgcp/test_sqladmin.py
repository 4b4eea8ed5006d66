"""Cloud SQL Admin, seen by clients that nobody here wrote: Google's API client and connector, psql, pg_dump."""

import asyncio
import json
import os
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.cloud.sql.connector import Connector, IPTypes, create_async_connector
from google.oauth2 import service_account
from googleapiclient.errors import HttpError

from localgcp import status
from localgcp.services import sqladmin
from localgcp.sql import layout_of, socket_root
from localgcp.sql.binaries import find_binaries
from localgcp.sql.certificates import authority_of
from localgcp.sql.listener import SSL_REQUEST
from localgcp.sql.terminator import PORT
from tests.localgcp.fixtures import Region, served, temporary_data_dir

PROJECT = "validibot-au"
LOCATION = "australia-southeast1"
NAME = f"{PROJECT}:{LOCATION}:pg"
PASSWORD = "a-password-for-a-test"
USER_ROLES = ("roles/cloudsql.client", "roles/cloudsql.instanceUser")
FLAGS = [{"name": "cloudsql.iam_authentication", "value": "on"}]
SETTINGS = {"tier": "db-custom-2-8192", "edition": "ENTERPRISE", "databaseFlags": FLAGS}


def instance(name: str, **settings: Any) -> dict[str, Any]:
    return {"name": name, "region": LOCATION, "databaseVersion": "POSTGRES_18", "settings": SETTINGS | settings}


@pytest.fixture(scope="module")
def region() -> Iterator[Region]:
    with temporary_data_dir() as data_dir, served(data_dir) as region:
        yield region


@pytest.fixture(scope="module")
def sql(region: Region) -> Any:
    return region.api("sqladmin", "v1beta4")


@pytest.fixture(scope="module")
def app(region: Region) -> service_account.Credentials:
    return region.account(PROJECT, "validibot-app", *USER_ROLES).credentials


@pytest.fixture(scope="module")
def pg(sql: Any, app: service_account.Credentials) -> str:
    """An instance with a database `app`, the built-in user `bob` and the IAM user `validibot-app@…`; its name."""
    sql.instances().insert(project=PROJECT, body=instance("pg") | {"rootPassword": PASSWORD}).execute()
    sql.databases().insert(project=PROJECT, instance="pg", body={"name": "app"}).execute()
    sql.users().insert(project=PROJECT, instance="pg", body={"name": "bob", "password": PASSWORD}).execute()
    iam_user = {
        "name": f"validibot-app@{PROJECT}.iam",
        "type": "CLOUD_IAM_SERVICE_ACCOUNT",
        "databaseRoles": ["cloudsqlsuperuser"],
    }
    sql.users().insert(project=PROJECT, instance="pg", body=iam_user).execute()
    return "pg"


def host(region: Region, name: str = NAME) -> str:
    return str(socket_root(region.core) / name)


def log_in(region: Region, user: str, password: str, database: str = "app", name: str = NAME) -> str:
    with psycopg.connect(host=host(region, name), user=user, password=password, dbname=database) as connection:
        row = connection.execute("SELECT current_user").fetchone()
    assert row is not None
    return str(row[0])


def token_of(region: Region, account: str) -> str:
    return region.core.tokens.access_token(f"{account}@{PROJECT}.iam.gserviceaccount.com")


def run_program(region: Region, program: str, *arguments: str, user: str, password: str) -> str:
    binary = find_binaries(18, layout_of(region.core.settings.data_dir)).path(program)
    environment = os.environ | {"PGHOST": host(region), "PGUSER": user, "PGPASSWORD": password, "PGDATABASE": "app"}
    answer = subprocess.run(
        [binary, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def refusal(request: Any) -> tuple[int, str, str]:
    with pytest.raises(HttpError) as refused:
        request.execute()
    error = json.loads(refused.value.content)["error"]
    return error["code"], error["errors"][0]["reason"], error["message"]


# Instances


def test_an_instance_answers_with_the_defaults_of_cloud_sql(sql: Any, pg: str) -> None:
    found = sql.instances().get(project=PROJECT, instance=pg).execute()

    assert found["state"] == "RUNNABLE"
    assert found["connectionName"] == NAME
    assert found["ipAddresses"][0]["type"] == "PRIMARY"
    assert found["settings"] == {
        **SETTINGS,
        "kind": "sql#settings",
        "activationPolicy": "ALWAYS",
        "availabilityType": "ZONAL",
        "connectorEnforcement": "NOT_REQUIRED",
        "dataDiskSizeGb": "10",
        "dataDiskType": "PD_SSD",
        "deletionProtectionEnabled": False,
        "pricingPlan": "PER_USE",
        "replicationType": "SYNCHRONOUS",
        "settingsVersion": "1",
        "storageAutoResize": True,
        "storageAutoResizeLimit": "0",
        "locationPreference": {"zone": f"{LOCATION}-a", "kind": "sql#locationPreference"},
        "backupConfiguration": {
            "kind": "sql#backupConfiguration",
            "enabled": False,
            "startTime": "00:00",
            "transactionLogRetentionDays": 7,
            "backupRetentionSettings": {"retainedBackups": 7, "retentionUnit": "COUNT"},
            "backupTier": "STANDARD",
            "transactionalLogStorageState": "CLOUD_STORAGE",
        },
        "ipConfiguration": {
            "ipv4Enabled": True,
            "sslMode": "ALLOW_UNENCRYPTED_AND_ENCRYPTED",
            "serverCaMode": "GOOGLE_MANAGED_INTERNAL_CA",
            "requireSsl": False,
        },
    }


def test_version_one_of_the_api_answers_the_same_instance(region: Region, sql: Any, pg: str) -> None:
    found = region.api("sqladmin", "v1").instances().get(project=PROJECT, instance=pg).execute()

    assert found == sql.instances().get(project=PROJECT, instance=pg).execute()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tier": "db-custom-3-8192"}, "Invalid request: Invalid tier (db-custom-3-8192): 3 CPUs"),
        ({"edition": "ENTERPRISE_PLUS"}, "Invalid Tier (db-custom-2-8192) for (ENTERPRISE_PLUS) Edition."),
        (
            {"backupConfiguration": {"enabled": True, "transactionLogRetentionDays": 14}},
            "Invalid request: Transaction log retention is 14 days, but must be between 1 and 7 for edition ENT",
        ),
        ({"dataDiskSizeGb": "5"}, "Invalid request: Disk size is 5 GB"),
        (
            {"ipConfiguration": {"ipv4Enabled": False}},
            "Invalid request: At least one of Public IP or Private IP or PSC connectivity must be enabled",
        ),
        ({"backupConfiguration": {"startTime": "25:00"}}, "Invalid request: Backup start time is '25:00'"),
        (
            {"ipConfiguration": {"authorizedNetworks": [{"value": "home"}]}},
            "Invalid request: Authorized network 'home' is not an address",
        ),
        ({"insightsConfig": {"queryStringLength": 10}}, "Invalid request: Query string length is 10, but must be betw"),
        ({"databaseFlags": [{"name": "fsync", "value": "off"}]}, "Flag requested is not valid: fsync."),
        ({"databaseFlags": [{"name": "colour", "value": "red"}]}, "Flag requested is not valid: colour."),
        (
            {"databaseFlags": [{"name": "work_mem", "value": "63"}]},
            "Value requested is not valid: '63' for flag work_mem",
        ),
    ],
)
def test_settings_that_cloud_sql_refuses_leave_no_instance(sql: Any, change: dict[str, Any], message: str) -> None:
    code, _, answer = refusal(sql.instances().insert(project=PROJECT, body=instance("wrong", **change)))

    assert code == 400
    assert answer.startswith(message)
    assert refusal(sql.instances().get(project=PROJECT, instance="wrong"))[:2] == (404, "instanceDoesNotExist")


def test_a_version_without_binaries_is_refused_with_the_places_that_were_searched(sql: Any) -> None:
    body = instance("old") | {"databaseVersion": "POSTGRES_9_6"}
    assert "localgcp runs PostgreSQL only" in refusal(sql.instances().insert(project=PROJECT, body=body))[2]

    body = instance("future") | {"databaseVersion": "POSTGRES_20"}
    message = refusal(sql.instances().insert(project=PROJECT, body=body))[2]

    assert "POSTGRES_20 needs the binaries of PostgreSQL 20" in message
    assert "/usr/lib/postgresql/20/bin" in message


def test_a_second_instance_of_one_name_is_refused(sql: Any, pg: str) -> None:
    code, reason, _ = refusal(sql.instances().insert(project=PROJECT, body=instance(pg)))

    assert (code, reason) == (409, "instanceAlreadyExists")


def test_a_protected_instance_is_deleted_only_after_the_protection(region: Region, sql: Any) -> None:
    body = instance("kept", deletionProtectionEnabled=True)
    sql.instances().insert(project=PROJECT, body=body).execute()

    code, _, message = refusal(sql.instances().delete(project=PROJECT, instance="kept"))

    assert (code, message[:26]) == (400, "The instance is protected.")
    change = {"settings": {"deletionProtectionEnabled": False}}
    sql.instances().patch(project=PROJECT, instance="kept", body=change).execute()
    operation = sql.instances().delete(project=PROJECT, instance="kept").execute()
    assert (operation["status"], operation["operationType"], operation["targetId"]) == ("DONE", "DELETE", "kept")
    assert not Path(host(region, f"{PROJECT}:{LOCATION}:kept")).exists()
    assert refusal(sql.instances().get(project=PROJECT, instance="kept"))[0] == 404


def test_flags_and_the_tier_reach_postgres_also_when_they_change(region: Region, sql: Any) -> None:
    name = f"{PROJECT}:{LOCATION}:tuned"
    flags = [{"name": "log_min_duration_statement", "value": "1000"}]
    body = instance("tuned", databaseFlags=flags, tier="db-f1-micro") | {"rootPassword": PASSWORD}
    sql.instances().insert(project=PROJECT, body=body).execute()

    def shown(*settings: str) -> list[str]:
        with psycopg.connect(host=host(region, name), user="postgres", password=PASSWORD) as connection:
            return [str(connection.execute(f"SHOW {setting}").fetchone()[0]) for setting in settings]  # type: ignore[index]

    before = shown("log_min_duration_statement", "max_connections")
    flags = [{"name": "log_min_duration_statement", "value": "500"}, {"name": "max_connections", "value": "120"}]
    current = sql.instances().get(project=PROJECT, instance="tuned").execute()
    current["settings"] |= {"databaseFlags": flags, "tier": "db-custom-1-3840"}
    sql.instances().update(project=PROJECT, instance="tuned", body=current).execute()

    assert before == ["1s", "25"]
    assert shown("log_min_duration_statement", "max_connections") == ["500ms", "120"]
    # The body that was read before the change is one version behind.
    assert refusal(sql.instances().update(project=PROJECT, instance="tuned", body=current))[0] == 412
    sql.instances().delete(project=PROJECT, instance="tuned").execute()


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("timezone", "Mars/Base", "Value requested is not valid: 'Mars/Base' for flag timezone."),
        ("max_locks_per_transaction", "2147483647", "Invalid request: Postgres did not start: "),
    ],
)
def test_a_flag_that_only_postgres_can_judge_fails_the_operation_and_changes_nothing(
    region: Region, sql: Any, pg: str, flag: str, value: str, message: str
) -> None:
    change = {"settings": {"databaseFlags": [*FLAGS, {"name": flag, "value": value}]}}

    operation = sql.instances().patch(project=PROJECT, instance=pg, body=change).execute()

    error = operation["error"]["errors"][0]
    assert (error["code"], error["message"][: len(message)]) == ("INVALID_ARGUMENT", message)
    settings = sql.instances().get(project=PROJECT, instance=pg).execute()["settings"]
    assert settings["databaseFlags"] == FLAGS
    sql.instances().restart(project=PROJECT, instance=pg).execute()
    assert log_in(region, "bob", PASSWORD) == "bob"


def test_an_update_keeps_what_an_instance_was_born_with_and_a_patch_what_it_does_not_name(
    region: Region, sql: Any
) -> None:
    name = f"{PROJECT}:{LOCATION}:changing"
    instances = sql.instances()
    body = instance("changing", dataDiskSizeGb="20", userLabels={"team": "au"}) | {"rootPassword": PASSWORD}
    instances.insert(project=PROJECT, body=body).execute()

    def settings() -> dict[str, Any]:
        found: dict[str, Any] = instances.get(project=PROJECT, instance="changing").execute()["settings"]
        return found

    whole = {"settings": {"tier": "db-f1-micro", "userLabels": {"owner": "b"}}}
    instances.update(project=PROJECT, instance="changing", body=whole).execute()
    replaced = settings()
    labels = {"settings": {"userLabels": {"team": "us", "owner": None}}, "rootPassword": "another-password"}
    instances.patch(project=PROJECT, instance="changing", body=labels).execute()
    strict = {"settings": {"ipConfiguration": {"requireSsl": True}}}
    instances.patch(project=PROJECT, instance="changing", body=strict).execute()

    assert (replaced["edition"], replaced["dataDiskSizeGb"]) == ("ENTERPRISE", "20")
    assert (replaced["userLabels"], "databaseFlags" in replaced) == ({"owner": "b"}, False)
    assert (settings()["tier"], settings()["userLabels"]) == ("db-f1-micro", {"team": "us"})
    assert settings()["ipConfiguration"]["sslMode"] == "TRUSTED_CLIENT_CERTIFICATE_REQUIRED"
    assert log_in(region, "postgres", "another-password", "postgres", name) == "postgres"
    disk = {"settings": {"dataDiskType": "PD_HDD"}}
    message = refusal(instances.patch(project=PROJECT, instance="changing", body=disk))[2]
    assert message == "Invalid request: The type of the disk cannot be changed: it is PD_SSD."
    instances.delete(project=PROJECT, instance="changing").execute()


def test_an_instance_does_one_operation_at_a_time(region: Region, sql: Any, pg: str) -> None:
    instances, change = sql.instances(), {"settings": {"userLabels": {"team": "au"}}}
    refused = (
        instances.restart(project=PROJECT, instance=pg),
        instances.patch(project=PROJECT, instance=pg, body=change),
        instances.delete(project=PROJECT, instance=pg),
    )

    with sqladmin.instances_of(region.core).claimed(f"sqladmin/projects/{PROJECT}/instances/{pg}"):
        for request in refused:
            assert refusal(request)[:2] == (409, "operationInProgress")

    assert instances.restart(project=PROJECT, instance=pg).execute()["status"] == "DONE"


def test_what_is_not_here_is_refused_and_not_pretended(region: Region, sql: Any, pg: str) -> None:
    context = {"cloneContext": {"destinationInstanceName": "copy"}}
    for request in (
        sql.backupRuns().insert(project=PROJECT, instance=pg, body={}),
        sql.backupRuns().list(project=PROJECT, instance=pg),
        sql.instances().clone(project=PROJECT, instance=pg, body=context),
        sql.instances().export(project=PROJECT, instance=pg, body={}),
        sql.instances().restoreBackup(project=PROJECT, instance=pg, body={}),
        sql.instances().rotateServerCa(project=PROJECT, instance=pg, body={}),
        sql.sslCerts().insert(project=PROJECT, instance=pg, body={"commonName": "laptop"}),
        region.api("sqladmin", "v1").Backups().CreateBackup(parent=f"projects/{PROJECT}", body={}),
    ):
        code, _, message = refusal(request)
        assert code == 501
        assert "is not available in localgcp: there are no backups" in message


def test_flags_and_tiers_are_listed_with_what_they_take(sql: Any) -> None:
    flags = {flag["name"]: flag for flag in sql.flags().list(databaseVersion="POSTGRES_18").execute()["items"]}
    tiers = {tier["tier"]: tier for tier in sql.tiers().list(project=PROJECT).execute()["items"]}

    assert flags["work_mem"]["minValue"] == "64"
    assert flags["log_statement"]["allowedStringValues"] == ["none", "ddl", "mod", "all"]
    assert flags["max_connections"]["requiresRestart"] is True
    assert "fsync" not in flags
    assert tiers["db-perf-optimized-N-2"]["RAM"] == str(16 * 2**30)


def test_a_condition_names_the_instance_for_all_that_is_in_it(region: Region, sql: Any, pg: str) -> None:
    account = region.account(PROJECT, "conditional")
    projects = region.api("cloudresourcemanager", "v1").projects()
    version_three = {"options": {"requestedPolicyVersion": 3}}
    policy = projects.getIamPolicy(resource=PROJECT, body=version_three).execute()
    condition = {"title": "one", "expression": f'resource.name == "projects/{PROJECT}/instances/{pg}"'}
    policy["bindings"].append({"role": "roles/cloudsql.client", "members": [account.member], "condition": condition})
    projects.setIamPolicy(resource=PROJECT, body={"policy": policy | {"version": 3}}).execute()
    theirs = region.api("sqladmin", "v1", account.credentials)

    assert theirs.connect().get(project=PROJECT, instance=pg).execute()["region"] == LOCATION
    assert refusal(theirs.connect().get(project=PROJECT, instance="other"))[0] == 403


def test_an_instance_that_is_never_active_is_stopped_and_comes_back_with_its_rows(region: Region, sql: Any) -> None:
    name = f"{PROJECT}:{LOCATION}:sleeper"
    sql.instances().insert(project=PROJECT, body=instance("sleeper") | {"rootPassword": PASSWORD}).execute()
    with psycopg.connect(host=host(region, name), user="postgres", password=PASSWORD) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")

    def activate(policy: str) -> None:
        body = {"settings": {"activationPolicy": policy}}
        sql.instances().patch(project=PROJECT, instance="sleeper", body=body).execute()

    activate("NEVER")

    with pytest.raises(psycopg.OperationalError):
        log_in(region, "postgres", PASSWORD, "postgres", name)
    assert "instance is not running" in refusal(sql.users().list(project=PROJECT, instance="sleeper"))[2]
    activate("ALWAYS")
    with psycopg.connect(host=host(region, name), user="postgres", password=PASSWORD) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
    operation = sql.instances().restart(project=PROJECT, instance="sleeper").execute()
    assert (operation["status"], operation["operationType"]) == ("DONE", "RESTART")
    sql.instances().delete(project=PROJECT, instance="sleeper").execute()


def test_the_ssl_mode_of_an_instance_decides_who_is_let_in_at_its_address(
    region: Region, sql: Any, tmp_path: Path
) -> None:
    name = f"{PROJECT}:{LOCATION}:closed"
    network = {
        "ipv4Enabled": False,
        "privateNetwork": f"projects/{PROJECT}/global/networks/n",
        "sslMode": "ENCRYPTED_ONLY",
    }
    body = instance("closed", ipConfiguration=network) | {"rootPassword": PASSWORD}
    sql.instances().insert(project=PROJECT, body=body).execute()
    found = sql.instances().get(project=PROJECT, instance="closed").execute()
    (tmp_path / "ca.pem").write_text(found["serverCaCert"]["cert"])
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    signed = sql.sslCerts().createEphemeral(project=PROJECT, instance="closed", body={"public_key": public_key(key)})
    (tmp_path / "client.pem").write_text(signed.execute()["cert"])
    (tmp_path / "client.key").write_text(private_key(key))
    (tmp_path / "client.key").chmod(0o600)
    files = {"sslcert": str(tmp_path / "client.pem"), "sslkey": str(tmp_path / "client.key")}

    def connect(sslmode: str, **more: Any) -> str:
        address = found["ipAddresses"][0]["ipAddress"]
        more |= {"sslmode": sslmode, "sslrootcert": str(tmp_path / "ca.pem")}
        with psycopg.connect(host=address, user="postgres", password=PASSWORD, dbname="postgres", **more) as connection:
            row = connection.execute("SELECT current_user").fetchone()
        assert row is not None
        return str(row[0])

    def change(**settings: Any) -> None:
        sql.instances().patch(project=PROJECT, instance="closed", body={"settings": settings}).execute()

    assert [address["type"] for address in found["ipAddresses"]] == ["PRIVATE"]
    assert log_in(region, "postgres", PASSWORD, "postgres", name) == "postgres"
    for sslmode in ("prefer", "require", "verify-ca", "verify-full"):
        assert connect(sslmode) == "postgres"
    with pytest.raises(psycopg.OperationalError, match="rejects connection"):
        connect("disable")
    change(ipConfiguration={"sslMode": "TRUSTED_CLIENT_CERTIFICATE_REQUIRED"})
    with pytest.raises(psycopg.OperationalError, match="requires a valid client certificate"):
        connect("require")
    assert connect("require", **files) == "postgres"
    change(ipConfiguration={"sslMode": "ALLOW_UNENCRYPTED_AND_ENCRYPTED"})
    assert connect("disable") == "postgres"
    change(connectorEnforcement="REQUIRED")
    with pytest.raises(psycopg.OperationalError, match="rejects connection"):
        connect("require", **files)
    sql.instances().delete(project=PROJECT, instance="closed").execute()


def test_much_data_passes_an_encrypted_connection_both_ways_and_a_query_is_cancelled(sql: Any, pg: str) -> None:
    address = sql.instances().get(project=PROJECT, instance=pg).execute()["ipAddresses"][0]["ipAddress"]
    text = "x" * 30_000_000

    with psycopg.connect(host=address, user="bob", password=PASSWORD, dbname="app", sslmode="require") as connection:
        assert connection.execute("SELECT %s", [text]).fetchone() == (text,)
        # `cancel` would wait with the interpreter's lock, which the region needs to answer: it is in this process.
        threading.Timer(0.2, connection.cancel_safe).start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(60)")


def test_the_status_of_the_region_says_where_an_instance_is_reached(region: Region, pg: str) -> None:
    found = httpx.get(f"{region.url}{status.PATH}").json()["instances"]

    here = next(one for one in found if one["connectionName"] == NAME)
    for place in (here["socketDirectory"], *here["addresses"]):
        with psycopg.connect(host=place, user="postgres", password=PASSWORD, dbname="postgres") as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


# Databases and users


def test_a_database_belongs_to_cloudsqlsuperuser_and_is_gone_after_its_deletion(
    region: Region, sql: Any, pg: str
) -> None:
    body = {"name": "orders", "charset": "UTF8", "collation": "en_US.UTF8"}
    sql.databases().insert(project=PROJECT, instance=pg, body=body).execute()

    found = sql.databases().get(project=PROJECT, instance=pg, database="orders").execute()
    owner = run_program(
        region,
        "psql",
        "-Atc",
        "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'orders'",
        user="bob",
        password=PASSWORD,
    )

    assert {name: found[name] for name in body} == body
    assert owner.strip() == "cloudsqlsuperuser"
    code, _, message = refusal(sql.databases().insert(project=PROJECT, instance=pg, body=body))
    assert code == 400
    assert message == 'Invalid request: failed to create database orders. Detail: pq: database "orders" already exists.'
    sql.databases().delete(project=PROJECT, instance=pg, database="orders").execute()
    listed = sql.databases().list(project=PROJECT, instance=pg).execute()["items"]
    assert [database["name"] for database in listed] == ["postgres", "app"]


def test_a_changed_password_replaces_the_one_before(region: Region, sql: Any, pg: str) -> None:
    users = sql.users()
    users.insert(project=PROJECT, instance=pg, body={"name": "carol", "password": PASSWORD}).execute()

    body = {"name": "carol", "password": "another-password"}
    users.update(project=PROJECT, instance=pg, name="carol", body=body).execute()

    assert log_in(region, "carol", "another-password") == "carol"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        log_in(region, "carol", PASSWORD)
    users.delete(project=PROJECT, instance=pg, name="carol").execute()
    assert "carol" not in [user["name"] for user in users.list(project=PROJECT, instance=pg).execute()["items"]]


def test_creating_a_user_again_is_no_error_and_sets_the_password(region: Region, sql: Any, pg: str) -> None:
    for password in (PASSWORD, "the-second-password"):
        body = {"name": "dave", "password": password}
        sql.users().insert(project=PROJECT, instance=pg, body=body).execute()

    assert log_in(region, "dave", "the-second-password") == "dave"


def test_a_user_that_owns_a_table_cannot_be_deleted(region: Region, sql: Any, pg: str) -> None:
    sql.users().insert(project=PROJECT, instance=pg, body={"name": "owner", "password": PASSWORD}).execute()
    run_program(region, "psql", "-c", "CREATE TABLE owned (n int)", user="owner", password=PASSWORD)

    code, reason, message = refusal(sql.users().delete(project=PROJECT, instance=pg, name="owner"))

    assert (code, reason) == (400, "invalid")
    assert message == (
        'Invalid request: failed to delete user owner: . role "owner" cannot be dropped because some objects depend on '
        "it Details: 1 object in database app."
    )
    run_program(region, "psql", "-c", "DROP TABLE owned", user="owner", password=PASSWORD)
    sql.users().delete(project=PROJECT, instance=pg, name="owner").execute()


def test_a_built_in_user_creates_roles_and_databases_and_is_no_superuser(region: Region, pg: str) -> None:
    statements = "CREATE ROLE reader; GRANT pg_monitor TO reader; CREATE DATABASE scratch; DROP DATABASE scratch"
    for statement in statements.split("; "):
        run_program(region, "psql", "-v", "ON_ERROR_STOP=1", "-c", statement, user="bob", password=PASSWORD)

    with (
        psycopg.connect(host=host(region), user="bob", password=PASSWORD, dbname="app") as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("SELECT pg_read_file('/etc/passwd')")
    with pytest.raises(psycopg.OperationalError):
        log_in(region, "bob", PASSWORD, "cloudsqladmin")


def test_a_built_in_user_creates_the_extensions_of_cloud_sql_and_no_others(region: Region, sql: Any, pg: str) -> None:
    sql.databases().insert(project=PROJECT, instance=pg, body={"name": "extended"}).execute()
    with psycopg.connect(
        host=host(region), user="bob", password=PASSWORD, dbname="extended", autocommit=True
    ) as connection:
        for extension in ("vector", "pg_stat_statements", "postgres_fdw", "citext"):
            connection.execute(f"CREATE EXTENSION {extension}".encode())
        connection.execute("CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw")

        assert connection.execute("SELECT '[1,2]'::vector <-> '[1,4]'").fetchone() == (2.0,)
        statements = connection.execute("SELECT query FROM pg_stat_statements").fetchall()
        assert ("CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw",) in statements
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE EXTENSION file_fdw")
    sql.databases().delete(project=PROJECT, instance=pg, database="extended").execute()


def test_an_unknown_database_role_is_refused_and_leaves_no_user(sql: Any, pg: str) -> None:
    body = {"name": "eve", "password": PASSWORD, "databaseRoles": ["nobody_knows"]}

    code, _, message = refusal(sql.users().insert(project=PROJECT, instance=pg, body=body))

    assert (code, message) == (400, 'Invalid request: role "nobody_knows" does not exist.')
    assert refusal(sql.users().get(project=PROJECT, instance=pg, name="eve"))[0] == 404


def test_no_user_is_a_role_of_its_own(sql: Any, pg: str) -> None:
    body = {"name": "snake", "password": PASSWORD}
    sql.users().insert(project=PROJECT, instance=pg, body=body).execute()

    code, _, message = refusal(
        sql.users().update(project=PROJECT, instance=pg, name="snake", databaseRoles="snake", body=body)
    )

    assert (code, message) == (400, 'Invalid request: role "snake" is a member of role "snake".')


def test_the_password_policy_of_a_user_is_kept(sql: Any, pg: str) -> None:
    policy = {"enableFailedAttemptsCheck": True, "allowedFailedAttempts": 3}
    body = {"name": "strict", "password": PASSWORD, "passwordPolicy": policy}
    sql.users().insert(project=PROJECT, instance=pg, body=body).execute()

    found = sql.users().get(project=PROJECT, instance=pg, name="strict").execute()

    assert found["passwordPolicy"] == policy
    sql.users().delete(project=PROJECT, instance=pg, name="strict").execute()
    sql.users().insert(project=PROJECT, instance=pg, body={"name": "strict", "password": PASSWORD}).execute()
    assert "passwordPolicy" not in sql.users().get(project=PROJECT, instance=pg, name="strict").execute()
    sql.users().delete(project=PROJECT, instance=pg, name="strict").execute()


def test_an_iam_user_has_the_roles_it_was_given_and_no_others(region: Region, sql: Any, pg: str) -> None:
    region.account(PROJECT, "reader-account", *USER_ROLES)
    body = {"name": f"reader-account@{PROJECT}.iam.gserviceaccount.com", "type": "CLOUD_IAM_SERVICE_ACCOUNT"}
    sql.users().insert(project=PROJECT, instance=pg, body=body).execute()

    listed = {user["name"]: user for user in sql.users().list(project=PROJECT, instance=pg).execute()["items"]}

    assert listed[f"validibot-app@{PROJECT}.iam"]["databaseRoles"] == ["cloudsqlsuperuser"]
    assert listed[f"validibot-app@{PROJECT}.iam"]["type"] == "CLOUD_IAM_SERVICE_ACCOUNT"
    assert "databaseRoles" not in listed[f"reader-account@{PROJECT}.iam"]
    with (
        psycopg.connect(
            host=host(region),
            user=f"reader-account@{PROJECT}.iam",
            password=token_of(region, "reader-account"),
            dbname="app",
        ) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("CREATE TABLE mine (n int)")


# Access tokens as passwords


def test_psql_and_pg_dump_log_in_with_an_access_token_over_the_socket(region: Region, pg: str) -> None:
    user, token = f"validibot-app@{PROJECT}.iam", token_of(region, "validibot-app")
    run_program(region, "psql", "-c", "CREATE TABLE runs AS SELECT 7 AS n", user=user, password=token)

    dump = run_program(region, "pg_dump", "--table=runs", user=user, password=token)

    assert "COPY public.runs (n) FROM stdin;\n7\n" in dump
    run_program(region, "psql", "-c", "DROP TABLE runs", user=user, password=token)


def test_a_token_that_is_not_good_for_the_user_is_refused(region: Region, pg: str) -> None:
    user = f"validibot-app@{PROJECT}.iam"
    region.account(PROJECT, "other-account", *USER_ROLES)
    expired = region.core.tokens.access_token(f"validibot-app@{PROJECT}.iam.gserviceaccount.com", lifetime=-1)

    for password in ("nonsense", token_of(region, "other-account"), expired, PASSWORD):
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            log_in(region, user, password)


def test_a_login_needs_the_permission_at_that_moment(region: Region, sql: Any, pg: str) -> None:
    region.account(PROJECT, "late-account")
    body = {"name": f"late-account@{PROJECT}.iam", "type": "CLOUD_IAM_SERVICE_ACCOUNT"}
    sql.users().insert(project=PROJECT, instance=pg, body=body).execute()
    token = token_of(region, "late-account")

    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        log_in(region, f"late-account@{PROJECT}.iam", token)
    member = f"serviceAccount:late-account@{PROJECT}.iam.gserviceaccount.com"
    region.core.iam.add_binding(f"cloudresourcemanager/projects/{PROJECT}", "roles/cloudsql.instanceUser", member)

    assert log_in(region, f"late-account@{PROJECT}.iam", token) == f"late-account@{PROJECT}.iam"


def test_without_the_flag_no_iam_user_logs_in(region: Region, sql: Any, app: service_account.Credentials) -> None:
    name = f"{PROJECT}:{LOCATION}:plain"
    sql.instances().insert(project=PROJECT, body=instance("plain", databaseFlags=[])).execute()
    body = {"name": f"validibot-app@{PROJECT}.iam", "type": "CLOUD_IAM_SERVICE_ACCOUNT"}
    sql.users().insert(project=PROJECT, instance="plain", body=body).execute()
    token = token_of(region, "validibot-app")

    with pytest.raises(psycopg.OperationalError):
        log_in(region, f"validibot-app@{PROJECT}.iam", token, "postgres", name)
    sql.instances().patch(project=PROJECT, instance="plain", body={"settings": {"databaseFlags": FLAGS}}).execute()

    assert log_in(region, f"validibot-app@{PROJECT}.iam", token, "postgres", name) == f"validibot-app@{PROJECT}.iam"
    sql.instances().delete(project=PROJECT, instance="plain").execute()


def test_one_iam_user_owns_the_schema_and_another_reads_and_writes_rows(region: Region, sql: Any, pg: str) -> None:
    region.account(PROJECT, "validibot-row", *USER_ROLES)
    row_user, owner = f"validibot-row@{PROJECT}.iam", f"validibot-app@{PROJECT}.iam"
    body = {"name": row_user, "type": "CLOUD_IAM_SERVICE_ACCOUNT"}
    sql.users().insert(project=PROJECT, instance=pg, body=body).execute()
    statements = (
        "CREATE EXTENSION citext",
        "CREATE TABLE jobs (id int GENERATED ALWAYS AS IDENTITY, name citext)",
        f'GRANT SELECT, INSERT ON jobs TO "{row_user}"',
    )
    for statement in statements:
        run_program(region, "psql", "-c", statement, user=owner, password=token_of(region, "validibot-app"))

    with psycopg.connect(
        host=host(region), user=row_user, password=token_of(region, "validibot-row"), dbname="app"
    ) as connection:
        connection.execute("INSERT INTO jobs (name) VALUES ('Report')")
        assert connection.execute("SELECT name FROM jobs WHERE name = 'report'").fetchone() == ("Report",)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DROP TABLE jobs")


def test_operations_are_listed_by_instance(sql: Any, pg: str) -> None:
    operations = sql.operations()

    listed = operations.list(project=PROJECT, instance=pg).execute()["items"]

    assert {operation["targetId"] for operation in listed} == {pg}
    assert [one for one in listed if one["operationType"] == "CREATE"] == [
        operations.get(project=PROJECT, operation=listed[-1]["name"]).execute()
    ]


# Google's connector


@pytest.mark.parametrize("driver", ["pg8000", "psycopg"])
@pytest.mark.parametrize("with_iam", [False, True])
def test_googles_connector_connects(
    region: Region, pg: str, app: service_account.Credentials, driver: str, with_iam: bool
) -> None:
    user = f"validibot-app@{PROJECT}.iam" if with_iam else "bob"
    with Connector(credentials=app, sqladmin_api_endpoint=f"{region.url}/sqladmin", enable_iam_auth=with_iam) as google:
        password = {} if with_iam else {"password": PASSWORD}
        connection = google.connect(NAME, driver, user=user, db="app", **password)
        try:
            cursor = connection.cursor()
            cursor.execute("SELECT current_user, repeat('x', 3000000)")
            name, large = cursor.fetchone()
        finally:
            connection.close()

    assert (name, len(large)) == (user, 3_000_000)


@pytest.mark.parametrize("with_iam", [False, True])
def test_googles_connector_connects_with_asyncpg(
    region: Region, pg: str, app: service_account.Credentials, with_iam: bool
) -> None:
    user = f"validibot-app@{PROJECT}.iam" if with_iam else "bob"

    async def connect() -> str:
        async with await create_async_connector(
            credentials=app, sqladmin_api_endpoint=f"{region.url}/sqladmin", enable_iam_auth=with_iam
        ) as google:
            password = {} if with_iam else {"password": PASSWORD}
            connection = await google.connect_async(NAME, "asyncpg", user=user, db="app", **password)
            try:
                return str(await connection.fetchval("SELECT current_user"))
            finally:
                await connection.close()

    assert asyncio.run(connect()) == user


def test_a_connector_without_the_permission_is_refused_by_name(region: Region, pg: str) -> None:
    stranger = region.account(PROJECT, "stranger").credentials

    with (
        Connector(
            credentials=stranger, sqladmin_api_endpoint=f"{region.url}/sqladmin", ip_type=IPTypes.PUBLIC
        ) as google,
        pytest.raises(Exception, match=r"cloudsql\.instances\.(get|connect)"),
    ):
        google.connect(NAME, "pg8000", user="bob", password=PASSWORD, db="app")


def test_a_certificate_needs_cloudsql_instances_connect(region: Region, pg: str) -> None:
    viewing = region.account(PROJECT, "viewing-account", "roles/cloudsql.viewer")
    viewer = region.api("sqladmin", "v1beta4", viewing.credentials)

    for request in (
        viewer.connect().generateEphemeralCert(project=PROJECT, instance=pg, body={"public_key": public_key()}),
        viewer.sslCerts().createEphemeral(project=PROJECT, instance=pg, body={"public_key": public_key()}),
    ):
        code, _, message = refusal(request)
        assert code == 403
        assert "cloudsql.instances.connect" in message


def test_the_connectors_port_answers_only_clients_with_a_certificate_of_the_instance(
    region: Region, sql: Any, pg: str, tmp_path: Path
) -> None:
    settings = sql.connect().get(project=PROJECT, instance=pg).execute()
    address = settings["ipAddresses"][0]["ipAddress"]
    (tmp_path / "server.pem").write_text(settings["serverCaCert"]["cert"])
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    request = {"public_key": public_key(key)}
    own = (
        sql.connect()
        .generateEphemeralCert(project=PROJECT, instance=pg, body=request)
        .execute()["ephemeralCert"]["cert"]
    )
    foreign = authority_of(tmp_path / "other", "p:l:other", "127.0.0.1").sign_client(
        public_key(key), None, timedelta(hours=1)
    )

    def answer_to(certificate: str | None) -> bytes:
        context = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
        context.check_hostname = False
        if certificate is not None:
            (tmp_path / "client.pem").write_text(certificate + private_key(key))
            context.load_cert_chain(tmp_path / "client.pem")
        try:
            with socket.create_connection((address, PORT), timeout=10) as raw, context.wrap_socket(raw) as stream:
                stream.sendall(struct.pack("!II", 8, SSL_REQUEST))
                return stream.recv(1)
        except (ssl.SSLError, ConnectionError):
            return b""

    # This build of Postgres answers N: there is no second TLS inside the first.
    assert answer_to(own) == b"N"
    assert answer_to(None) == b""
    assert answer_to(foreign.public_bytes(serialization.Encoding.PEM).decode()) == b""


def public_key(key: rsa.RSAPrivateKey | None = None) -> str:
    public = (key or rsa.generate_private_key(public_exponent=65537, key_size=2048)).public_key()
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def private_key(key: rsa.RSAPrivateKey) -> str:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


# What the provider sends

RECORDINGS = Path(__file__).parents[3] / "shared" / "provider" / "recordings"


@pytest.mark.skipif(not RECORDINGS.exists(), reason="recordings of the real provider are not present")
def test_every_recorded_request_of_the_provider_is_accepted(region: Region) -> None:
    recorded = {name: json.loads((RECORDINGS / f"sql-{name}.json").read_text()) for name in ("database", "user")}
    instances = json.loads((RECORDINGS / "sql-databaseinstance.json").read_text())
    staging = next(variant for variant in instances["variants"] if variant["resource"] == "db-staging")
    others = [one for file in recorded.values() for one in (file, *file["variants"])]
    updates = [one["update"]["requests"] for one in (*others, instances) if one["update"]]
    steps = [instances["create"], staging["create"], *(one["create"] for one in others), *updates]
    steps += [one["delete"] for one in (*others, staging, instances)]
    token = region.core.tokens.access_token("operator@localgcp.iam.gserviceaccount.com")
    refused = []

    with httpx.Client(base_url=region.url, headers={"authorization": f"Bearer {token}"}, timeout=60) as client:
        for request in (request for step in steps for request in step if request["path"].startswith("/sqladmin/")):
            answer = client.request(request["method"], request["path"], params=request["query"], json=request["body"])
            body = answer.json()
            if answer.status_code != 200 or "error" in body or body.get("status", "DONE") != "DONE":
                refused.append((request["method"], request["path"], body))

    assert refused == []
