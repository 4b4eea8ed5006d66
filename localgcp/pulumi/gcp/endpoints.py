"""Where each API is: the real provider's `GOOGLE_*_CUSTOM_ENDPOINT` variables, and Google when they are not set."""

import os
from collections.abc import Mapping

#: API -> (variable, Google's address).
_ENDPOINTS: Mapping[str, tuple[str, str]] = {
    "artifactregistry": ("GOOGLE_ARTIFACT_REGISTRY_CUSTOM_ENDPOINT", "https://artifactregistry.googleapis.com/v1/"),
    "billingbudgets": ("GOOGLE_BILLING_BUDGETS_CUSTOM_ENDPOINT", "https://billingbudgets.googleapis.com/v1/"),
    "certificatemanager": (
        "GOOGLE_CERTIFICATE_MANAGER_CUSTOM_ENDPOINT",
        "https://certificatemanager.googleapis.com/v1/",
    ),
    "cloudbuild": ("GOOGLE_CLOUD_BUILD_CUSTOM_ENDPOINT", "https://cloudbuild.googleapis.com/v1/"),
    "cloudkms": ("GOOGLE_KMS_CUSTOM_ENDPOINT", "https://cloudkms.googleapis.com/v1/"),
    "cloudresourcemanager": (
        "GOOGLE_RESOURCE_MANAGER_CUSTOM_ENDPOINT",
        "https://cloudresourcemanager.googleapis.com/v1/",
    ),
    "cloudscheduler": ("GOOGLE_CLOUD_SCHEDULER_CUSTOM_ENDPOINT", "https://cloudscheduler.googleapis.com/v1/"),
    "cloudtasks": ("GOOGLE_CLOUD_TASKS_CUSTOM_ENDPOINT", "https://cloudtasks.googleapis.com/v2/"),
    "compute": ("GOOGLE_COMPUTE_CUSTOM_ENDPOINT", "https://compute.googleapis.com/compute/beta/"),
    "dns": ("GOOGLE_DNS_CUSTOM_ENDPOINT", "https://dns.googleapis.com/dns/v1beta2/"),
    "iam": ("GOOGLE_IAM_BETA_CUSTOM_ENDPOINT", "https://iam.googleapis.com/v1/"),
    "logging": ("GOOGLE_LOGGING_CUSTOM_ENDPOINT", "https://logging.googleapis.com/v2/"),
    "monitoring": ("GOOGLE_MONITORING_CUSTOM_ENDPOINT", "https://monitoring.googleapis.com/"),
    "orgpolicy": ("GOOGLE_ORG_POLICY_CUSTOM_ENDPOINT", "https://orgpolicy.googleapis.com/v2/"),
    "run": ("GOOGLE_CLOUD_RUN_V2_CUSTOM_ENDPOINT", "https://run.googleapis.com/v2/"),
    "secretmanager": ("GOOGLE_SECRET_MANAGER_CUSTOM_ENDPOINT", "https://secretmanager.googleapis.com/v1/"),
    "servicenetworking": (
        "GOOGLE_SERVICE_NETWORKING_CUSTOM_ENDPOINT",
        "https://servicenetworking.googleapis.com/v1/",
    ),
    "serviceusage": ("GOOGLE_SERVICE_USAGE_CUSTOM_ENDPOINT", "https://serviceusage.googleapis.com/v1beta1/"),
    "sqladmin": ("GOOGLE_SQL_CUSTOM_ENDPOINT", "https://sqladmin.googleapis.com/sql/v1beta4/"),
    "storage": ("GOOGLE_STORAGE_CUSTOM_ENDPOINT", "https://storage.googleapis.com/storage/v1/"),
    "storagetransfer": ("GOOGLE_STORAGE_TRANSFER_CUSTOM_ENDPOINT", "https://storagetransfer.googleapis.com/v1/"),
}


class Endpoints:
    """Base addresses, each with a final slash. `serviceusage/v1` is that API at another version than its own."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        self._bases = {api: environment.get(variable) or default for api, (variable, default) in _ENDPOINTS.items()}

    def __getitem__(self, api: str) -> str:
        name, _, version = api.partition("/")
        if name == "upload":
            # Uploads are at the root of the storage host, whatever prefix the endpoint has.
            scheme, _, rest = self._bases["storage"].partition("://")
            return f"{scheme}://{rest.partition('/')[0]}/upload/storage/v1/"
        base = self._bases[name]
        if not version:
            return base
        if name == "monitoring":
            # This one carries no version of its own.
            return f"{base}{version}/"
        return f"{base.rstrip('/').rpartition('/')[0]}/{version}/"
