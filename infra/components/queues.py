"""Cloud Tasks queues: one per row of `app.queues.QUEUES`, each with its dead-letter queue, and who may do what."""

from dataclasses import dataclass
from typing import Any, Final

import pulumi
import pulumi_gcp as gcp

from app.queues import QUEUES, QueueSpec
from infra.components.component import Component

ENQUEUERS: Final = ("web", "worker")
# The worker also looks whether a task is still there, and parks, reads back and removes dead letters.
WORKER_ROLES: Final = ("roles/cloudtasks.viewer",)
WORKER_DEAD_LETTER_ROLES: Final = (
    "roles/cloudtasks.enqueuer",
    "roles/cloudtasks.viewer",
    "roles/cloudtasks.taskDeleter",
)


@dataclass(frozen=True, kw_only=True)
class QueuesArgs:
    project: str
    location: str
    deletion_protection: bool
    member_by_workload: dict[str, pulumi.Output[str]]
    tasks_account: pulumi.Output[str]
    """Resource name of the account that tasks are delivered as."""

    specs: tuple[QueueSpec, ...] = QUEUES


class Queues(Component):
    """`path_by_name` maps a row's name to the full resource name that Google's clients take as `parent`."""

    path_by_name: dict[str, pulumi.Output[str]]
    grants: list[pulumi.Resource]
    """What a workload has to wait for before it can enqueue."""

    def __init__(self, name: str, args: QueuesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        self.args = args
        self.grants = []
        self.path_by_name = {}
        for spec in args.specs:
            queue = self.queue(
                f"{name}-{spec.name}",
                spec.name,
                rate_limits={
                    "max_dispatches_per_second": spec.max_dispatches_per_second,
                    "max_concurrent_dispatches": spec.max_concurrent_dispatches,
                },
                retry_config={
                    "max_attempts": spec.max_attempts,
                    "min_backoff": f"{spec.min_backoff_seconds}s",
                    "max_backoff": f"{spec.max_backoff_seconds}s",
                    "max_doublings": spec.max_doublings,
                },
            )
            # Cloud Tasks drops a task that runs out of attempts. Ours are parked here: a paused queue dispatches
            # nothing, so a parked task waits until somebody decides.
            dead_letters = self.queue(f"{name}-{spec.dead_letter_name}", spec.dead_letter_name, desired_state="PAUSED")
            for workload in ENQUEUERS:
                self.grant(f"{name}-{spec.name}", queue, workload, "roles/cloudtasks.enqueuer")
            for role in WORKER_ROLES:
                self.grant(f"{name}-{spec.name}", queue, "worker", role)
            for role in WORKER_DEAD_LETTER_ROLES:
                self.grant(f"{name}-{spec.dead_letter_name}", dead_letters, "worker", role)
            self.path_by_name[spec.name] = queue.id
        for workload in ENQUEUERS:
            # A task carries the identity that delivers it, so whoever enqueues must be allowed to act as it.
            acting = gcp.serviceaccount.IAMMember(
                f"{name}-{workload}-acts-as-tasks",
                service_account_id=args.tasks_account,
                role="roles/iam.serviceAccountUser",
                member=args.member_by_workload[workload],
                opts=self.child,
            )
            self.grants.append(acting)
        self.register_outputs({"path_by_name": self.path_by_name})

    def queue(self, name: str, queue_name: str, **more: Any) -> gcp.cloudtasks.Queue:
        return gcp.cloudtasks.Queue(
            name,
            name=queue_name,
            project=self.args.project,
            location=self.args.location,
            # A deleted queue's name stays unusable for up to three days, and its tasks are gone at once
            # (cloudtasks v2, queues.delete). Replacing one is a decision, never the side effect of a diff.
            opts=self.child_with(pulumi.ResourceOptions(protect=self.args.deletion_protection)),
            **more,
        )

    def grant(self, name: str, queue: gcp.cloudtasks.Queue, workload: str, role: str) -> None:
        grant = gcp.cloudtasks.QueueIamMember(
            f"{name}-{workload}-{role.rpartition('.')[2]}",
            name=queue.name,
            project=self.args.project,
            location=self.args.location,
            role=role,
            member=self.args.member_by_workload[workload],
            opts=self.child,
        )
        self.grants.append(grant)
