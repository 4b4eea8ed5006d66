"""Machine types, flags, certificates and verifiers: what follows from tables and formulas alone."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from localgcp.errors import InvalidArgument
from localgcp.sql.certificates import authority_of
from localgcp.sql.flags import checked_flags, needs_restart
from localgcp.sql.instances import check_password, check_settings, with_defaults
from localgcp.sql.template import Setting
from localgcp.sql.tiers import tier_of

CONNECTIONS = "Connections and Authentication / Connection Settings"
KNOWN = {
    setting.name: setting
    for setting in (
        Setting(name="work_mem", context="user", vartype="integer", unit="kB", minimum=64, maximum=2147483647),
        Setting(name="max_connections", context="postmaster", vartype="integer", minimum=1, maximum=262143),
        Setting(name="log_statement", context="superuser", vartype="enum", choices=("none", "ddl", "mod", "all")),
        Setting(name="autovacuum", context="sighup", vartype="bool"),
        Setting(name="archive_command", context="sighup", vartype="string", category="Write-Ahead Log / Archiving"),
        Setting(name="listen_addresses", context="postmaster", vartype="string", category=CONNECTIONS),
        Setting(name="data_directory", context="postmaster", vartype="string", category="File Locations"),
    )
}


@pytest.mark.parametrize(
    ("tier", "edition", "connections"),
    [
        ("db-f1-micro", "ENTERPRISE", 25),
        ("db-g1-small", "ENTERPRISE", 50),
        ("db-custom-1-3840", "ENTERPRISE", 100),
        ("db-custom-2-6144", "ENTERPRISE", 200),
        ("db-custom-2-7680", "ENTERPRISE", 400),
        ("db-custom-2-8192", "ENTERPRISE", 400),
        ("db-custom-4-16384", "ENTERPRISE", 500),
        ("db-custom-8-32768", "ENTERPRISE", 600),
        ("db-perf-optimized-N-8", "ENTERPRISE_PLUS", 800),
        ("db-perf-optimized-N-16", "ENTERPRISE_PLUS", 1000),
    ],
)
def test_connections_follow_from_the_machines_memory(tier: str, edition: str, connections: int) -> None:
    assert tier_of(tier, edition).max_connections == connections


@pytest.mark.parametrize(
    ("tier", "edition", "problem"),
    [
        ("db-custom-3-8192", "ENTERPRISE", "3 CPUs"),
        ("db-custom-2-8000", "ENTERPRISE", "multiple of 256"),
        ("db-custom-1-3584", "ENTERPRISE", "at least 3840"),
        ("db-custom-2-16384", "ENTERPRISE", "0.9 to 6.5 GB"),
        ("db-n1-standard-1", "ENTERPRISE", "Invalid Tier"),
        ("db-f1-micro", "ENTERPRISE_PLUS", "Use a predefined Tier like db-perf-optimized-N-"),
    ],
)
def test_a_machine_that_cloud_sql_does_not_offer_is_refused(tier: str, edition: str, problem: str) -> None:
    with pytest.raises(InvalidArgument, match=problem):
        tier_of(tier, edition)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("archive_command", "rm -rf /", "invalidFlagName"),
        ("listen_addresses", "*", "invalidFlagName"),
        ("data_directory", "/etc", "invalidFlagName"),
        ("no_such_flag", "on", "invalidFlagName"),
        ("work_mem", "64MB", "invalidFlagValue"),
        ("work_mem", "63", "invalidFlagValue"),
        ("log_statement", "some", "invalidFlagValue"),
        ("autovacuum", "true", "invalidFlagValue"),
        ("cloudsql.iam_authentication", "yes", "invalidFlagValue"),
        ("cloudsql.no_such_flag", "on", "invalidFlagName"),
    ],
)
def test_a_flag_that_nobody_may_set_is_refused(name: str, value: str, reason: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        checked_flags([{"name": name, "value": value}], KNOWN)

    assert refused.value.reason == reason
    assert name in refused.value.message


def test_good_flags_are_taken_and_only_some_need_a_restart() -> None:
    rows = [{"name": "work_mem", "value": "65536"}, {"name": "cloudsql.iam_authentication", "value": "on"}]

    assert checked_flags(rows, KNOWN) == {"work_mem": "65536", "cloudsql.iam_authentication": "on"}
    assert not needs_restart({"work_mem": "64"}, {"work_mem": "128"}, KNOWN)
    assert needs_restart({"max_connections": "100"}, {}, KNOWN)


def test_enterprise_plus_is_the_default_from_postgres_16_on() -> None:
    assert with_defaults({}, "POSTGRES_16", "us-central1")["edition"] == "ENTERPRISE_PLUS"
    assert with_defaults({}, "POSTGRES_15", "us-central1")["edition"] == "ENTERPRISE"


def test_defaults_alone_need_only_a_tier() -> None:
    settings = with_defaults({"tier": "db-f1-micro", "edition": "ENTERPRISE"}, "POSTGRES_18", "us-central1")

    check_settings(settings, KNOWN)

    with pytest.raises(InvalidArgument, match="Missing parameter: tier"):
        check_settings({name: value for name, value in settings.items() if name != "tier"}, KNOWN)


def test_the_password_policy_of_the_instance_is_obeyed() -> None:
    policy = {"enablePasswordPolicy": True, "minLength": 16, "disallowUsernameSubstring": True}

    check_password("sixteen-letters-", "bob", policy)

    with pytest.raises(InvalidArgument, match="too short"):
        check_password("short", "bob", policy)
    with pytest.raises(InvalidArgument, match="contains the user name"):
        check_password("the-password-of-Bob", "bob", policy)
    check_password("short", "bob", policy | {"enablePasswordPolicy": False})


def test_a_clients_certificate_carries_its_token_where_only_the_authority_reads_it(tmp_path: Path) -> None:
    authority = authority_of(tmp_path / "one", "p:l:one", "127.0.0.1")
    other = authority_of(tmp_path / "two", "p:l:two", "127.0.0.1")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()

    certificate = authority.sign_client(pem, "an access token", timedelta(hours=1))

    assert authority.token_in(certificate) == "an access token"
    assert other.token_in(certificate) is None
    assert b"an access token" not in certificate.public_bytes(serialization.Encoding.DER)
    assert certificate.not_valid_after_utc <= datetime.now(UTC) + timedelta(hours=1)
    assert authority.token_in(authority.sign_client(pem, None, timedelta(hours=1))) is None
    # Read again from its directory, as the next process does.
    assert authority_of(tmp_path / "one", "p:l:one", "127.0.0.1").token_in(certificate) == "an access token"


def test_what_is_no_public_key_gets_no_certificate(tmp_path: Path) -> None:
    authority = authority_of(tmp_path, "p:l:one", "127.0.0.1")

    with pytest.raises(InvalidArgument, match="public_key must be"):
        authority.sign_client("nonsense", None, timedelta(hours=1))
