"""One service account per workload. Grants are made beside the resource they are for; here are only those that Google
offers for a project alone. No account has keys: workloads get their tokens from where they run.
"""

from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_gcp as gcp

from infra.components.component import Component

WORKLOADS: Final = {
    "web": "Serves pages and the API",
    "worker": "Runs validations and internal tasks",
    "tasks": "Cloud Tasks calls the worker as this account",
    "scheduler": "Cloud Scheduler calls the worker as this account",
    "migrate": "Owns the database schema",
    "build": "Builds images",
    "backup": "Takes and checks backups",
}

# An instance of Cloud SQL has no policy of its own, so logging in to one is granted for the project, which has one.
DATABASE_WORKLOADS: Final = ("web", "worker", "migrate")
DATABASE_ROLES: Final = ("roles/cloudsql.client", "roles/cloudsql.instanceUser")


@dataclass(frozen=True, kw_only=True)
class IdentityArgs:
    project: str


class Identity(Component):
    email_by_workload: dict[str, pulumi.Output[str]]
    member_by_workload: dict[str, pulumi.Output[str]]
    account_by_workload: dict[str, pulumi.Output[str]]
    database_grants: list[pulumi.Resource]
    build_log_grant: pulumi.Resource

    def __init__(self, name: str, args: IdentityArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        accounts = {
            workload: gcp.serviceaccount.Account(
                f"{name}-{workload}",
                project=args.project,
                account_id=f"validibot-{workload}",
                display_name=f"Validibot {workload}",
                description=description,
                opts=self.child,
            )
            for workload, description in WORKLOADS.items()
        }
        self.email_by_workload = {workload: account.email for workload, account in accounts.items()}
        self.member_by_workload = {workload: account.member for workload, account in accounts.items()}
        self.account_by_workload = {workload: account.name for workload, account in accounts.items()}
        self.database_grants = [
            gcp.projects.IAMMember(
                f"{name}-{workload}-{role.rpartition('.')[2]}",
                project=args.project,
                role=role,
                member=accounts[workload].member,
                opts=self.child,
            )
            for workload in DATABASE_WORKLOADS
            for role in DATABASE_ROLES
        ]
        for workload in ("web", "worker"):
            # A signed URL is signed by the account itself, through IAM, because it has no key of its own.
            gcp.serviceaccount.IAMMember(
                f"{name}-{workload}-signs",
                service_account_id=accounts[workload].name,
                role="roles/iam.serviceAccountTokenCreator",
                member=accounts[workload].member,
                opts=self.child,
            )
        # A build writes its log as its own account, and log entries have no resource that could carry the grant.
        self.build_log_grant = gcp.projects.IAMMember(
            f"{name}-build-log-writer",
            project=args.project,
            role="roles/logging.logWriter",
            member=accounts["build"].member,
            opts=self.child,
        )
        self.register_outputs({"email_by_workload": self.email_by_workload})
