"""Rules that every resource of a stack keeps, whoever writes it.

A rule is a function of a resource's type and properties and yields what is wrong. The rules run in every preview and
update, through a transform of the whole stack, so that nobody can forget to pass them; a resource that breaks one is
not registered. Tests run them again over the recorded inventories.

Properties arrive under their names on the wire (`publicAccessPrevention`). One that is not known yet is None, and what
is not known is not judged: it is known when the update comes to it.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pulumi

from infra.settings import StackSettings

Properties = Mapping[str, Any]
EVERYBODY = {"allUsers", "allAuthenticatedUsers"}
BROAD_ROLES = {"roles/owner", "roles/editor"}
SECRET_NAME = re.compile(r"SECRET|PASSWORD|TOKEN|(^|_)KEYS?($|_)|DSN|CREDENTIAL")
MIN_RETAINED_BACKUPS_IN_PRODUCTION = 14

# What a resource is called is under one of these, the type's own first.
NAME_PROPERTIES = ("accountId", "bucketId", "repositoryId", "secretId", "name")
# These are relations between named things, or settings of one, and have no name of their own.
NAMELESS = re.compile(
    r"(I[Aa][Mm]Member|IAMAuditConfig)$|^gcp:(projects/service|secretmanager/secretVersion|servicenetworking/connection):"
)


class GuardrailError(Exception):
    """A resource breaks a rule. The message names the resource and what to do."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What rules need to know of the stack."""

    project: str
    location: str
    production: bool
    deletion_protection: bool

    @classmethod
    def of(cls, settings: StackSettings) -> "Context":
        return cls(
            project=settings.project_id,
            location=settings.region.location,
            production=settings.production,
            deletion_protection=settings.deletion_protection,
        )


Rule = Callable[[str, Properties, Context], Iterable[str]]


def has_an_explicit_name(type_: str, props: Properties, _context: Context) -> Iterator[str]:
    if type_.startswith("gcp:") and not NAMELESS.search(type_) and not any(key in props for key in NAME_PROPERTIES):
        yield "has no explicit name, so Pulumi would append a random suffix: set name"


def stays_in_its_project(_type: str, props: Properties, context: Context) -> Iterator[str]:
    if props.get("project") not in {None, context.project}:
        yield f"is in project {props['project']}: this stack's project is {context.project}"


def stays_in_its_region(_type: str, props: Properties, context: Context) -> Iterator[str]:
    for path, value in places(props):
        # Certificate Manager's global things hold host names and certificates, no customer's data.
        if value.lower() not in {context.location, "global"}:
            yield f"has {path} {value}: this stack's location is {context.location}"


def places(props: Properties) -> Iterator[tuple[str, str]]:
    for key, value in props.items():
        if key in {"location", "region"} and isinstance(value, str):
            yield key, value
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, Mapping):
                yield from ((f"{key}.{path}", place) for path, place in places(child))


def secret_is_replicated_by_us(type_: str, props: Properties, _context: Context) -> Iterator[str]:
    if type_ == "gcp:secretmanager/secret:Secret" and "auto" in props.get("replication", {}):
        yield "has automatic replication, which may leave the region: set replication.userManaged"


def database_is_private(type_: str, props: Properties, _context: Context) -> Iterator[str]:
    if type_ != "gcp:sql/databaseInstance:DatabaseInstance":
        return
    ip = props.get("settings", {}).get("ipConfiguration", {})
    # Google's default is a public address: only an explicit false will do.
    if ip.get("ipv4Enabled") is not False:
        yield "has a public address: set settings.ipConfiguration.ipv4Enabled to false"
    if ip.get("authorizedNetworks"):
        yield "lets networks of the internet in: remove settings.ipConfiguration.authorizedNetworks"
    if ip.get("sslMode") not in {"ENCRYPTED_ONLY", "TRUSTED_CLIENT_CERTIFICATE_REQUIRED"}:
        yield "accepts connections without TLS: set settings.ipConfiguration.sslMode to ENCRYPTED_ONLY"


def database_can_be_restored(type_: str, props: Properties, context: Context) -> Iterator[str]:
    if type_ != "gcp:sql/databaseInstance:DatabaseInstance":
        return
    backups = props.get("settings", {}).get("backupConfiguration", {})
    if not (backups.get("enabled") and backups.get("pointInTimeRecoveryEnabled")):
        yield "has no backups with point-in-time recovery: set settings.backupConfiguration"
    retained = backups.get("backupRetentionSettings", {}).get("retainedBackups", 0)
    if context.production and retained < MIN_RETAINED_BACKUPS_IN_PRODUCTION:
        yield f"retains {retained:.0f} backups: in production at least {MIN_RETAINED_BACKUPS_IN_PRODUCTION} are kept"


PROTECTED = {
    "gcp:cloudrunv2/job:Job",
    "gcp:cloudrunv2/service:Service",
    "gcp:sql/databaseInstance:DatabaseInstance",
}


def cannot_be_deleted_by_accident(type_: str, props: Properties, context: Context) -> Iterator[str]:
    if not context.deletion_protection or type_ not in PROTECTED:
        return
    if props.get("deletionProtection") is not True:
        yield "can be deleted by accident: set deletionProtection"
    if type_.startswith("gcp:sql/") and props.get("settings", {}).get("deletionProtectionEnabled") is not True:
        yield "can be deleted from the console: set settings.deletionProtectionEnabled"


