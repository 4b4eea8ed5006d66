"""Cloud Run jobs of the app image: `migrate`, which runs before a new revision, and `maintenance`, for the operator."""

from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_gcp as gcp

from infra.components.component import Component
from infra.components.workload import AppArgs
from infra.job_run import JobRun

MIGRATE_TIMEOUT_SECONDS: Final = 1800
MAINTENANCE_TIMEOUT_SECONDS: Final = 3600


@dataclass(frozen=True, kw_only=True)
class JobsArgs:
    app: AppArgs
    location: str
    labels: dict[str, str]
    deletion_protection: bool
    email_by_workload: dict[str, pulumi.Output[str]]
    row_users: list[pulumi.Output[str]]
    """Who reads and writes rows. The migration grants it, table by table."""
    ready: list[pulumi.Resource]


class Jobs(Component):
    """`migration` is done when the schema is the one that the image expects."""

    name_by_purpose: dict[str, pulumi.Output[str]]
    migration: JobRun

    def __init__(self, name: str, args: JobsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        self.args = args
        migrate = self.job(
            "migrate",
            workload="migrate",
            command=["migrate_region"],
            timeout_seconds=MIGRATE_TIMEOUT_SECONDS,
            VALIDIBOT_DATABASE_ROW_USERS=pulumi.Output.all(*args.row_users).apply(",".join),
        )
        # What it runs is said when it is run; by itself it only lists what could be.
        maintenance = self.job(
            "maintenance", workload="worker", command=["help"], timeout_seconds=MAINTENANCE_TIMEOUT_SECONDS
        )
        self.migration = JobRun(
            f"{name}-migration",
            project=args.app.project,
            location=args.location,
            job=migrate.name,
            image=args.app.image,
            database=args.app.connection_name,
            timeout_seconds=MIGRATE_TIMEOUT_SECONDS,
            opts=self.child_with(pulumi.ResourceOptions(depends_on=[migrate])),
        )
        self.name_by_purpose = {"migrate": migrate.name, "maintenance": maintenance.name}
        self.register_outputs({"name_by_purpose": self.name_by_purpose})

    def job(
        self, purpose: str, workload: str, command: list[str], timeout_seconds: int, **environment: pulumi.Input[str]
    ) -> gcp.cloudrunv2.Job:
        args, app = self.args, self.args.app
        return gcp.cloudrunv2.Job(
            f"validibot-{purpose}",
            name=f"validibot-{purpose}",
            project=app.project,
            location=args.location,
            launch_stage="GA",
            deletion_protection=args.deletion_protection,
            labels=args.labels,
            template={
                "task_count": 1,
                "parallelism": 1,
                "template": {
                    "service_account": args.email_by_workload[workload],
                    "execution_environment": "EXECUTION_ENVIRONMENT_GEN2",
                    "timeout": f"{timeout_seconds}s",
                    # A command that failed half-way is looked at before it runs again.
                    "max_retries": 0,
                    "vpc_access": app.vpc_access,
                    "volumes": app.volumes,
                    "containers": [
                        {
                            "image": app.image,
                            # Only the arguments can be overridden for one execution: it is always a command of the app.
                            "commands": ["python", "-m", "app"],
                            "args": command,
                            "envs": app.environment("job", workload, VALIDIBOT_DATABASE_POOL_MAX="2", **environment),
                            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                            "volume_mounts": app.volume_mounts,
                        }
                    ],
                },
            },
            opts=self.child_with(pulumi.ResourceOptions(depends_on=args.ready)),
        )
