"""Service Usage: which APIs a project has enabled. It is kept and answered; a call to an API that is not enabled is
served all the same, so that a region can be used without ceremony."""

import functools
from importlib import resources
from typing import Any

from localgcp import generic
from localgcp.errors import InvalidArgument, PermissionDenied
from localgcp.iam import accounts
from localgcp.service import Call, Service
from localgcp.store import Resource

MAX_BATCH = 20  # discovery document, BatchEnableServicesRequest.serviceIds

# Services that can be enabled and have no discovery document of their own name.
_WITHOUT_DOCUMENT = frozenset(
    {
        "cloudapis",
        "cloudtrace",
        "clouderrorreporting",
        "cloudprofiler",
        "containerregistry",
        "datastore",
        "networkmanagement",
        "networksecurity",
        "networkservices",
        "servicemanagement",
        "source",
        "sourcerepo",
        "sql-component",
        "stackdriver",
        "storage-api",
        "storage-component",
        "telemetry",
    }
)

# The domain of an API's service agent, where it is not `gcp-sa-<api>` ("Service agents" in the reference of IAM).
_AGENT_DOMAINS = {
    "artifactregistry": "gcp-sa-artifactregistry",
    "compute": "compute-system",
    "run": "serverless-robot-prod",
    "servicenetworking": "service-networking",
    "sqladmin": "gcp-sa-cloud-sql",
    "storagetransfer": "gcp-sa-storagetransfer",
}

service = Service("serviceusage:v1")
service.permissions |= {
    "services.enable": "serviceusage.services.enable",
    "services.batchEnable": "serviceusage.services.enable",
    "services.disable": "serviceusage.services.disable",
    "services.get": "serviceusage.services.get",
    "services.batchGet": "serviceusage.services.get",
    "services.list": "serviceusage.services.list",
    "services.generateServiceIdentity": "serviceusage.services.enable",
    "operations.get": None,
}


@service.method("services.enable")
def enable(call: Call) -> dict[str, Any]:
    _check_known(call, [_api(call.key)])
    enabled = _set_state(call, call.key, "ENABLED")
    kind = "google.api.serviceusage.v1.EnableServiceResponse"
    return call.operation(target=call.key, response={"@type": f"type.googleapis.com/{kind}", "service": enabled})


@service.method("services.disable")
def disable(call: Call) -> dict[str, Any]:
    _check_known(call, [_api(call.key)])
    # Google refuses to do it twice. Here it can be repeated, for a client whose answer was lost with the region.
    disabled = _set_state(call, call.key, "DISABLED")
    kind = "google.api.serviceusage.v1.DisableServiceResponse"
    return call.operation(target=call.key, response={"@type": f"type.googleapis.com/{kind}", "service": disabled})


@service.method("services.batchEnable")
def batch_enable(call: Call) -> dict[str, Any]:
    names = [str(name) for name in call.body.get("serviceIds") or []]
    if not 0 < len(names) <= MAX_BATCH:
        raise InvalidArgument(f"A batch enables 1 to {MAX_BATCH} services, got {len(names)}.")
    _check_known(call, names)
    with call.store.transaction():
        enabled = [_set_state(call, f"{_project_key(call)}/services/{name}", "ENABLED") for name in names]
    kind = "google.api.serviceusage.v1.BatchEnableServicesResponse"
    return call.operation(
        target=_project_key(call), response={"@type": f"type.googleapis.com/{kind}", "services": enabled}
    )


@service.method("services.get")
def get(call: Call) -> dict[str, Any]:
    _check_known(call, [_api(call.key)])
    return _service(call, call.key)


@service.method("services.batchGet")
def batch_get(call: Call) -> dict[str, Any]:
    names = call.query.get("names") or []
    names = [names] if isinstance(names, str) else names
    _check_known(call, [name.rpartition("/")[2] for name in names])
    return {"services": [_service(call, f"{_project_key(call)}/services/{name.rpartition('/')[2]}") for name in names]}


@service.method("services.list")
def list_(call: Call) -> dict[str, Any]:
    stored = {_api(found.key): found for found in call.store.list(_project_key(call), "services")}
    names = sorted({*stored, *(f"{name}.googleapis.com" for name in _catalog())})
    keys = [f"{_project_key(call)}/services/{name}" for name in names]
    return generic.page(call, [Resource(key, stored.get(_api(key)) or _body(call, key, "DISABLED")) for key in keys])


@service.method("services.generateServiceIdentity")
def generate_service_identity(call: Call) -> dict[str, Any]:
    name = _api(call.named)
    _check_known(call, [name])
    api = name.removesuffix(".googleapis.com")
    number = call.region.project_number(call.project)
    email = f"service-{number}@{_AGENT_DOMAINS.get(api, f'gcp-sa-{api}')}.iam.gserviceaccount.com"
    kind = "google.api.serviceusage.v1beta1.ServiceIdentity"
    identity = {"email": email, "uniqueId": accounts.stable_unique_id(email)}
    return call.operation(target=call.key, response={"@type": f"type.googleapis.com/{kind}", **identity})


def _set_state(call: Call, key: str, state: str) -> Resource:
    return call.store.put(key, _body(call, key, state))


def _service(call: Call, key: str) -> Resource:
    return call.store.find(key) or Resource(key, _body(call, key, "DISABLED"))


def _body(call: Call, key: str, state: str) -> dict[str, Any]:
    parent = f"projects/{call.region.project_number(call.project)}"
    name = _api(key)
    return {"name": f"{parent}/services/{name}", "parent": parent, "state": state, "config": {"name": name}}


def _api(key: str) -> str:
    return key.rpartition("/")[2]


def _project_key(call: Call) -> str:
    return f"serviceusage/projects/{call.project}"


def _check_known(call: Call, names: list[str]) -> None:
    """A name that Google does not know is refused before anything is enabled, as Google does."""
    unknown = [name for name in names if name.removesuffix(".googleapis.com") not in _catalog() or "." not in name]
    if unknown:
        raise PermissionDenied(
            f"Not found or permission denied for service(s): {', '.join(unknown)}.",
            details=[
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "SERVICE_CONFIG_NOT_FOUND_OR_PERMISSION_DENIED",
                    "domain": "serviceusage.googleapis.com",
                    "metadata": {"services": ",".join(unknown)},
                }
            ],
        )


@functools.cache
def _catalog() -> frozenset[str]:
    documents = resources.files("googleapiclient") / "discovery_cache" / "documents"
    return _WITHOUT_DOCUMENT | {file.name.partition(".")[0] for file in documents.iterdir()}
