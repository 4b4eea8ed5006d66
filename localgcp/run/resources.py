"""The bodies of Cloud Run's resources: the defaults that Google fills in, what it refuses, conditions and addresses."""

import base64
import hashlib
import re
import secrets
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from localgcp import labels
from localgcp.build.images import image_store
from localgcp.clock import seconds, timestamp
from localgcp.errors import InvalidArgument
from localgcp.run.program import Workload
from localgcp.validation import without_nulls

if TYPE_CHECKING:
    from localgcp.region import Region

DEFAULT_LIMITS = {"cpu": "1000m", "memory": "512Mi"}
DEFAULT_CONCURRENCY = 80
DEFAULT_MAX_INSTANCES = 100
DEFAULT_TIMEOUT = "300s"
DEFAULT_TASK_TIMEOUT = "600s"
DEFAULT_TASK_RETRIES = 3
MAX_TIMEOUT_SECONDS = 3600
MAX_TASK_TIMEOUT_SECONDS = 7 * 24 * 3600
MAX_CONCURRENCY = 1000
#: Of each of a probe's times (discovery document, Probe).
MAX_STARTUP_PROBE_SECONDS = 240
MAX_LIVENESS_PROBE_SECONDS = 3600
#: "Set maximum retries" of jobs: any integer from 0 to 10.
MAX_TASK_RETRIES = 10
MAX_TASK_COUNT = 10_000
RESERVED_VARIABLES = frozenset(
    {"PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION", "CLOUD_RUN_JOB", "CLOUD_RUN_EXECUTION"}
    | {f"CLOUD_RUN_TASK_{name}" for name in ("INDEX", "COUNT", "ATTEMPT")}
)
LATEST = "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST"
REVISION = "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION"
#: What can be limited, and how an amount of it is written.
LIMITS = {
    "cpu": re.compile(r"\d+(\.\d+)?|\d+m"),
    "memory": re.compile(r"\d+(\.\d+)?(k|M|G|T|Ki|Mi|Gi|Ti)?"),
    "nvidia.com/gpu": re.compile(r"\d+"),
}
MIB_BY_SUFFIX = {
    "": 1 / 2**20,
    "k": 1e3 / 2**20,
    "M": 1e6 / 2**20,
    "G": 1e9 / 2**20,
    "T": 1e12 / 2**20,
    "Ki": 1 / 2**10,
    "Mi": 1.0,
    "Gi": 2.0**10,
    "Ti": 2.0**20,
}
#: CPUs up to which the memory of an instance has this many MiB, at least and at most ("Configure memory limits").
MEMORY_MIB_BY_CPU = (
    (0.49, 128, 512),
    (0.99, 128, 1024),
    (1, 128, 4096),
    (3, 128, 8192),
    (5, 2048, 16384),
    (7, 4096, 24576),
    (8, 4096, 32768),
)
NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,47}[a-z0-9])?")
#: The codes in the older form of a service's address.
LOCATION_CODES = {"australia-southeast1": "ts", "us-central1": "uc", "europe-west1": "ew"}


def check_name(name: str, kind: str) -> None:
    if not NAME.fullmatch(name):
        raise InvalidArgument(
            f"{kind} name {name!r} is invalid: only lowercase, digits, and hyphens; must begin with letter, and cannot"
            " end with hyphen; must be less than 50 characters",
            location="name",
        )


