"""The APIs of the region. Adding one is adding a line.

Every API is served under `/<name>/` by the methods and schemas of Google's discovery documents, which ship inside
`google-api-python-client`. What a line leaves without behaviour is stored, validated and answered by `generic`.

Clients of Compute and of DNS repeat the API's name in their paths, and the provider's variables hold it already: both
forms are served, so that `<address>/<name>` is an endpoint for every client. Those of Compute and of Cloud Storage that
are given an endpoint leave the version out.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Api:
    name: str
    #: Path prefix on this machine -> discovery document. The longest prefix wins.
    documents: dict[str, str]
    #: `longrunning`, `compute` or `sql`: how the API tells of operations that take time.
    dialect: str = "longrunning"
    #: Operations live at the root (`operations/<id>`), below the project, or below the location.
    operations_at: str = "location"
    #: Package of the API's messages, for the `@type` of an operation's response.
    package: str = ""
    #: Legacy APIs ignore query parameters they do not know and merge a PATCH; google.rpc ones refuse and use masks.
    legacy: bool = False
    #: Pages of every origin may call it from a browser.
    any_origin: bool = False
    #: Fields that clients send and Google accepts although no document names them: schema -> names.
    undocumented: dict[str, frozenset[str]] = field(default_factory=dict)


#: They start in this order and stop in the reverse: databases are there before the services that use them, and after.
APIS = (
    Api(
        name="artifactregistry",
        package="google.devtools.artifactregistry.v1",
        documents={"/artifactregistry/v1/": "artifactregistry:v1"},
    ),
    Api(name="billingbudgets", documents={"/billingbudgets/v1/": "billingbudgets:v1"}, operations_at="root"),
    Api(
        name="certificatemanager",
        package="google.cloud.certificatemanager.v1",
        documents={"/certificatemanager/v1/": "certificatemanager:v1"},
    ),
    Api(name="cloudbilling", documents={"/cloudbilling/v1/": "cloudbilling:v1"}, operations_at="root"),
    Api(
        name="cloudbuild",
        package="google.devtools.cloudbuild.v1",
        documents={"/cloudbuild/v1/": "cloudbuild:v1"},
        operations_at="root",
    ),
    Api(name="cloudkms", package="google.cloud.kms.v1", documents={"/cloudkms/v1/": "cloudkms:v1"}),
    Api(
        name="cloudresourcemanager",
        package="google.cloud.resourcemanager.v3",
        documents={
            "/cloudresourcemanager/v1/": "cloudresourcemanager:v1",
            "/cloudresourcemanager/v3/": "cloudresourcemanager:v3",
        },
        operations_at="root",
    ),
    Api(
        name="cloudscheduler",
        documents={"/cloudscheduler/v1/": "cloudscheduler:v1", "/cloudscheduler/v1beta1/": "cloudscheduler:v1beta1"},
    ),
    Api(
        name="cloudtasks",
        documents={"/cloudtasks/v2/": "cloudtasks:v2", "/cloudtasks/v2beta3/": "cloudtasks:v2beta3"},
    ),
    Api(
        name="compute",
        # The provider is a client of the beta version wherever it is pointed; v1 is a subset of it.
        # Clients that are given the prefix as their endpoint put the API's own path behind it, or nothing.
        documents={
            "/compute/v1/": "compute:beta",
            "/compute/beta/": "compute:beta",
            "/compute/compute/v1/": "compute:beta",
            "/compute/compute/beta/": "compute:beta",
            "/compute/": "compute:beta",
        },
        dialect="compute",
        legacy=True,
        undocumented={
            "NetworkRoutingConfig": frozenset({"deleteBgpAlwaysCompareMed"}),
            "RouterNat": frozenset({"initialNatIps"}),
            "UrlMapReference": frozenset({"serverTlsPolicy"}),
            "TargetHttpsProxiesSetQuicOverrideRequest": frozenset({"serverTlsPolicy"}),
        },
    ),
    Api(
        name="dns",
        documents={
            "/dns/v1/": "dns:v1",
            "/dns/v1beta2/": "dns:v1beta2",
            "/dns/dns/v1/": "dns:v1",
            "/dns/dns/v1beta2/": "dns:v1beta2",
        },
        legacy=True,
    ),
    Api(name="iam", documents={"/iam/v1/": "iam:v1"}, operations_at="root"),
    Api(name="iamcredentials", documents={"/iamcredentials/v1/": "iamcredentials:v1"}),
    Api(name="logging", package="google.logging.v2", documents={"/logging/v2/": "logging:v2"}),
    Api(
        name="monitoring",
        package="google.monitoring.v3",
        documents={"/monitoring/v1/": "monitoring:v1", "/monitoring/v3/": "monitoring:v3"},
        operations_at="root",
    ),
    Api(name="orgpolicy", documents={"/orgpolicy/v2/": "orgpolicy:v2"}),
    Api(
        name="sqladmin",
        documents={
            "/sqladmin/sql/v1beta4/": "sqladmin:v1beta4",
            "/sqladmin/v1/": "sqladmin:v1",
        },
        dialect="sql",
        legacy=True,
    ),
    Api(name="run", package="google.cloud.run.v2", documents={"/run/v2/": "run:v2"}),
    Api(name="secretmanager", documents={"/secretmanager/v1/": "secretmanager:v1"}),
    Api(
        name="servicenetworking",
        package="google.cloud.servicenetworking.v1",
        documents={"/servicenetworking/v1/": "servicenetworking:v1"},
        operations_at="root",
    ),
    Api(
        name="serviceusage",
        package="google.api.serviceusage.v1",
        documents={"/serviceusage/v1/": "serviceusage:v1", "/serviceusage/v1beta1/": "serviceusage:v1beta1"},
        operations_at="root",
    ),
    Api(
        name="storage",
        documents={"/storage/v1/": "storage:v1", "/storage/": "storage:v1"},
        legacy=True,
        any_origin=True,
        undocumented={"Object.retention": frozenset({"retentionExpirationTime"})},
    ),
    Api(name="storagetransfer", documents={"/storagetransfer/v1/": "storagetransfer:v1"}, operations_at="root"),
)

BY_NAME = {api.name: api for api in APIS}
