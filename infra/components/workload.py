"""What services and jobs of the app image have in common: environment, database socket, network."""

from dataclasses import dataclass
from typing import Any

import pulumi

from infra.components.secrets import PinnedSecret

CLOUD_SQL_MOUNT = "/cloudsql"
# Who signs callback addresses and checks callbacks.
CALLBACK_WORKLOADS = ("web", "worker")
# Who signs credentials. The web service lists the public keys, which are in the database.
CREDENTIAL_WORKLOADS = ("worker",)


@dataclass(frozen=True, kw_only=True)
class AppArgs:
    """The app image in this region, whatever it is started as."""

    project: str
    data_region: str
    public_host: str
    log_level: str
    image: pulumi.Output[str]
    release: str
    network: pulumi.Output[str]
    subnetwork: pulumi.Output[str]
    connection_name: pulumi.Output[str]
    database_name: pulumi.Output[str]
    user_by_workload: dict[str, pulumi.Output[str]]
    bucket_by_purpose: dict[str, pulumi.Output[str]]
    django_key: PinnedSecret
    callback_keys: PinnedSecret
    credential_key: PinnedSecret
    location: str
    worker_url: pulumi.Output[str]
    email_by_workload: dict[str, pulumi.Output[str]]

    def environment(self, role: str, workload: str, **more: pulumi.Input[str]) -> list[Any]:
        """`role` is what the image is started as, `workload` the account it runs as."""
        clear: dict[str, pulumi.Input[str]] = {
            "GOOGLE_CLOUD_PROJECT": self.project,
            "VALIDIBOT_DATA_REGION": self.data_region,
            "VALIDIBOT_DATABASE_HOST": self.connection_name.apply(lambda name: f"{CLOUD_SQL_MOUNT}/{name}"),
            "VALIDIBOT_DATABASE_NAME": self.database_name,
            "VALIDIBOT_DATABASE_USER": self.user_by_workload[workload],
            "VALIDIBOT_LOCATION": self.location,
            "VALIDIBOT_LOG_LEVEL": self.log_level,
            "VALIDIBOT_MEDIA_BUCKET": self.bucket_by_purpose["media"],
            "VALIDIBOT_PUBLIC_HOST": self.public_host,
            "VALIDIBOT_RELEASE": self.release,
            "VALIDIBOT_ROLE": role,
            "VALIDIBOT_SCHEDULER_SERVICE_ACCOUNT": self.email_by_workload["scheduler"],
            "VALIDIBOT_STATIC_BUCKET": self.bucket_by_purpose["static"],
            "VALIDIBOT_TASKS_SERVICE_ACCOUNT": self.email_by_workload["tasks"],
            "VALIDIBOT_WORKER_URL": self.worker_url,
            **more,
        }
        secret = {"DJANGO_SECRET_KEY": self.django_key}
        if workload in CALLBACK_WORKLOADS:
            secret["VALIDIBOT_CALLBACK_KEYS"] = self.callback_keys
        # A job may run as the worker, and signs nothing.
        if role in CREDENTIAL_WORKLOADS:
            secret["VALIDIBOT_CREDENTIAL_KEY"] = self.credential_key
        # Sorted: Cloud Run answers in its own order, and a diff of two orders would never end.
        return [
            *(
                {
                    "name": name,
                    "value_source": {
                        "secret_key_ref": {"secret": secret[name].secret, "version": secret[name].version}
                    },
                }
                for name in sorted(secret)
            ),
            *({"name": name, "value": clear[name]} for name in sorted(clear)),
        ]

    @property
    def vpc_access(self) -> Any:
        return {
            "egress": "PRIVATE_RANGES_ONLY",
            "network_interfaces": [{"network": self.network, "subnetwork": self.subnetwork}],
        }

    @property
    def volumes(self) -> list[Any]:
        return [{"name": "cloudsql", "cloud_sql_instance": {"instances": [self.connection_name]}}]

    @property
    def volume_mounts(self) -> list[Any]:
        return [{"name": "cloudsql", "mount_path": CLOUD_SQL_MOUNT}]
