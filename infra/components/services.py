"""Cloud Run services: web behind the load balancer, worker behind identities. One image in two roles."""

from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from infra.components.component import Component
from infra.components.workload import AppArgs
from infra.settings import ServiceSettings

PORT = 8080


@dataclass(frozen=True, kw_only=True)
class ServicesArgs:
    app: AppArgs
    location: str
    labels: dict[str, str]
    deletion_protection: bool
    web: ServiceSettings
    worker: ServiceSettings
    email_by_workload: dict[str, pulumi.Output[str]]
    member_by_workload: dict[str, pulumi.Output[str]]
    ready: list[pulumi.Resource]
    """What a new revision waits for: the migration, and everything that it is allowed to do."""


class Services(Component):
    name_by_role: dict[str, pulumi.Output[str]]
    uri_by_role: dict[str, pulumi.Output[str]]

    def __init__(self, name: str, args: ServicesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        self.args = args
        web = self.serve("web", args.web, ingress="INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER")
        worker = self.serve(
            "worker",
            args.worker,
            ingress="INGRESS_TRAFFIC_INTERNAL_ONLY",
            # The worker's tokens are for this address, which its own environment names. It is one of the service's
            # addresses anyway; stated as an audience, it does not matter which of them Google calls the first.
            custom_audiences=[args.app.worker_url],
        )
        # The site is public; what is not, the app itself asks a key for. Ingress lets only the load balancer through.
        self.invoke("web", web, "public", "allUsers")
        for workload in ("tasks", "scheduler"):
            self.invoke("worker", worker, workload, args.member_by_workload[workload])
        services = {"web": web, "worker": worker}
        self.name_by_role = {role: service.name for role, service in services.items()}
        self.uri_by_role = {role: service.uri for role, service in services.items()}
        self.register_outputs({"name_by_role": self.name_by_role, "uri_by_role": self.uri_by_role})

    def serve(
        self,
        role: str,
        settings: ServiceSettings,
        ingress: str,
        custom_audiences: list[pulumi.Input[str]] | None = None,
    ) -> gcp.cloudrunv2.Service:
        args, app = self.args, self.args.app
        return gcp.cloudrunv2.Service(
            f"validibot-{role}",
            name=f"validibot-{role}",
            project=app.project,
            location=args.location,
            ingress=ingress,
            custom_audiences=custom_audiences,
            # Stated, because an unset stage comes back as what Google worked out and is then a difference.
            launch_stage="GA",
            deletion_protection=args.deletion_protection,
            labels=args.labels,
            template={
                "service_account": args.email_by_workload[role],
                "execution_environment": "EXECUTION_ENVIRONMENT_GEN2",
                "timeout": f"{settings.timeout_seconds}s",
                # One more request than there are threads would wait inside an instance while another one is idle.
                "max_instance_request_concurrency": settings.concurrency,
                "scaling": {
                    "min_instance_count": settings.min_instances,
                    "max_instance_count": settings.max_instances,
                },
                "vpc_access": app.vpc_access,
                "volumes": app.volumes,
                "containers": [
                    {
                        "image": app.image,
                        "ports": {"container_port": PORT},
                        "envs": app.environment(
                            role,
                            role,
                            VALIDIBOT_DATABASE_POOL_MAX=str(settings.threads),
                            WEB_THREADS=str(settings.threads),
                            WEB_WORKERS=str(settings.workers),
                        ),
                        "resources": {
                            "limits": {"cpu": settings.cpu, "memory": settings.memory},
                            "cpu_idle": True,
                            "startup_cpu_boost": True,
                        },
                        "volume_mounts": app.volume_mounts,
                        # Ready means that the database answers: a revision that cannot log in gets no traffic.
                        "startup_probe": {
                            "http_get": {"path": "/readyz", "port": PORT},
                            "period_seconds": 2,
                            "timeout_seconds": 2,
                            "failure_threshold": 60,
                        },
                        # Alive is asked without the database: restarting every instance would not mend it.
                        "liveness_probe": {
                            "http_get": {"path": "/healthz", "port": PORT},
                            "period_seconds": 15,
                            "timeout_seconds": 5,
                            "failure_threshold": 3,
                        },
                    }
                ],
            },
            traffics=[{"type": "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST", "percent": 100}],
            opts=self.child_with(pulumi.ResourceOptions(depends_on=args.ready)),
        )

    def invoke(
        self, role: str, service: gcp.cloudrunv2.Service, caller: str, member: pulumi.Input[str]
    ) -> gcp.cloudrunv2.ServiceIamMember:
        return gcp.cloudrunv2.ServiceIamMember(
            f"validibot-{role}-{caller}-invokes",
            name=service.name,
            project=self.args.app.project,
            location=self.args.location,
            role="roles/run.invoker",
            member=member,
            opts=self.child,
        )
