"""What the API says about an instance: defaults, checks, and the server that its settings ask for.

Defaults are those that Cloud SQL answers (and that leave the provider without a difference), no more: a field that
the real API leaves out when it was not set is left out here.
"""

import copy
import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from localgcp.errors import InvalidArgument
from localgcp.fieldmask import merge_patch
from localgcp.sql.direct import Admission
from localgcp.sql.flags import checked_flags
from localgcp.sql.servers import InstanceSpec
from localgcp.sql.template import Setting
from localgcp.sql.tiers import tier_of
from localgcp.validation import without_nulls

INSTANCE_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
MAX_NAME_LENGTH = 98  # "The sum of project ID length and instance name length must be <= 98"
VERSION = re.compile(r"POSTGRES_(\d+)")
#: Days that transaction logs are kept, by edition ("Point-in-time recovery", log retention).
MAX_LOG_RETENTION_DAYS = {"ENTERPRISE": 7, "ENTERPRISE_PLUS": 35}
#: From this version on, Cloud SQL creates Enterprise Plus when no edition is asked for.
FIRST_PLUS_BY_DEFAULT = 16
UNENCRYPTED_ALLOWED = "ALLOW_UNENCRYPTED_AND_ENCRYPTED"
CERTIFICATE_REQUIRED = "TRUSTED_CLIENT_CERTIFICATE_REQUIRED"
ADMISSIONS: Mapping[str, Admission] = {
    UNENCRYPTED_ALLOWED: "anybody",
    "ENCRYPTED_ONLY": "encrypted",
    CERTIFICATE_REQUIRED: "certificate",
}
TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
#: Bytes of a statement that Query Insights keeps; Enterprise Plus keeps more of them.
MIN_QUERY_BYTES = 256
MAX_QUERY_BYTES = {"ENTERPRISE": 4_500, "ENTERPRISE_PLUS": 1_048_576}
MIN_DISK_GB = 10
MAX_DISK_GB = 65_536


def major_version(database_version: str) -> int:
    found = VERSION.fullmatch(database_version)
    if found is None:
        raise invalid(f"databaseVersion {database_version}: localgcp runs PostgreSQL only, POSTGRES_<major version>.")
    return int(found[1])


def check_identity(project: str, name: str) -> None:
    if not INSTANCE_NAME.fullmatch(name) or len(project) + len(name) > MAX_NAME_LENGTH:
        raise invalid(
            f"Invalid instance name ({name}): lower-case letters, digits and hyphens, beginning with a letter, and "
            f"together with the project at most {MAX_NAME_LENGTH} characters."
        )


def with_defaults(settings: Mapping[str, Any], database_version: str, location: str) -> dict[str, Any]:
    """Settings as Cloud SQL answers them: what was asked, and what follows when it was not."""
    result = copy.deepcopy(dict(settings))
    plus = major_version(database_version) >= FIRST_PLUS_BY_DEFAULT
    defaults: dict[str, Any] = {
        "kind": "sql#settings",
        "activationPolicy": "ALWAYS",
        "availabilityType": "ZONAL",
        "connectorEnforcement": "NOT_REQUIRED",
        "dataDiskSizeGb": str(MIN_DISK_GB),
        "dataDiskType": "PD_SSD",
        "deletionProtectionEnabled": False,
        "edition": "ENTERPRISE_PLUS" if plus else "ENTERPRISE",
        "pricingPlan": "PER_USE",
        "replicationType": "SYNCHRONOUS",
        "settingsVersion": "1",
        "storageAutoResize": True,
        "storageAutoResizeLimit": "0",
    }
    for name, value in defaults.items():
        result.setdefault(name, value)
    zone = result.setdefault("locationPreference", {})
    zone.setdefault("zone", f"{location}-a")
    zone.setdefault("kind", "sql#locationPreference")
    backup = result.setdefault("backupConfiguration", {})
    backup_defaults = {
        "kind": "sql#backupConfiguration",
        "enabled": False,
        "startTime": "00:00",
        "transactionLogRetentionDays": 7,
        "backupRetentionSettings": {"retainedBackups": 7, "retentionUnit": "COUNT"},
        "backupTier": "STANDARD",
        "transactionalLogStorageState": "CLOUD_STORAGE",
    }
    for name, value in backup_defaults.items():
        backup.setdefault(name, value)
    network = result.setdefault("ipConfiguration", {})
    network.setdefault("ipv4Enabled", True)
    if network.get("sslMode") in ("", "SSL_MODE_UNSPECIFIED"):
        del network["sslMode"]
    # requireSsl is the older word for the strictest sslMode, which wins where both are given.
    network.setdefault("sslMode", CERTIFICATE_REQUIRED if network.get("requireSsl") else UNENCRYPTED_ALLOWED)
    network["requireSsl"] = network["sslMode"] == CERTIFICATE_REQUIRED
    network.setdefault("serverCaMode", "GOOGLE_MANAGED_INTERNAL_CA")
    return result


def changed_settings(before: Mapping[str, Any], change: Mapping[str, Any], *, is_patch: bool) -> dict[str, Any]:
    """The settings of `instances.patch` or `instances.update`, with their defaults.

    A patch changes what it names. An update replaces, but what an instance was born with stays when it is not named.
    """
    current = before["settings"]
    if is_patch:
        network = change.get("ipConfiguration") or {}
        if network.get("requireSsl") is not None and "sslMode" not in network:
            change = merge_patch(change, {"ipConfiguration": {"sslMode": None}})
            current = merge_patch(current, {"ipConfiguration": {"sslMode": None}})
        settings = without_nulls(merge_patch(current, change))
    else:
        kept = ("dataDiskSizeGb", "dataDiskType", "edition", "locationPreference")
        settings = {name: current[name] for name in kept} | without_nulls(change)
    return with_defaults(settings, before["databaseVersion"], before["region"])


