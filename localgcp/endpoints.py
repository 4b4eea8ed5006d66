"""The variables that point Google's clients, the real Pulumi provider and ours at a region."""

from collections.abc import Mapping

#: Variable -> path at the region's address. Each value ends as the real provider wants it: SQL in `sql/v1beta4/`, DNS
#: in `/dns/` and a version at the host's root, monitoring without a version, service usage in v1beta1.
PATHS = {
    "GOOGLE_ARTIFACT_REGISTRY_CUSTOM_ENDPOINT": "/artifactregistry/v1/",
    "GOOGLE_BILLING_BUDGETS_CUSTOM_ENDPOINT": "/billingbudgets/v1/",
    "GOOGLE_CERTIFICATE_MANAGER_CUSTOM_ENDPOINT": "/certificatemanager/v1/",
    "GOOGLE_CLOUD_BILLING_CUSTOM_ENDPOINT": "/cloudbilling/v1/",
    "GOOGLE_CLOUD_BUILD_CUSTOM_ENDPOINT": "/cloudbuild/v1/",
    "GOOGLE_CLOUD_RUN_V2_CUSTOM_ENDPOINT": "/run/v2/",
    "GOOGLE_CLOUD_SCHEDULER_CUSTOM_ENDPOINT": "/cloudscheduler/v1/",
    "GOOGLE_CLOUD_TASKS_CUSTOM_ENDPOINT": "/cloudtasks/v2/",
    "GOOGLE_COMPUTE_CUSTOM_ENDPOINT": "/compute/v1/",
    "GOOGLE_DNS_CUSTOM_ENDPOINT": "/dns/v1beta2/",
    "GOOGLE_IAM_BETA_CUSTOM_ENDPOINT": "/iam/v1/",
    "GOOGLE_IAM_CREDENTIALS_CUSTOM_ENDPOINT": "/iamcredentials/v1/",
    "GOOGLE_KMS_CUSTOM_ENDPOINT": "/cloudkms/v1/",
    "GOOGLE_LOGGING_CUSTOM_ENDPOINT": "/logging/v2/",
    "GOOGLE_MONITORING_CUSTOM_ENDPOINT": "/monitoring/",
    # Not one of the provider's: where our own programs find the certificates that ID tokens are checked with.
    "GOOGLE_OAUTH2_CUSTOM_ENDPOINT": "/oauth2/",
    "GOOGLE_ORG_POLICY_CUSTOM_ENDPOINT": "/orgpolicy/v2/",
    "GOOGLE_RESOURCE_MANAGER_CUSTOM_ENDPOINT": "/cloudresourcemanager/v1/",
    "GOOGLE_RESOURCE_MANAGER_V3_CUSTOM_ENDPOINT": "/cloudresourcemanager/v3/",
    "GOOGLE_SECRET_MANAGER_CUSTOM_ENDPOINT": "/secretmanager/v1/",
    "GOOGLE_SERVICE_NETWORKING_CUSTOM_ENDPOINT": "/servicenetworking/v1/",
    "GOOGLE_SERVICE_USAGE_CUSTOM_ENDPOINT": "/serviceusage/v1beta1/",
    "GOOGLE_SQL_CUSTOM_ENDPOINT": "/sqladmin/sql/v1beta4/",
    "GOOGLE_STORAGE_CUSTOM_ENDPOINT": "/storage/v1/",
    "GOOGLE_STORAGE_TRANSFER_CUSTOM_ENDPOINT": "/storagetransfer/v1/",
    "GOOGLE_TAGS_CUSTOM_ENDPOINT": "/cloudresourcemanager/v3/",
}


def without_proxy(environ: Mapping[str, str]) -> dict[str, str]:
    """What keeps a proxy out of the way to the region. Both spellings: gRPC knows the small one only."""
    given = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    hosts = [host for host in (entry.strip() for entry in given.split(",")) if host]
    value = ",".join([*hosts, *(host for host in ("127.0.0.1", "localhost") if host not in hosts)])
    return {"NO_PROXY": value, "no_proxy": value}


def environment(api_url: str) -> dict[str, str]:
    """Endpoints only; credentials are another matter."""
    return {name: api_url + path for name, path in PATHS.items()} | {"STORAGE_EMULATOR_HOST": api_url}
