"""The network: one VPC, one subnetwork for Cloud Run, and the peering that Cloud SQL's private address lives behind.

No default network, no NAT and no connector: workloads reach the VPC directly (Direct VPC egress) and the internet
without it, so nothing here routes a public address.
"""

from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from infra.components.component import Component

# Direct VPC egress takes two addresses for each running instance and keeps them a while after it has ended.
RUN_RANGE = "10.8.0.0/22"
SERVICES_PREFIX_LENGTH = 20


@dataclass(frozen=True, kw_only=True)
class NetworkArgs:
    project: str
    location: str


class Network(Component):
    """`services_range` can be used once `peering` is there, which is what a private Cloud SQL instance waits for."""

    network: pulumi.Output[str]
    subnetwork: pulumi.Output[str]
    services_range: pulumi.Output[str]
    peering: gcp.servicenetworking.Connection

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        network = gcp.compute.Network(
            f"{name}-vpc",
            name=args.project,
            project=args.project,
            auto_create_subnetworks=False,
            routing_mode="REGIONAL",
            opts=self.child,
        )
        subnetwork = gcp.compute.Subnetwork(
            f"{name}-run",
            name=f"{args.project}-run",
            project=args.project,
            region=args.location,
            network=network.id,
            ip_cidr_range=RUN_RANGE,
            # Google's APIs are reached over Google's network, also from an address that is not public.
            private_ip_google_access=True,
            opts=self.child,
        )
        services_range = gcp.compute.GlobalAddress(
            f"{name}-services",
            name=f"{args.project}-services",
            project=args.project,
            network=network.id,
            purpose="VPC_PEERING",
            address_type="INTERNAL",
            prefix_length=SERVICES_PREFIX_LENGTH,
            opts=self.child,
        )
        self.peering = gcp.servicenetworking.Connection(
            f"{name}-peering",
            network=network.id,
            service="servicenetworking.googleapis.com",
            reserved_peering_ranges=[services_range.name],
            # For days after the last instance is gone Google refuses to delete the connection, and deletes no network
            # with a peering. What stays of the connection then is taken up again by the next creation.
            deletion_policy="REMOVE_PEERING",
            update_on_creation_fail=True,
            opts=self.child,
        )
        gcp.compute.Firewall(
            f"{name}-deny-ingress",
            name=f"{args.project}-deny-ingress",
            project=args.project,
            network=network.id,
            direction="INGRESS",
            priority=65000,
            source_ranges=["0.0.0.0/0"],
            denies=[{"protocol": "all"}],
            # The network denies by itself as well; this rule is here for its log.
            log_config={"metadata": "INCLUDE_ALL_METADATA"},
            opts=self.child,
        )
        self.network = network.id
        self.subnetwork = subnetwork.id
        self.services_range = services_range.name
        self.register_outputs({"network": self.network, "subnetwork": self.subnetwork})
