"""Service Networking: the peering through which managed services reach a network, above all Cloud SQL's private IP."""

import re
from typing import Any

from localgcp.errors import FailedPrecondition, InvalidArgument, NotFound
from localgcp.fieldmask import parse_mask
from localgcp.service import Call, Service
from localgcp.store import Resource

PEERING = "servicenetworking-googleapis-com"

_NETWORK = re.compile(r"projects/([^/]+)/global/networks/([^/]+)")

service = Service("servicenetworking:v1")
service.permissions |= {
    # The handlers check: which project is meant stands in the body or the query, not in the path.
    "services.connections.create": None,
    "services.connections.list": None,
    "services.connections.patch": None,
    "services.connections.deleteConnection": None,
    "operations.get": None,
    "operations.list": None,
}


@service.method("services.connections.create")
def create_connection(call: Call) -> dict[str, Any]:
    network, key = _network(call, call.body.get("network"), "servicenetworking.services.addPeering")
    ranges = _checked_ranges(call, key, call.body.get("reservedPeeringRanges"))
    with call.store.transaction():
        if call.store.exists(key):
            raise FailedPrecondition("Cannot modify allocated ranges in CreateConnection. Please use UpdateConnection.")
        body = {
            "network": network,
            "reservedPeeringRanges": ranges,
            "peering": PEERING,
            "service": f"services/{_service_name(call)}",
        }
        created = call.store.create(key, body)
    return call.operation(target=key, response=_typed(created))


@service.method("services.connections.list")
def list_connections(call: Call) -> dict[str, Any]:
    if not call.query.get("network"):
        raise InvalidArgument("network is required: projects/<number>/global/networks/<name>.", location="network")
    network, key = _network(call, call.query["network"], "servicenetworking.services.get", must_exist=False)
    found = call.store.find(key)
    return {"connections": [{**found, "network": network}]} if found else {}


@service.method("services.connections.patch")
def patch_connection(call: Call) -> dict[str, Any]:
    _, key = _network(call, call.body.get("network"), "servicenetworking.services.addPeering")
    ranges = _checked_ranges(call, key, call.body.get("reservedPeeringRanges"))
    if mask := call.query.get("updateMask"):
        schema = call.method.document.schemas["Connection"]["properties"]
        parse_mask(str(mask), schema, "Connection")
    with call.store.transaction():
        current = call.store.find(key)
        if current is None:
            raise NotFound(f"No connection of {call.body.get('network')} was found.")
        changed = call.store.put(key, {**current, "reservedPeeringRanges": ranges})
    return call.operation(target=key, response=_typed(changed))


@service.method("services.connections.deleteConnection")
def delete_connection(call: Call) -> dict[str, Any]:
    consumer = call.body.get("consumerNetwork")
    _, key = _network(call, consumer, "servicenetworking.services.deleteConnection", must_exist=False)
    if not call.store.exists(key):
        raise NotFound(f"No connection of {consumer} was found.")

    def work() -> dict[str, Any]:
        with call.store.transaction():
            if users := _instances_on(call, key):
                raise FailedPrecondition(
                    "Failed to delete connection; Producer services (e.g. CloudSQL, Cloud Memstore, etc.) are still"
                    f" using this connection. (Here: {', '.join(users)}.)"
                )
            call.store.delete(key)
        return {"@type": "type.googleapis.com/google.protobuf.Empty"}

    return call.operation(work, target=key)


def _network(call: Call, name: Any, permission: str, *, must_exist: bool = True) -> tuple[str, str]:
    """The network's name with the project's number, and the key of its connection."""
    match = _NETWORK.fullmatch(str(name or ""))
    if match is None:
        raise InvalidArgument(f"'{name}' is not projects/<number>/global/networks/<name>.")
    project = call.region.project_id(match[1])
    call.check(permission, f"cloudresourcemanager/projects/{project}")
    if must_exist and not call.store.exists(f"compute/projects/{project}/global/networks/{match[2]}"):
        raise NotFound(f"The network projects/{project}/global/networks/{match[2]} was not found.")
    numbered = f"projects/{call.region.project_number(project)}/global/networks/{match[2]}"
    # Below the network, which is not deleted while it is there.
    return numbered, f"compute/projects/{project}/global/networks/{match[2]}/connections/{PEERING}"


def _checked_ranges(call: Call, key: str, names: Any) -> list[str]:
    if not names:
        raise InvalidArgument("reservedPeeringRanges must name at least one allocated range.")
    project = key.split("/")[2]
    for name in names:
        address = call.store.find(f"compute/projects/{project}/global/addresses/{name}")
        if address is None or address.get("purpose") != "VPC_PEERING":
            raise InvalidArgument(
                f"'{name}' is no global address of purpose VPC_PEERING in project {project}: allocate the range first."
            )
    return list(names)


def _instances_on(call: Call, key: str) -> list[str]:
    """Cloud SQL instances whose private address is in the network."""
    _, _, project, _, _, network, *_ = key.split("/")
    found = []
    for instance in call.store.list(f"sqladmin/projects/{project}", "instances"):
        configuration = instance.get("settings", {}).get("ipConfiguration", {})
        if str(configuration.get("privateNetwork", "")).endswith(f"/networks/{network}"):
            found.append(str(instance.get("name")))
    return found


def _service_name(call: Call) -> str:
    return call.named.removeprefix("services/").partition("/")[0]


def _typed(connection: Resource) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.cloud.servicenetworking.v1.Connection", **connection}
