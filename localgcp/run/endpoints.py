"""Where a workload finds Google's APIs: the variables that Google's clients and the provider read."""

#: Variable -> path at the region's address.
PATHS = {
    "GOOGLE_ARTIFACT_REGISTRY_CUSTOM_ENDPOINT": "/artifactregistry/v1/",
    "GOOGLE_CERTIFICATE_MANAGER_CUSTOM_ENDPOINT": "/certificatemanager/v1/",
    "GOOGLE_CLOUD_BUILD_CUSTOM_ENDPOINT": "/cloudbuild/v1/",
    "GOOGLE_CLOUD_RUN_V2_CUSTOM_ENDPOINT": "/run/v2/",
    "GOOGLE_CLOUD_SCHEDULER_CUSTOM_ENDPOINT": "/cloudscheduler/v1/",
    "GOOGLE_CLOUD_TASKS_CUSTOM_ENDPOINT": "/cloudtasks/v2/",
    "GOOGLE_COMPUTE_CUSTOM_ENDPOINT": "/compute/v1/",
    "GOOGLE_IAM_BETA_CUSTOM_ENDPOINT": "/iam/v1/",
    "GOOGLE_IAM_CREDENTIALS_CUSTOM_ENDPOINT": "/iamcredentials/v1/",
    "GOOGLE_KMS_CUSTOM_ENDPOINT": "/cloudkms/v1/",
    "GOOGLE_LOGGING_CUSTOM_ENDPOINT": "/logging/v2/",
    "GOOGLE_MONITORING_CUSTOM_ENDPOINT": "/monitoring/",
    "GOOGLE_RESOURCE_MANAGER_CUSTOM_ENDPOINT": "/cloudresourcemanager/v1/",
    "GOOGLE_SECRET_MANAGER_CUSTOM_ENDPOINT": "/secretmanager/v1/",
    "GOOGLE_SQL_CUSTOM_ENDPOINT": "/sqladmin/sql/v1beta4/",
    "GOOGLE_STORAGE_CUSTOM_ENDPOINT": "/storage/v1/",
}


def environment(api_url: str) -> dict[str, str]:
    return {name: api_url + path for name, path in PATHS.items()} | {"STORAGE_EMULATOR_HOST": api_url}