def check_settings(settings: Mapping[str, Any], known: Mapping[str, Setting]) -> None:
    """Raises InvalidArgument for what Cloud SQL would refuse; `settings` have their defaults."""
    if not settings.get("tier"):
        raise InvalidArgument("Invalid request: Missing parameter: tier.", reason="required")
    tier_of(settings["tier"], settings["edition"])
    checked_flags(settings.get("databaseFlags", []), known)
    backup = settings["backupConfiguration"]
    days, most = int(backup["transactionLogRetentionDays"]), MAX_LOG_RETENTION_DAYS.get(settings["edition"], 7)
    if not 1 <= days <= most:
        raise invalid(
            f"Transaction log retention is {days} days, but must be between 1 and {most} "
            f"for edition {settings['edition']}."
        )
    retained = int(backup["backupRetentionSettings"].get("retainedBackups", 7))
    if not 1 <= retained <= 365:
        raise invalid(f"Number of retained backups is {retained}, but must be between 1 and 365.")
    if backup.get("pointInTimeRecoveryEnabled") and not backup["enabled"]:
        raise invalid("Point in time recovery requires automated backups: enable backupConfiguration.")
    if not TIME_OF_DAY.fullmatch(backup["startTime"]):
        raise invalid(f"Backup start time is {backup['startTime']!r}, but must be HH:MM.")
    size = int(settings["dataDiskSizeGb"])
    if not MIN_DISK_GB <= size <= MAX_DISK_GB:
        raise invalid(f"Disk size is {size} GB, but must be between {MIN_DISK_GB} and {MAX_DISK_GB}.")
    limit = int(settings["storageAutoResizeLimit"])
    if limit != 0 and limit < size:
        raise invalid(f"Storage auto resize limit is {limit} GB, less than the disk's {size} GB.")
    network = settings["ipConfiguration"]
    if not (network["ipv4Enabled"] or network.get("privateNetwork") or network.get("pscConfig", {}).get("pscEnabled")):
        raise invalid("At least one of Public IP or Private IP or PSC connectivity must be enabled for instance.")
    for entry in network.get("authorizedNetworks", []):
        if not is_network(entry.get("value", "")):
            raise invalid(f"Authorized network {entry.get('value', '')!r} is not an address in CIDR notation.")
    length = settings.get("insightsConfig", {}).get("queryStringLength")
    longest = MAX_QUERY_BYTES.get(settings["edition"], 4_500)
    if length is not None and not MIN_QUERY_BYTES <= int(length) <= longest:
        raise invalid(f"Query string length is {length}, but must be between {MIN_QUERY_BYTES} and {longest}.")
    window = settings.get("maintenanceWindow", {})
    if not (0 <= int(window.get("day", 1)) <= 7 and 0 <= int(window.get("hour", 0)) <= 23):
        raise invalid("The maintenance window is a day from 1 to 7 and an hour from 0 to 23.")


def check_change(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """What cannot be undone on a living instance."""
    if int(after["dataDiskSizeGb"]) < int(before["dataDiskSizeGb"]):
        raise invalid(
            f"Disk size cannot be decreased: it is {before['dataDiskSizeGb']} GB, "
            f"asked for {after['dataDiskSizeGb']} GB."
        )
    if after["dataDiskType"] != before["dataDiskType"]:
        raise invalid(f"The type of the disk cannot be changed: it is {before['dataDiskType']}.")
    network = before["ipConfiguration"].get("privateNetwork")
    if network and not after["ipConfiguration"].get("privateNetwork"):
        raise invalid("Private IP cannot be disabled once it is enabled.")


def is_network(value: str) -> bool:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return False
    return True


def ip_addresses(settings: Mapping[str, Any], address: str) -> list[dict[str, str]]:
    """Both kinds lead to the one loopback address that the instance has."""
    network = settings["ipConfiguration"]
    kinds = []
    if network["ipv4Enabled"]:
        kinds.append("PRIMARY")
    if network.get("privateNetwork"):
        kinds.append("PRIVATE")
    return [{"type": kind, "ipAddress": address} for kind in kinds or ["PRIVATE"]]


def spec_of(instance: Mapping[str, Any]) -> InstanceSpec:
    settings = instance["settings"]
    flags = {row["name"]: row["value"] for row in settings.get("databaseFlags", [])}
    ssl_mode = settings["ipConfiguration"]["sslMode"]
    return InstanceSpec(
        connection_name=instance["connectionName"],
        major=major_version(instance["databaseVersion"]),
        address=instance["ipAddresses"][0]["ipAddress"],
        max_connections=tier_of(settings["tier"], settings["edition"]).max_connections,
        flags=flags,
        admission="nobody" if settings["connectorEnforcement"] == "REQUIRED" else ADMISSIONS[ssl_mode],
    )


def check_password(password: str, user: str, policy: Mapping[str, Any]) -> None:
    """The instance's passwordValidationPolicy. Length and user name are checked; complexity and reuse are not."""
    if not policy.get("enablePasswordPolicy"):
        return
    least = int(policy.get("minLength", 0))
    if len(password) < least:
        raise invalid(f"The password of {user} is too short: the password policy asks for {least} characters.")
    if policy.get("disallowUsernameSubstring") and user.lower() in password.lower():
        raise invalid(f"The password of {user} contains the user name, which the password policy forbids.")


def invalid(message: str) -> InvalidArgument:
    return InvalidArgument(f"Invalid request: {message}", reason="invalid")