def bucket_is_closed(type_: str, props: Properties, context: Context) -> Iterator[str]:
    if type_ != "gcp:storage/bucket:Bucket":
        return
    if props.get("uniformBucketLevelAccess") is not True:
        yield "allows ACLs on objects: set uniformBucketLevelAccess"
    if props.get("publicAccessPrevention") != "enforced" and props.get("name") != f"{context.project}-static":
        yield "can be made public: set publicAccessPrevention to enforced (only the static bucket is public)"
    if props.get("versioning", {}).get("enabled") is not True:
        yield "forgets what is overwritten: set versioning.enabled"


def grants_nobody_everything(type_: str, props: Properties, context: Context) -> Iterator[str]:
    member, role = props.get("member"), props.get("role")
    public_parts = {
        ("gcp:storage/bucketIAMMember:BucketIAMMember", f"{context.project}-static", "roles/storage.objectViewer"),
        # Its ingress lets the load balancer through and nobody else.
        ("gcp:cloudrunv2/serviceIamMember:ServiceIamMember", "validibot-web", "roles/run.invoker"),
    }
    target = props.get("bucket") or props.get("name")
    if member in EVERYBODY and target is not None and (type_, target, role) not in public_parts:
        yield f"grants {role} to {member}: name an account (only the static bucket and web are public)"
    if role in BROAD_ROLES:
        yield f"grants {role}: choose a role for the one thing that is needed"
    if type_ == "gcp:serviceaccount/key:Key":
        yield "is a key that can be copied: let the workload run as the account"


def network_is_our_own(type_: str, props: Properties, _context: Context) -> Iterator[str]:
    if type_ == "gcp:compute/network:Network" and props.get("autoCreateSubnetworks") is not False:
        yield "creates a subnetwork in every region: set autoCreateSubnetworks to false"


def workload_is_contained(type_: str, props: Properties, _context: Context) -> Iterator[str]:
    """Cloud Run services and jobs: images by digest, secrets as secrets, an account, the VPC, no open ingress."""
    if type_ == "gcp:cloudrunv2/service:Service":
        template = props.get("template", {})
        # Google's default is to let everybody in.
        if props.get("ingress") not in {"INGRESS_TRAFFIC_INTERNAL_ONLY", "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"}:
            yield "can be reached from the internet: set ingress to internal, with or without the load balancer"
    elif type_ == "gcp:cloudrunv2/job:Job":
        template = props.get("template", {}).get("template", {})
    else:
        return
    if "serviceAccount" not in template:
        yield "runs as the project's default account: set serviceAccount"
    if "networkInterfaces" not in template.get("vpcAccess", {}):
        yield "is not in the VPC: set vpcAccess.networkInterfaces"
    for container in template.get("containers", []):
        image = container.get("image")
        if isinstance(image, str) and not re.search(r"@sha256:[0-9a-f]{64}$", image):
            yield f"has image {image}: deploy by digest, a tag moves"
        for env in container.get("envs", []):
            reference = env.get("valueSource", {}).get("secretKeyRef")
            if reference is None and SECRET_NAME.search(env["name"]):
                yield f"has {env['name']} in the clear: take it from Secret Manager"
            if reference is not None and reference.get("version") == "latest":
                yield f"reads the latest version of {env['name']}: name a number"


RULES: tuple[Rule, ...] = (
    has_an_explicit_name,
    stays_in_its_project,
    stays_in_its_region,
    secret_is_replicated_by_us,
    database_is_private,
    database_can_be_restored,
    cannot_be_deleted_by_accident,
    bucket_is_closed,
    grants_nobody_everything,
    network_is_our_own,
    workload_is_contained,
)


def findings(type_: str, props: Properties, context: Context) -> list[str]:
    """All that is wrong with one resource; empty when nothing is."""
    return [finding for rule in RULES for finding in rule(type_, props, context)]


class Guardrails:
    def __init__(self, settings: StackSettings) -> None:
        self.context = Context.of(settings)

    def register(self) -> None:
        """From here on, a resource that breaks a rule fails preview and update."""
        pulumi.runtime.register_resource_transform(self.transform)

    def transform(self, args: pulumi.ResourceTransformArgs) -> None:
        found = findings(args.type_, plain(args.props), self.context)
        if found:
            message = f"{args.type_} {args.name} " + "; ".join(found)
            # The exception reaches the user at the end of a long traceback through the engine; this is one line.
            # The log alone would not do: a program that has logged errors and goes on has succeeded.
            pulumi.log.error(f"guardrail: {message}")
            raise GuardrailError(message)


def plain(value: Any) -> Any:
    """Secrets unwrapped: rules look at them, and never quote one."""
    if isinstance(value, Mapping):
        if "value" in value and any(is_signature(key) for key in value):
            return plain(value["value"])
        return {key: plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def is_signature(key: str) -> bool:
    # Pulumi marks a secret on the wire with this key (pulumi.runtime.rpc._special_sig_key).
    return key == "4dabf18193072939515e22adb298388d"
