"""The project: enabled APIs, audit logs, and logs that stay in the region.

The project itself is not created here. It needs an organisation or a billing account that the stack must not be able to
touch, and a `destroy` must never take a project with it.
"""

from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from infra.components.component import Component

APIS = (
    "artifactregistry.googleapis.com",
    "certificatemanager.googleapis.com",
    "cloudbuild.googleapis.com",
    "cloudresourcemanager.googleapis.com",
    "cloudscheduler.googleapis.com",
    "cloudtasks.googleapis.com",
    "compute.googleapis.com",
    "iam.googleapis.com",
    "iamcredentials.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "run.googleapis.com",
    "secretmanager.googleapis.com",
    "servicenetworking.googleapis.com",
    "sqladmin.googleapis.com",
    "storage.googleapis.com",
)


@dataclass(frozen=True, kw_only=True)
class ProjectArgs:
    project: str
    location: str
    log_retention_days: int
    apis: tuple[str, ...] = APIS


class Project(Component):
    """Others depend on this component as a whole: an API that is not enabled yet refuses every call."""

    log_bucket: pulumi.Output[str]

    def __init__(self, name: str, args: ProjectArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        enabled = [
            gcp.projects.Service(
                f"{name}-{api.partition('.')[0]}",
                project=args.project,
                service=api,
                # Switching an API off deletes what it holds, and something outside the stack may use it.
                disable_on_destroy=False,
                opts=self.child,
            )
            for api in args.apis
        ]
        after_apis = self.child_with(pulumi.ResourceOptions(depends_on=enabled))
        gcp.projects.IAMAuditConfig(
            f"{name}-audit",
            project=args.project,
            service="allServices",
            audit_log_configs=[{"log_type": kind} for kind in ("ADMIN_READ", "DATA_READ", "DATA_WRITE")],
            opts=after_apis,
        )
        bucket = gcp.logging.ProjectBucketConfig(
            f"{name}-logs",
            project=args.project,
            location=args.location,
            bucket_id="validibot",
            description="Logs of this region's workloads",
            retention_days=args.log_retention_days,
            opts=after_apis,
        )
        # Google's own _Default sink writes to a bucket whose location is `global`. Pointing it at ours keeps
        # what users send, and what it says in tracebacks, in the data region.
        gcp.logging.ProjectSink(
            f"{name}-default-sink",
            name="_Default",
            project=args.project,
            destination=pulumi.Output.format(
                "logging.googleapis.com/projects/{0}/locations/{1}/buckets/{2}",
                args.project,
                args.location,
                bucket.bucket_id,
            ),
            filter=(
                'NOT LOG_ID("cloudaudit.googleapis.com/activity") AND '
                'NOT LOG_ID("externalaudit.googleapis.com/activity") AND '
                'NOT LOG_ID("cloudaudit.googleapis.com/system_event") AND '
                'NOT LOG_ID("externalaudit.googleapis.com/system_event") AND '
                'NOT LOG_ID("cloudaudit.googleapis.com/access_transparency") AND '
                'NOT LOG_ID("externalaudit.googleapis.com/access_transparency")'
            ),
            unique_writer_identity=True,
            opts=after_apis,
        )
        self.log_bucket = bucket.id
        self.register_outputs({"log_bucket": self.log_bucket})
