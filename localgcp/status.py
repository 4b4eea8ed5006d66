"""What is in a region, for `localgcp status`: projects, services and databases, and where this machine reaches them."""

from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from localgcp.sql import socket_root

if TYPE_CHECKING:
    from localgcp.region import Region

PATH = "/_localgcp/status"


async def status_app(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI: `GET /_localgcp/status`."""
    region: Region = scope["region"]
    status = await region.run_in_thread(status_of, region)
    await JSONResponse(status)(scope, receive, send)


def status_of(region: "Region") -> dict[str, Any]:
    return {
        "api": region.settings.api_url,
        "dataDir": str(region.settings.data_dir.absolute()),
        "time": region.clock.now().isoformat(),
        "projects": _projects(region),
        "services": [_service(region, found) for found in region.store.scan("run/projects/") if _is(found, "services")],
        "jobs": [_named(found) for found in region.store.scan("run/projects/") if _is(found, "jobs")],
        "instances": [
            _instance(region, found) for found in region.store.scan("sqladmin/projects/") if _is(found, "instances")
        ],
        "buckets": [_bucket(region, found) for found in region.store.scan("storage/b/") if found.key.count("/") == 2],
        "frontDoors": _front_doors(region),
    }


def _projects(region: "Region") -> list[dict[str, str]]:
    rows = region.store.rows("SELECT id, number FROM projects ORDER BY id")
    return [{"id": row["id"], "number": row["number"]} for row in rows]


def _service(region: "Region", service: Any) -> dict[str, Any]:
    condition = service.get("terminalCondition") or {}
    uri = str(service.get("uri", ""))
    return _named(service) | {
        "uri": uri,
        "ready": condition.get("state", "") == "CONDITION_SUCCEEDED",
        "message": condition.get("message", ""),
        # The API's own port serves every Cloud Run host: the Host header says which.
        "reach": f"curl -H 'Host: {uri.removeprefix('https://')}' {region.settings.api_url}/" if uri else "",
    }


def _instance(region: "Region", instance: Any) -> dict[str, Any]:
    addresses = [address.get("ipAddress", "") for address in instance.get("ipAddresses", [])]
    return {
        "project": instance.get("project", ""),
        "name": instance.get("name", ""),
        "connectionName": instance.get("connectionName", ""),
        "databaseVersion": instance.get("databaseVersion", ""),
        "state": instance.get("state", ""),
        "addresses": sorted({address for address in addresses if address}),
        # What psql takes as its host.
        "socketDirectory": str(socket_root(region) / instance.get("connectionName", "")),
    }


def _bucket(region: "Region", bucket: Any) -> dict[str, Any]:
    project = region.project_id(str(bucket.get("projectNumber", "")))
    return {"project": project, "name": bucket.get("name", ""), "location": bucket.get("location", "")}


def _front_doors(region: "Region") -> list[dict[str, Any]]:
    """Forwarding rules, each with the loopback address that the load balancer listens on for it."""
    addresses: dict[str, str] = getattr(getattr(region, "edge", None), "addresses", dict)()
    return [
        {
            "project": rule.key.split("/")[2],
            "name": rule.get("name", ""),
            "address": f"{rule.get('IPAddress', '')}:{str(rule.get('portRange', '')).partition('-')[0]}",
            "url": addresses.get(rule.key, ""),
        }
        for rule in region.store.scan("compute/projects/")
        if _is(rule, "forwardingRules")
    ]


def _named(resource: Any) -> dict[str, Any]:
    words = resource.key.split("/")
    return {"project": words[2], "location": words[4], "name": words[-1]}


def _is(resource: Any, collection: str) -> bool:
    words = resource.key.split("/")
    return len(words) > 2 and words[-2] == collection
