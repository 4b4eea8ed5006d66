"""Enum values sent as numbers, which google-cloud-* clients do (`$alt=json;enum-encoding=int`).

Discovery documents list names without numbers. Nearly always a name's number in the proto is its position in the list;
the exceptions are here, taken from the protos that ship with Google's client libraries, and a test compares the two.
"""

import functools

#: google.logging.type.LogSeverity
SEVERITIES = {
    "DEFAULT": 0,
    "DEBUG": 100,
    "INFO": 200,
    "NOTICE": 300,
    "WARNING": 400,
    "ERROR": 500,
    "CRITICAL": 600,
    "ALERT": 700,
    "EMERGENCY": 800,
}

# Names -> numbers, for the enums that have every one of these names. The names not listed are at their positions.
EXCEPTIONS: tuple[dict[str, int], ...] = (
    # google.api.LaunchStage
    {"EARLY_ACCESS": 1, "ALPHA": 2, "BETA": 3, "GA": 4, "DEPRECATED": 5, "UNIMPLEMENTED": 6, "PRELAUNCH": 7},
    # google.devtools.cloudbuild.v1.BuildOptions
    {"CLOUD_LOGGING_ONLY": 5, "NONE": 4, "LEGACY": 1, "GCS_ONLY": 2},
    {"E2_HIGHCPU_8": 5, "E2_HIGHCPU_32": 6, "E2_MEDIUM": 7, "E2_STANDARD_2": 11},
    {"BEST_EFFORT": 3},
    # google.devtools.artifactregistry.v1
    {"APT": 5, "YUM": 6, "PYTHON": 8, "KFP": 9, "GO": 10, "GENERIC": 11, "RUBY": 12},
    {"REDIRECTION_FROM_GCR_IO_ENABLED_AND_COPYING": 5, "REDIRECTION_FROM_GCR_IO_PARTIAL_AND_COPYING": 6},
    SEVERITIES,
    # google.cloud.secretmanager.v1.Secret
    {"OTHER": 50},
)


@functools.cache
def name_by_number(names: tuple[str, ...]) -> dict[int, str]:
    """The names of an enum by their proto numbers."""
    exceptions = next((found for found in EXCEPTIONS if found.keys() <= set(names)), {})
    by_number = {position: name for position, name in enumerate(names) if name not in exceptions}
    return by_number | {number: name for name, number in exceptions.items()}
