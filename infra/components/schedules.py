"""Cloud Scheduler jobs: one per row of `app.schedules.SCHEDULES`, each a POST to the worker by its own account."""

from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from app.schedules import SCHEDULES, ScheduleSpec
from infra.components.component import Component


@dataclass(frozen=True, kw_only=True)
class SchedulesArgs:
    project: str
    location: str
    time_zone: str
    worker_url: pulumi.Output[str]
    scheduler_email: pulumi.Output[str]
    specs: tuple[ScheduleSpec, ...] = SCHEDULES


class Schedules(Component):
    name_by_schedule: dict[str, pulumi.Output[str]]

    def __init__(self, name: str, args: SchedulesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        self.name_by_schedule = {}
        for spec in args.specs:
            job = gcp.cloudscheduler.Job(
                f"{name}-{spec.name}",
                name=spec.name,
                project=args.project,
                region=args.location,
                schedule=spec.cron,
                time_zone=args.time_zone if spec.is_regional else "Etc/UTC",
                attempt_deadline=f"{spec.attempt_deadline_seconds}s",
                # Cloud Scheduler's own defaults (reference of jobs, v1: retryConfig) are stated: one that holds nothing
                # but a retryCount of 0 is answered as none, and every preview would want to add it again.
                retry_config={
                    "retry_count": spec.retry_count,
                    "min_backoff_duration": "5s",
                    "max_backoff_duration": "3600s",
                    "max_retry_duration": "0s",
                    "max_doublings": 5,
                },
                http_target={
                    "uri": pulumi.Output.concat(args.worker_url, spec.path),
                    "http_method": "POST",
                    "oidc_token": {
                        "service_account_email": args.scheduler_email,
                        # Stated: without, the audience would be the address with its path.
                        "audience": args.worker_url,
                    },
                },
                opts=self.child,
            )
            self.name_by_schedule[spec.name] = job.name
        self.register_outputs({"name_by_schedule": self.name_by_schedule})
