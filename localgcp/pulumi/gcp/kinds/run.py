"""Cloud Run services and jobs. An update sends the whole resource, without a mask."""

from localgcp.pulumi.gcp.kind import Kind
from localgcp.pulumi.gcp.mapping import Encoding

_PROBE_KINDS = ("grpc", "httpGet", "tcpSocket")


def _probes(container: str, *names: str) -> frozenset[str]:
    return frozenset(f"{container}.{name}.{kind}" for name in names for kind in _PROBE_KINDS)


SERVICE = Kind(
    type="gcp:cloudrunv2/service:Service",
    api="run",
    collection="projects/{project}/locations/{location}/services",
    name_query="serviceId",
    encoding=Encoding(
        # The kind of a probe that is not used is said to be null, so that an update can change the kind.
        always={
            "template.containers.startupProbe": {"grpc": None, "httpGet": None, "tcpSocket": None},
            "template.containers.livenessProbe": {"grpc": None, "httpGet": None},
        },
        keep_empty=_probes("template.containers", "startupProbe", "livenessProbe", "readinessProbe"),
    ),
)
JOB = Kind(
    type="gcp:cloudrunv2/job:Job",
    api="run",
    collection="projects/{project}/locations/{location}/jobs",
    name_query="jobId",
    encoding=Encoding(
        always={"template.template.containers.startupProbe": {"grpc": None, "httpGet": None, "tcpSocket": None}},
        keep_empty=_probes("template.template.containers", "startupProbe"),
        # No retries is a wish of its own: the API's default is three.
        keep_zero=frozenset({"template.template.maxRetries"}),
    ),
)

KINDS = (SERVICE, JOB)
