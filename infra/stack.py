"""RegionalStack: the one place that wires components. Read from top to bottom it is the architecture diagram."""

from typing import Any

import pulumi

from infra.components.database import Database, DatabaseArgs
from infra.components.edge import Edge, EdgeArgs
from infra.components.identity import DATABASE_WORKLOADS, Identity, IdentityArgs
from infra.components.images import Images, ImagesArgs
from infra.components.jobs import Jobs, JobsArgs
from infra.components.network import Network, NetworkArgs
from infra.components.project import Project, ProjectArgs
from infra.components.queues import Queues, QueuesArgs
from infra.components.schedules import Schedules, SchedulesArgs
from infra.components.secrets import Secrets, SecretsArgs
from infra.components.services import Services, ServicesArgs
from infra.components.storage import Storage, StorageArgs
from infra.components.workload import CALLBACK_WORKLOADS, CREDENTIAL_WORKLOADS, AppArgs
from infra.settings import StackSettings


class RegionalStack(pulumi.ComponentResource):
    """`exports` is what runbooks and people read: JSON, and no secret in it."""

    exports: dict[str, Any]

    def __init__(self, name: str, settings: StackSettings, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("validibot:infra:RegionalStack", name, None, opts)
        project_id, location = settings.project_id, settings.region.location
        inside = pulumi.ResourceOptions(parent=self)

        project = Project(
            "project",
            ProjectArgs(project=project_id, location=location, log_retention_days=settings.log_retention_days),
            inside,
        )
        in_project = pulumi.ResourceOptions(parent=self, depends_on=[project])

        network = Network("network", NetworkArgs(project=project_id, location=location), in_project)
        identity = Identity("identity", IdentityArgs(project=project_id), in_project)
        secrets = Secrets(
            "secrets",
            SecretsArgs(
                project=project_id,
                location=location,
                labels=settings.labels,
                django_key_readers={
                    workload: identity.member_by_workload[workload] for workload in ("web", "worker", "migrate")
                },
                callback_key_readers={
                    workload: identity.member_by_workload[workload] for workload in CALLBACK_WORKLOADS
                },
                credential_key_readers={
                    workload: identity.member_by_workload[workload] for workload in CREDENTIAL_WORKLOADS
                },
            ),
            in_project,
        )
        database = Database(
            "database",
            DatabaseArgs(
                project=project_id,
                region=settings.region,
                settings=settings.database,
                max_connections=settings.max_connections,
                deletion_protection=settings.deletion_protection,
                labels=settings.labels,
                network=network.network,
                services_range=network.services_range,
                email_by_workload={workload: identity.email_by_workload[workload] for workload in DATABASE_WORKLOADS},
                break_glass_password=secrets.break_glass_password,
            ),
            pulumi.ResourceOptions(parent=self, depends_on=[project, network.peering]),
        )
        storage = Storage(
            "storage",
            StorageArgs(
                project=project_id,
                storage_location=settings.region.storage_location,
                public_host=settings.host,
                deletion_protection=settings.deletion_protection,
                labels=settings.labels,
                member_by_workload=identity.member_by_workload,
            ),
            in_project,
        )
        queues = Queues(
            "queues",
            QueuesArgs(
                project=project_id,
                location=location,
                deletion_protection=settings.deletion_protection,
                member_by_workload=identity.member_by_workload,
                tasks_account=identity.account_by_workload["tasks"],
            ),
            in_project,
        )
        # Known before the worker exists, which names it in its own environment (Cloud Run, "Deterministic URLs").
        worker_url = pulumi.Output.format("https://validibot-worker-{0}.{1}.run.app", storage.project_number, location)
        images = Images(
            "images",
            ImagesArgs(
                project=project_id,
                location=location,
                labels=settings.labels,
                source_bucket=storage.bucket_by_purpose["build-source"],
                build_email=identity.email_by_workload["build"],
                build_member=identity.member_by_workload["build"],
                build_grants=[*storage.grants, identity.build_log_grant],
            ),
            in_project,
        )
        app = AppArgs(
            project=project_id,
            data_region=settings.data_region.value,
            public_host=settings.host,
            log_level=settings.log_level,
            image=images.image_by_name["app"],
            release=images.content_hash_by_name["app"][:20],
            network=network.network,
            subnetwork=network.subnetwork,
            connection_name=database.connection_name,
            database_name=database.database_name,
            user_by_workload=database.user_by_workload,
            bucket_by_purpose=storage.bucket_by_purpose,
            django_key=secrets.django_key,
            callback_keys=secrets.callback_keys,
            credential_key=secrets.credential_key,
            location=location,
            worker_url=worker_url,
            email_by_workload=identity.email_by_workload,
        )
        allowed = [*identity.database_grants, *secrets.readers, *storage.grants, *database.users, *queues.grants]
        jobs = Jobs(
            "jobs",
            JobsArgs(
                app=app,
                location=location,
                labels=settings.labels,
                deletion_protection=settings.deletion_protection,
                email_by_workload=identity.email_by_workload,
                # Whoever breaks the glass comes to mend rows.
                row_users=[
                    database.user_by_workload["web"],
                    database.user_by_workload["worker"],
                    database.break_glass_user,
                ],
                ready=allowed,
            ),
            in_project,
        )
        services = Services(
            "services",
            ServicesArgs(
                app=app,
                location=location,
                labels=settings.labels,
                deletion_protection=settings.deletion_protection,
                web=settings.web,
                worker=settings.worker,
                email_by_workload=identity.email_by_workload,
                member_by_workload=identity.member_by_workload,
                # The migration last: a revision that expects another schema must not get traffic before it.
                ready=[*allowed, jobs.migration],
            ),
            in_project,
        )
        schedules = Schedules(
            "schedules",
            SchedulesArgs(
                project=project_id,
                location=location,
                time_zone=settings.region.time_zone,
                worker_url=worker_url,
                scheduler_email=identity.email_by_workload["scheduler"],
            ),
            # What they call must be there, and let them in.
            pulumi.ResourceOptions(parent=self, depends_on=[project, services]),
        )
        edge = Edge(
            "edge",
            EdgeArgs(
                project=project_id,
                location=location,
                public_host=settings.host,
                labels=settings.labels,
                web_service=services.name_by_role["web"],
                static_bucket=storage.bucket_by_purpose["static"],
            ),
            in_project,
        )

        self.exports = {
            "project": project_id,
            "data_region": settings.data_region.value,
            "location": location,
            "front_door": {
                "host": settings.host,
                "address": edge.address,
                "certificate_record": edge.certificate_record,
            },
            "services": {
                role: {"name": services.name_by_role[role], "uri": services.uri_by_role[role]}
                for role in ("web", "worker")
            },
            "worker_url": worker_url,
            "queues": queues.path_by_name,
            "schedules": schedules.name_by_schedule,
            "jobs": jobs.name_by_purpose,
            "buckets": storage.bucket_by_purpose,
            "database": {
                "instance": database.instance_name,
                "connection_name": database.connection_name,
                "name": database.database_name,
                "user_by_workload": database.user_by_workload,
            },
            "images": images.image_by_name,
            "service_accounts": identity.email_by_workload,
        }
        self.register_outputs({})
