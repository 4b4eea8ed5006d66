"""Database flags: Postgres' own, which it applies, and those of Cloud SQL, some of which mean something here."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from localgcp.errors import InvalidArgument
from localgcp.sql.template import Setting

IAM_AUTHENTICATION = "cloudsql.iam_authentication"
LOGICAL_DECODING = "cloudsql.logical_decoding"

#: Flags that only Cloud SQL has ("Configure database flags", PostgreSQL), and what they take.
CLOUD_SQL_FLAGS: Mapping[str, str] = {
    "cloudsql.allow_passwordless_local_connections": "bool",
    "cloudsql.enable_anon": "bool",
    "cloudsql.enable_auto_explain": "bool",
    "cloudsql.enable_index_advisor": "bool",
    "cloudsql.enable_maintenance_cleanup": "bool",
    "cloudsql.enable_pg_bigm": "bool",
    "cloudsql.enable_pg_cron": "bool",
    "cloudsql.enable_pg_hint_plan": "bool",
    "cloudsql.enable_pg_squeeze": "bool",
    "cloudsql.enable_pg_wait_sampling": "bool",
    "cloudsql.enable_pgaudit": "bool",
    "cloudsql.enable_pglogical": "bool",
    IAM_AUTHENTICATION: "bool",
    LOGICAL_DECODING: "bool",
    "cloudsql.max_failed_attempts_allowed": "integer",
    "cloudsql.pg_authid_select_role": "string",
    "cloudsql.supported_extensions": "string",
}
#: Parameters of extensions, which Postgres knows only while the extension is loaded.
EXTENSION_PREFIXES = ("auto_explain.", "cron.", "pg_stat_statements.", "pgaudit.", "pg_hint_plan.", "pglogical.")

#: What Cloud SQL keeps to itself, by the beginning of Postgres' category: files, addresses, TLS, programs that the
#: server would start, libraries that it would load, replication and recovery.
RESERVED_CATEGORIES = (
    "Client Connection Defaults / Shared Library Preloading",
    "Connections and Authentication / Authentication",
    "Connections and Authentication / Connection Settings",
    "Connections and Authentication / SSL",
    "Developer Options",
    "Error Handling",
    "File Locations",
    "Preset Options",
    "Replication / Primary Server",
    "Reporting and Logging / Process Title",
    "Reporting and Logging / Where to Log",
    "Write-Ahead Log / Archiv",
    "Write-Ahead Log / Recovery",
)
RESERVED = frozenset(
    {
        "dynamic_library_path",
        "extension_control_path",
        "fsync",
        "full_page_writes",
        "output_plugin_libraries",
        "primary_conninfo",
        "primary_slot_name",
        "wal_level",
        "wal_log_hints",
    }
)
#: In one of those categories, and allowed.
NOT_RESERVED = frozenset({"max_connections", "password_encryption"})


def checked_flags(rows: Iterable[Mapping[str, Any]], settings: Mapping[str, Setting]) -> dict[str, str]:
    """`databaseFlags` as a mapping.

    Raises:
        InvalidArgument: a flag that the version does not have or that nobody may set, or a value it does not take.
    """
    flags: dict[str, str] = {}
    # Postgres writes TimeZone and DateStyle, Cloud SQL does not.
    by_name = {name.lower(): setting for name, setting in settings.items()}
    for row in rows:
        name, value = str(row.get("name", "")), str(row.get("value", ""))
        if name in flags:
            raise InvalidArgument(f"Invalid request: flag {name} is given twice.", reason="invalid")
        kind = CLOUD_SQL_FLAGS.get(name)
        if kind is not None:
            check_value(Setting(name=name, context="postmaster", vartype=kind), value)
        elif not name.startswith(EXTENSION_PREFIXES):
            setting = by_name.get(name.lower())
            if setting is None or is_reserved(setting):
                raise InvalidArgument(f"Flag requested is not valid: {name}.", reason="invalidFlagName")
            check_value(setting, value)
        flags[name] = value
    return flags


def is_reserved(setting: Setting) -> bool:
    if setting.name in NOT_RESERVED:
        return False
    return setting.name in RESERVED or setting.category.startswith(RESERVED_CATEGORIES) or setting.context == "internal"


def check_value(setting: Setting, value: str) -> None:
    problem = ""
    if setting.vartype == "bool":
        if value not in ("on", "off"):
            problem = "choose on or off"
    elif setting.vartype == "enum":
        if value not in setting.choices:
            problem = f"choose one of {', '.join(setting.choices)}"
    elif setting.vartype in ("integer", "real"):
        # Cloud SQL takes plain numbers, in the unit of the flag: `64MB` is for postgresql.conf.
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        least = -math.inf if setting.minimum is None else setting.minimum
        most = math.inf if setting.maximum is None else setting.maximum
        if not least <= number <= most or (setting.vartype == "integer" and not number.is_integer()):
            problem = f"choose a number from {least:.15g} to {most:.15g}" + (
                f", in {setting.unit}" if setting.unit else ""
            )
    if problem:
        raise InvalidArgument(
            f"Value requested is not valid: {value!r} for flag {setting.name}: {problem}.", reason="invalidFlagValue"
        )


def needs_restart(before: Mapping[str, str], after: Mapping[str, str], settings: Mapping[str, Setting]) -> bool:
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return any(name in settings and settings[name].context == "postmaster" for name in changed)
