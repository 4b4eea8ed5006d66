"""The front door: a global load balancer before the web service, because Cloud Run has no domain mappings in Sydney.

Certificate and DNS authorization come from Certificate Manager, so that the certificate can be issued while the host
still points at the old platform; the record that this takes is an export of the stack.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_gcp as gcp

from infra.components.component import Component

REQUESTS_PER_MINUTE_AND_ADDRESS = 1200
# What the app itself says of its pages.
HSTS = "Strict-Transport-Security: max-age=31536000"

RULES: list[Any] = [
    {
        "priority": 1000,
        "description": "one address cannot take the service from the others",
        "action": "throttle",
        "match": {"versioned_expr": "SRC_IPS_V1", "config": {"src_ip_ranges": ["*"]}},
        "rate_limit_options": {
            "conform_action": "allow",
            "exceed_action": "deny(429)",
            "enforce_on_key": "IP",
            "rate_limit_threshold": {"count": REQUESTS_PER_MINUTE_AND_ADDRESS, "interval_sec": 60},
        },
    },
    {
        # The numeric value is Google's own for the rule that every policy ends with.
        "priority": 2147483647,
        "description": "default",
        "action": "allow",
        "match": {"versioned_expr": "SRC_IPS_V1", "config": {"src_ip_ranges": ["*"]}},
    },
]


@dataclass(frozen=True, kw_only=True)
class EdgeArgs:
    project: str
    location: str
    public_host: str
    labels: dict[str, str]
    web_service: pulumi.Output[str]
    static_bucket: pulumi.Output[str]


class Edge(Component):
    address: pulumi.Output[str]
    certificate_record: pulumi.Output[Any]
    """The DNS record that proves the host is ours: name, type, data."""

    def __init__(self, name: str, args: EdgeArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        project = args.project
        address = gcp.compute.GlobalAddress(f"{name}-address", name=f"{project}-edge", project=project, opts=self.child)
        armor = gcp.compute.SecurityPolicy(
            f"{name}-armor",
            name=f"{project}-edge",
            project=project,
            type="CLOUD_ARMOR",
            rules=RULES,
            adaptive_protection_config={"layer7_ddos_defense_config": {"enable": True}},
            opts=self.child,
        )
        group = gcp.compute.RegionNetworkEndpointGroup(
            f"{name}-web",
            name=f"{project}-web",
            project=project,
            region=args.location,
            network_endpoint_type="SERVERLESS",
            cloud_run={"service": args.web_service},
            opts=self.child,
        )
        backend = gcp.compute.BackendService(
            f"{name}-backend",
            name=f"{project}-web",
            project=project,
            load_balancing_scheme="EXTERNAL_MANAGED",
            protocol="HTTPS",
            backends=[{"group": group.id}],
            security_policy=armor.id,
            log_config={"enable": True, "sample_rate": 1.0},
            opts=self.child,
        )
        static = gcp.compute.BackendBucket(
            f"{name}-static",
            name=f"{project}-static",
            project=project,
            bucket_name=args.static_bucket,
            enable_cdn=True,
            compression_mode="AUTOMATIC",
            cdn_policy={
                "cache_mode": "CACHE_ALL_STATIC",
                "client_ttl": 3600,
                "default_ttl": 3600,
                "max_ttl": 86400,
                "negative_caching": True,
            },
            custom_response_headers=[HSTS, "X-Content-Type-Options: nosniff"],
            opts=self.child,
        )
        url_map = gcp.compute.URLMap(
            f"{name}-map",
            name=f"{project}-edge",
            project=project,
            # Any other host reaches the app as well, which refuses it: one place decides, and says why.
            default_service=backend.id,
            host_rules=[{"hosts": [args.public_host], "path_matcher": "site"}],
            path_matchers=[
                {
                    "name": "site",
                    "default_service": backend.id,
                    "path_rules": [{"paths": ["/static/*"], "service": static.id}],
                }
            ],
            opts=self.child,
        )
        certificate_map, authorization = self.certify(name, args)
        https = gcp.compute.TargetHttpsProxy(
            f"{name}-https",
            name=f"{project}-edge",
            project=project,
            url_map=url_map.id,
            certificate_map=certificate_map.id.apply(lambda path: f"//certificatemanager.googleapis.com/{path}"),
            ssl_policy=gcp.compute.SSLPolicy(
                f"{name}-tls",
                name=f"{project}-edge",
                project=project,
                profile="MODERN",
                min_tls_version="TLS_1_2",
                opts=self.child,
            ).id,
            opts=self.child,
        )
        self.forward(name, project, "https", "443", address.address, https.id)
        redirect = gcp.compute.URLMap(
            f"{name}-redirect-map",
            name=f"{project}-redirect",
            project=project,
            default_url_redirect={
                "https_redirect": True,
                "redirect_response_code": "MOVED_PERMANENTLY_DEFAULT",
                "strip_query": False,
            },
            opts=self.child,
        )
        http = gcp.compute.TargetHttpProxy(
            f"{name}-http", name=f"{project}-redirect", project=project, url_map=redirect.id, opts=self.child
        )
        self.forward(name, project, "http", "80", address.address, http.id)
        self.address = address.address
        self.certificate_record = authorization.dns_resource_records
        self.register_outputs({"address": self.address})

    def certify(
        self, name: str, args: EdgeArgs
    ) -> tuple[gcp.certificatemanager.CertificateMap, gcp.certificatemanager.DnsAuthorization]:
        # None of the three takes another host. With a name for each host, the successors can be there first, and the
        # old ones go in their order; otherwise the certificate would have to go while its entry still uses it.
        name_of_host = f"{args.project}-{hashlib.sha256(args.public_host.encode()).hexdigest()[:8]}"
        successor_first = pulumi.ResourceOptions.merge(self.child, pulumi.ResourceOptions(delete_before_replace=False))
        authorization = gcp.certificatemanager.DnsAuthorization(
            f"{name}-authorization",
            name=name_of_host,
            project=args.project,
            domain=args.public_host,
            labels=args.labels,
            opts=successor_first,
        )
        certificate = gcp.certificatemanager.Certificate(
            f"{name}-certificate",
            name=name_of_host,
            project=args.project,
            labels=args.labels,
            managed={"domains": [args.public_host], "dns_authorizations": [authorization.id]},
            opts=successor_first,
        )
        certificate_map = gcp.certificatemanager.CertificateMap(
            f"{name}-certificates", name=args.project, project=args.project, labels=args.labels, opts=self.child
        )
        gcp.certificatemanager.CertificateMapEntry(
            f"{name}-certificate-entry",
            name=name_of_host,
            project=args.project,
            map=certificate_map.name,
            hostname=args.public_host,
            certificates=[certificate.id],
            labels=args.labels,
            opts=successor_first,
        )
        return certificate_map, authorization

    def forward(
        self, name: str, project: str, scheme: str, port: str, address: pulumi.Output[str], target: pulumi.Output[str]
    ) -> None:
        gcp.compute.GlobalForwardingRule(
            f"{name}-forward-{scheme}",
            name=f"{project}-{scheme}",
            project=project,
            load_balancing_scheme="EXTERNAL_MANAGED",
            ip_protocol="TCP",
            ip_address=address,
            port_range=port,
            target=target,
            opts=self.child,
        )
