"""Cloud SQL: a private instance, its database, and users that log in as service accounts.

No workload has a password. The migrate account owns the schema; web and worker get rights on rows from the migration
itself, because only PostgreSQL knows its tables. There is one password, for the day when IAM is what is broken.
"""

from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_gcp as gcp

from infra.components.component import Component
from infra.regions import RegionSpec
from infra.settings import DatabaseSettings

DATABASE_VERSION: Final = "POSTGRES_18"
DATABASE_NAME: Final = "validibot"
BREAK_GLASS_USER: Final = "break-glass"


@dataclass(frozen=True, kw_only=True)
class DatabaseArgs:
    project: str
    region: RegionSpec
    settings: DatabaseSettings
    max_connections: int
    deletion_protection: bool
    labels: dict[str, str]
    network: pulumi.Output[str]
    services_range: pulumi.Output[str]
    email_by_workload: dict[str, pulumi.Output[str]]
    break_glass_password: pulumi.Output[str]


class Database(Component):
    """`user_by_workload` is what a workload logs in as: its account's email without `.gserviceaccount.com`."""

    connection_name: pulumi.Output[str]
    instance_name: pulumi.Output[str]
    database_name: pulumi.Output[str]
    user_by_workload: dict[str, pulumi.Output[str]]
    break_glass_user: pulumi.Output[str]
    users: list[pulumi.Resource]

    def __init__(self, name: str, args: DatabaseArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        settings, region = args.settings, args.region
        instance = gcp.sql.DatabaseInstance(
            f"{name}-pg",
            name=f"{args.project}-pg",
            project=args.project,
            region=region.location,
            database_version=DATABASE_VERSION,
            # Twice: Pulumi refuses to plan a deletion, and Google refuses one from the console.
            deletion_protection=args.deletion_protection,
            settings={
                "tier": settings.tier,
                "edition": settings.edition,
                "activation_policy": "ALWAYS",
                "availability_type": settings.availability,
                "deletion_protection_enabled": args.deletion_protection,
                "disk_type": "PD_SSD",
                "disk_size": settings.disk_size_gb,
                "disk_autoresize": True,
                # Without a ceiling a runaway query buys disk that can never be given back.
                "disk_autoresize_limit": settings.disk_max_gb,
                "user_labels": args.labels,
                "backup_configuration": {
                    "enabled": True,
                    "location": region.location,
                    "start_time": region.backup_start_utc,
                    "point_in_time_recovery_enabled": True,
                    "transaction_log_retention_days": settings.transaction_log_retention_days,
                    "backup_retention_settings": {
                        "retained_backups": settings.retained_backups,
                        "retention_unit": "COUNT",
                    },
                },
                "ip_configuration": {
                    "ipv4_enabled": False,
                    "private_network": args.network,
                    "allocated_ip_range": args.services_range,
                    "ssl_mode": "ENCRYPTED_ONLY",
                },
                "maintenance_window": {
                    "day": region.maintenance_day,
                    "hour": region.maintenance_hour,
                    "update_track": "stable",
                },
                "insights_config": {
                    "query_insights_enabled": True,
                    "query_plans_per_minute": 5,
                    "query_string_length": 1024,
                    "record_application_tags": True,
                    # Whoever asked is in the request log; the address of a Cloud Run instance says nothing.
                    "record_client_address": False,
                },
                "database_flags": [
                    {"name": "cloudsql.iam_authentication", "value": "on"},
                    {"name": "log_min_duration_statement", "value": "1000"},
                    {"name": "max_connections", "value": str(args.max_connections)},
                ],
            },
            opts=self.child_with(pulumi.ResourceOptions(protect=args.deletion_protection)),
        )
        database = gcp.sql.Database(
            f"{name}-database",
            name=DATABASE_NAME,
            project=args.project,
            instance=instance.name,
            # It goes with its instance. Dropping it by itself fails while anybody is connected.
            deletion_policy="ABANDON",
            opts=self.child_with(pulumi.ResourceOptions(protect=args.deletion_protection)),
        )
        users = {
            workload: gcp.sql.User(
                f"{name}-{workload}",
                name=email.apply(lambda text: text.removesuffix(".gserviceaccount.com")),
                project=args.project,
                instance=instance.name,
                type="CLOUD_IAM_SERVICE_ACCOUNT",
                database_roles=["cloudsqlsuperuser"] if workload == "migrate" else None,
                # PostgreSQL does not drop a role that owns tables or holds rights.
                deletion_policy="ABANDON",
                opts=self.child,
            )
            for workload, email in args.email_by_workload.items()
        }
        break_glass = gcp.sql.User(
            f"{name}-break-glass",
            name=BREAK_GLASS_USER,
            project=args.project,
            instance=instance.name,
            type="BUILT_IN",
            password=args.break_glass_password,
            deletion_policy="ABANDON",
            opts=self.child,
        )
        self.connection_name = instance.connection_name
        self.instance_name = instance.name
        self.database_name = database.name
        self.users = [*users.values(), break_glass]
        self.break_glass_user = break_glass.name
        self.user_by_workload = {workload: user.name for workload, user in users.items()}
        self.register_outputs({"connection_name": self.connection_name})
