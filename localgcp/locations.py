"""Google Cloud's locations: a name that is none of them is refused, whichever API it is given to.

Which API is offered where is not here: every one is taken to be everywhere.
"""

from localgcp.errors import ApiError, InvalidArgument, PermissionDenied

MULTI_REGIONS = frozenset({"us", "eu", "asia"})
DUAL_REGIONS = frozenset({"asia1", "eur4", "eur5", "eur7", "eur8", "nam4"})
REGIONS = frozenset(
    {
        *("africa-south1", "asia-east1", "asia-east2", "asia-northeast1", "asia-northeast2", "asia-northeast3"),
        *("asia-south1", "asia-south2", "asia-southeast1", "asia-southeast2", "asia-southeast3"),
        *("australia-southeast1", "australia-southeast2"),
        *("europe-central2", "europe-north1", "europe-north2", "europe-southwest1", "europe-west1", "europe-west2"),
        *("europe-west3", "europe-west4", "europe-west6", "europe-west8", "europe-west9", "europe-west10"),
        *("europe-west12", "me-central1", "me-central2", "me-west1"),
        *("northamerica-northeast1", "northamerica-northeast2", "northamerica-south1"),
        *("southamerica-east1", "southamerica-west1"),
        *("us-central1", "us-east1", "us-east4", "us-east5", "us-south1"),
        *("us-west1", "us-west2", "us-west3", "us-west4"),
    }
)


def check(location: str, api: str, consumer: str) -> None:
    """Raises what Google answers to a path with a location that does not exist; `-` stands for every one."""
    region = location.rpartition("-")[0] if api == "compute" and location[-2:-1] == "-" else location
    if (
        location in ("-", "global", "europe")
        or region in REGIONS
        or location in MULTI_REGIONS
        or location in DUAL_REGIONS
    ):
        return
    raise _unknown(location, api, consumer)


def _unknown(location: str, api: str, consumer: str) -> ApiError:
    if api == "compute":
        return InvalidArgument(
            f"Invalid value for field 'region': '{location}'. Unknown region.", reason="invalid", location="region"
        )
    details = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "LOCATION_POLICY_VIOLATED",
        "domain": "googleapis.com",
        "metadata": {"consumer": consumer, "location": location, "service": f"{api}.googleapis.com"},
    }
    return PermissionDenied(f"Permission denied on 'locations/{location}' (or it may not exist).", details=[details])