def service_body(region: "Region", project: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """A service's own fields with Google's defaults. Raises InvalidArgument."""
    result: dict[str, Any] = without_nulls(dict(body))
    labels.check(result.get("labels") or {}, "service")
    result.setdefault("launchStage", "GA")
    result.setdefault("ingress", "INGRESS_TRAFFIC_ALL")
    if not result.get("traffic"):
        result["traffic"] = [{"type": LATEST, "percent": 100}]
    if sum(target.get("percent", 0) for target in result["traffic"]) != 100:
        raise InvalidArgument("service.traffic: the percentages of traffic must add up to 100", location="traffic")
    template = result.setdefault("template", {})
    template.setdefault("timeout", DEFAULT_TIMEOUT)
    template.setdefault("serviceAccount", default_account(region, project))
    template.setdefault("maxInstanceRequestConcurrency", DEFAULT_CONCURRENCY)
    scaling = template.setdefault("scaling", {})
    scaling.setdefault("maxInstanceCount", DEFAULT_MAX_INSTANCES)
    if not 1 <= template["maxInstanceRequestConcurrency"] <= MAX_CONCURRENCY:
        raise InvalidArgument(
            f"template.max_instance_request_concurrency must be 1 to {MAX_CONCURRENCY},"
            f" got {template['maxInstanceRequestConcurrency']}"
        )
    if scaling.get("minInstanceCount", 0) > scaling["maxInstanceCount"]:
        raise InvalidArgument("template.scaling: min_instance_count must not be greater than max_instance_count")
    if not 0 < seconds(template["timeout"]) <= MAX_TIMEOUT_SECONDS:
        raise InvalidArgument(f"template.timeout must be at most {MAX_TIMEOUT_SECONDS}s, got {template['timeout']}")
    container = _one_container(template)
    ports = container.setdefault("ports", [{}])
    ports[0].setdefault("name", "http1")
    ports[0].setdefault("containerPort", 8080)
    port = ports[0]["containerPort"]
    _resources(container, {"cpuIdle": True, "startupCpuBoost": True})
    probe = container.setdefault(
        "startupProbe",
        {"timeoutSeconds": 240, "periodSeconds": 240, "failureThreshold": 1, "tcpSocket": {"port": port}},
    )
    _probe(probe, "startup", port)
    if "livenessProbe" in container:
        _probe(container["livenessProbe"], "liveness", port)
    _volumes(template)
    return result


def job_body(region: "Region", project: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """A job's own fields with Google's defaults. Raises InvalidArgument."""
    result: dict[str, Any] = without_nulls(dict(body))
    labels.check(result.get("labels") or {}, "job")
    result.setdefault("launchStage", "GA")
    template = result.setdefault("template", {})
    template.setdefault("taskCount", 1)
    task = template.setdefault("template", {})
    task.setdefault("maxRetries", DEFAULT_TASK_RETRIES)
    task.setdefault("timeout", DEFAULT_TASK_TIMEOUT)
    task.setdefault("executionEnvironment", "EXECUTION_ENVIRONMENT_GEN2")
    task.setdefault("serviceAccount", default_account(region, project))
    _check_task_count("template.task_count", template["taskCount"])
    _check_task_timeout("template.template.timeout", task["timeout"])
    if not 0 <= template.get("parallelism", 0) <= MAX_TASK_COUNT:
        raise InvalidArgument(f"template.parallelism must be 0 to {MAX_TASK_COUNT}, got {template['parallelism']}")
    if not 0 <= task["maxRetries"] <= MAX_TASK_RETRIES:
        raise InvalidArgument(
            f"template.template.max_retries must be 0 to {MAX_TASK_RETRIES}, got {task['maxRetries']}"
        )
    container = _one_container(task)
    _resources(container, {})
    for kind in ("startupProbe", "livenessProbe"):
        if kind in container:
            raise InvalidArgument(f"template.template.containers[0]: a job's container has no {kind}")
    _volumes(task)
    return result


def check_overrides(overrides: Mapping[str, Any], template: Mapping[str, Any]) -> None:
    """What a run may override of the job's template. Raises InvalidArgument."""
    containers = template["template"]["containers"]
    for override in overrides.get("containerOverrides") or ():
        name = override.get("name")
        if name and name not in [container.get("name") for container in containers]:
            raise InvalidArgument(f"overrides.container_overrides: the job has no container named {name!r}")
        if override.get("clearArgs") and override.get("args"):
            raise InvalidArgument("overrides.container_overrides: args must not be set together with clear_args")
        _check_environment("overrides.container_overrides", override.get("env") or ())
    if overrides.get("taskCount"):
        _check_task_count("overrides.task_count", overrides["taskCount"])
    if overrides.get("timeout"):
        _check_task_timeout("overrides.timeout", overrides["timeout"])


def default_account(region: "Region", project: str) -> str:
    return f"{region.project_number(project)}-compute@developer.gserviceaccount.com"


def workload_of(
    region: "Region", kind: str, project: str, location: str, template: Mapping[str, Any], names: Mapping[str, str]
) -> Workload:
    return Workload(
        project=project,
        location=location,
        service_account=template["serviceAccount"],
        kind=kind,
        container=template["containers"][0],
        volumes=template.get("volumes", ()),
        system_environment=dict(names),
    )


def pinned(region: "Region", template: Mapping[str, Any]) -> dict[str, Any]:
    """The template with its image by digest: what a tag means later changes nothing. Raises NotFound."""
    container = dict(template["containers"][0])
    reference, digest = image_store(region).resolve(container["image"])
    container["image"] = f"{reference.name}@{digest}"
    return {**template, "containers": [container]}


def new_revision_name(service: str, number: int) -> str:
    suffix = "".join(secrets.choice("bcdfghjklmnpqrstvwxz") for _ in range(3))
    return f"{service}-{number:05d}-{suffix}"


def addresses(region: "Region", project: str, location: str, service: str) -> list[str]:
    """The service's host names: the one that follows from project and location, and the older form."""
    number = region.project_number(project)
    digest = hashlib.sha256(f"{project}/{location}".encode()).digest()
    letters = base64.b32encode(digest)[:10].decode().lower()
    return [
        f"{service}-{number}.{location}.run.app",
        f"{service}-{letters}-{LOCATION_CODES.get(location, 'zz')}.a.run.app",
    ]


def condition(
    kind: str, now: str, *, error: str | None = None, reason: Mapping[str, str] | None = None, pending: bool = False
) -> dict[str, Any]:
    """`reason` is the one field that names why it failed: `{"revisionReason": …}` or `{"reason": …}`."""
    result = {"type": kind, "state": "CONDITION_SUCCEEDED", "lastTransitionTime": now}
    if pending:
        result["state"] = "CONDITION_RECONCILING"
    if error is not None:
        result |= {"state": "CONDITION_FAILED", "message": error, "severity": "ERROR", **(reason or {})}
    return result


def stamps(region: "Region", email: str | None) -> dict[str, Any]:
    now = timestamp(region.clock.now())
    return {
        "uid": str(uuid.uuid4()),
        "generation": "1",
        "createTime": now,
        "updateTime": now,
        "creator": email or "",
        "lastModifier": email or "",
    }


def new_etag() -> str:
    return f'"{secrets.token_urlsafe(12)}"'


def check_traffic(traffic: Sequence[Mapping[str, Any]], revisions: Sequence[str]) -> None:
    """Raises InvalidArgument for a target that names no revision of the service."""
    for target in traffic:
        name = target.get("revision", "").rpartition("/")[2]
        if target.get("type") == REVISION and not name:
            raise InvalidArgument("service.traffic: a target of a revision must name it")
        if name and name not in revisions:
            raise InvalidArgument(f"service.traffic: Revision named '{name}' does not exist")


def _one_container(template: dict[str, Any]) -> dict[str, Any]:
    containers = template.get("containers") or []
    if not containers:
        raise InvalidArgument("template.containers: at least one container must be specified", location="containers")
    if len(containers) > 1:
        raise InvalidArgument(
            "template.containers: localgcp runs one container per instance; sidecars are not available here"
        )
    container: dict[str, Any] = containers[0]
    if not container.get("image"):
        raise InvalidArgument("template.containers[0].image: an image must be specified", location="image")
    _check_environment("template.containers[0]", container.get("env", ()))
    return container


def _check_environment(where: str, variables: Sequence[Mapping[str, Any]]) -> None:
    for item in variables:
        if not item.get("name"):
            raise InvalidArgument(f"{where}.env: a variable must have a name")
        if item["name"] in RESERVED_VARIABLES:
            raise InvalidArgument(
                f"{where}.env: The following reserved env names were provided: {item['name']}."
                " These values are automatically set by the system."
            )


def _check_task_count(field: str, count: int) -> None:
    if not 1 <= count <= MAX_TASK_COUNT:
        raise InvalidArgument(f"{field} must be 1 to {MAX_TASK_COUNT}, got {count}")


def _check_task_timeout(field: str, timeout: str) -> None:
    if not 0 < seconds(timeout) <= MAX_TASK_TIMEOUT_SECONDS:
        raise InvalidArgument(f"{field} must be more than 0s and at most {MAX_TASK_TIMEOUT_SECONDS}s, got {timeout}")


def _resources(container: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    if "resources" not in container:
        container["resources"] = {"limits": dict(DEFAULT_LIMITS), **defaults}
    else:
        container["resources"]["limits"] = {**DEFAULT_LIMITS, **container["resources"].get("limits", {})}
    for name, amount in container["resources"]["limits"].items():
        if name not in LIMITS:
            raise InvalidArgument(
                f"template.containers[0].resources.limits: {name!r} cannot be limited, only {', '.join(LIMITS)}"
            )
        if not LIMITS[name].fullmatch(amount):
            raise InvalidArgument(
                f"template.containers[0].resources.limits.{name}: Invalid value specified for {name}: {amount!r}"
            )
    _check_size(container["resources"]["limits"]["cpu"], container["resources"]["limits"]["memory"])


def _check_size(cpu: str, memory: str) -> None:
    """Raises InvalidArgument when Cloud Run has no instance with so much CPU, or not with so much memory beside it."""
    cpus = float(cpu.removesuffix("m")) / (1000 if cpu.endswith("m") else 1)
    if not 0.08 <= cpus <= 8 or (cpus > 1 and cpus % 1):
        raise InvalidArgument(
            "template.containers[0].resources.limits.cpu: Invalid value specified for cpu. It must be between 0.08 and"
            f" 1, or a whole number up to 8, got {cpu!r}"
        )
    suffix = memory.lstrip("0123456789.")
    mib = float(memory.removesuffix(suffix)) * MIB_BY_SUFFIX[suffix]
    least, most = next((least, most) for ceiling, least, most in MEMORY_MIB_BY_CPU if cpus <= ceiling)
    if not least <= mib <= most:
        raise InvalidArgument(
            "template.containers[0].resources.limits.memory: Invalid value specified for memory. For"
            f" {cpus} CPU, memory must be between {least}Mi and {most}Mi inclusive, got {memory!r}"
        )


def _probe(probe: dict[str, Any], kind: str, port: int) -> None:
    if "grpc" in probe:
        raise InvalidArgument(
            f"template.containers[0].{kind}_probe.grpc: localgcp's proxy speaks HTTP/1.1; use httpGet or tcpSocket"
        )
    for field, default in (("timeoutSeconds", 1), ("periodSeconds", 10), ("failureThreshold", 3)):
        probe[field] = probe.get(field) or default
    longest = MAX_STARTUP_PROBE_SECONDS if kind == "startup" else MAX_LIVENESS_PROBE_SECONDS
    for field, least in (("initialDelaySeconds", 0), ("timeoutSeconds", 1), ("periodSeconds", 1)):
        if not least <= probe.get(field, least) <= longest:
            raise InvalidArgument(f"{kind}_probe: {field} must be {least} to {longest}, got {probe[field]}")
    if probe["failureThreshold"] < 1:
        raise InvalidArgument(f"{kind}_probe: failureThreshold must be at least 1, got {probe['failureThreshold']}")
    if probe["timeoutSeconds"] > probe["periodSeconds"]:
        raise InvalidArgument(f"{kind}_probe: timeout_seconds must not be greater than period_seconds")
    action = probe.get("httpGet", probe.get("tcpSocket"))
    if action is None:
        action = probe["tcpSocket"] = {}
    action.setdefault("port", port)
    if "httpGet" in probe:
        action.setdefault("path", "/")


def _volumes(template: Mapping[str, Any]) -> None:
    names = [volume.get("name") for volume in template.get("volumes", ())]
    for mount in template["containers"][0].get("volumeMounts", ()):
        if mount.get("name") not in names:
            raise InvalidArgument(
                f"template.containers[0].volume_mounts: Volume with name {mount.get('name')!r} not found"
            )
