"""Cloud DNS: zones that delegate to name servers, and record sets that change in transactions. Nothing resolves."""

import ipaddress
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from localgcp.clock import timestamp
from localgcp.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from localgcp.generic import existing, page
from localgcp.service import Call, Service
from localgcp.store import Resource
from localgcp.validation import without_nulls

service = Service("dns:v1")
service.allow("dns.managedZones", "managedZones")
service.allow("dns.resourceRecordSets", "resourceRecordSets")
service.allow("dns.changes", "changes")
service.allow("dns.managedZoneOperations", "managedZoneOperations")
service.permissions["projects.get"] = "dns.projects.get"

ADDRESS_TYPES: dict[str, type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address]] = {
    "A": ipaddress.IPv4Address,
    "AAAA": ipaddress.IPv6Address,
}
NAME_SERVERS = [f"ns-cloud-a{number}.googledomains.com." for number in range(1, 5)]
# Cloud DNS, "DNSSEC advanced configuration": the default algorithm and key lengths of a signed zone.
DNSSEC_KEYS = [
    {"kind": "dns#dnsKeySpec", "keyType": "keySigning", "algorithm": "rsasha256", "keyLength": 2048},
    {"kind": "dns#dnsKeySpec", "keyType": "zoneSigning", "algorithm": "rsasha256", "keyLength": 1024},
]


@service.method("managedZones.create")
def create_zone(call: Call) -> Resource:
    _check_name(call.body)
    zone: Resource = call.proceed()
    with call.store.transaction():
        return _completed(call, zone, call.store.increment(zone.key, "id"))


@service.method("managedZones.update", "managedZones.patch")
def update_zone(call: Call) -> dict[str, Any]:
    with call.store.transaction():
        before = existing(call)
        # The answer to a PUT is the whole zone; what the server owns stays as it was.
        changes = without_nulls({**call.body, "id": None, "name": None})
        base = before if call.method.verb == "patch" else {"kind": before["kind"], "name": before["name"]}
        zone = Resource(before.key, {**base, **changes})
        _check_name(zone)
        zone |= {"id": before["id"], "creationTime": before["creationTime"]}
        after = _completed(call, zone, int(before["id"]))
    now = timestamp(call.region.clock.now())
    return {
        "kind": "dns#operation",
        "id": str(call.store.increment(before.key, "operation")),
        "startTime": now,
        "user": call.principal.email or "",
        "type": "update",
        "status": "done",
        "zoneContext": {"oldValue": before, "newValue": after},
    }


@service.method("managedZones.delete")
def delete_zone(call: Call) -> Response:
    with call.store.transaction():
        zone = existing(call)
        others = [r for r in call.store.list(zone.key, "rrsets") if r["type"] not in ("NS", "SOA")]
        if others:
            raise FailedPrecondition(
                f"The resource named '{zone['name']}' cannot be deleted because it contains one or more"
                " 'resource record sets'.",
                reason="containerNotEmpty",
            )
        call.store.delete(zone.key)
    return Response(status_code=204)


@service.method("changes.create")
def change_records(call: Call) -> Resource:
    """All additions and deletions, or none: a deletion must equal what is there, an addition must be free."""
    with call.store.transaction():
        zone = existing(call)
        for record in call.body.get("deletions") or ():
            _check_fields("entity.change.deletions", record)
            key = _record_key(zone, record)
            found = call.store.find(key)
            if found is None or _data(found) != _data(record):
                raise NotFound(
                    f"The 'entity.change.deletions' resource named '{record['name']} ({record['type']})'"
                    " does not exist."
                )
            call.store.delete(key)
        for record in call.body.get("additions") or ():
            _add(call, zone, record)
        number = str(call.store.increment(zone.key, "change"))
        body = {
            "kind": "dns#change",
            "id": number,
            "startTime": timestamp(call.region.clock.now()),
            "status": "done",
            **without_nulls(call.body),
        }
        return call.store.create(f"{zone.key}/changes/{number}", body)


@service.method("resourceRecordSets.list")
def list_records(call: Call) -> dict[str, Any]:
    existing(call)
    wanted = {name: call.query[name] for name in ("name", "type") if call.query.get(name)}
    records = [
        record
        for record in call.store.list(call.key, "rrsets")
        if all(record[name] == value for name, value in wanted.items())
    ]
    return page(call, records)


@service.method("resourceRecordSets.create")
def create_record(call: Call) -> Resource:
    with call.store.transaction():
        return _add(call, existing(call), call.body)


@service.method("resourceRecordSets.get")
def get_record(call: Call) -> Resource:
    return _record(call)


@service.method("resourceRecordSets.patch")
def update_record(call: Call) -> Resource:
    with call.store.transaction():
        current = _record(call)
        changed = {**current, **without_nulls(call.body)}
        if (changed["name"], changed["type"]) != (current["name"], current["type"]):
            raise InvalidArgument("The name and the type of a resource record set cannot be changed.", reason="invalid")
        _check_addresses(changed)
        return call.store.put(current.key, changed)


@service.method("resourceRecordSets.delete")
def delete_record(call: Call) -> dict[str, Any]:
    with call.store.transaction():
        call.store.delete(_record(call).key)
    return {}


@service.method("projects.get")
def get_project(call: Call) -> dict[str, Any]:
    return {"kind": "dns#project", "id": call.project, "number": call.region.project_number(call.project)}


def _record(call: Call) -> Resource:
    """The record set that the path names: its name and its type are two segments, and one key."""
    zone = call.key.partition("/rrsets/")[0]
    if not call.store.exists(zone):
        raise NotFound(f"The 'parameters.managedZone' resource named '{call.params['managedZone']}' does not exist.")
    name, kind = call.params["name"], call.params["type"]
    found = call.store.find(f"{zone}/rrsets/{name} {kind}")
    if found is None:
        raise NotFound(f"The 'parameters.name' resource named '{name} ({kind})' does not exist.")
    return found


def _completed(call: Call, zone: Resource, number: int) -> Resource:
    """A zone with what the server adds: name servers, DNSSEC keys, and its first two record sets."""
    zone.setdefault("visibility", "public")
    zone |= {"kind": "dns#managedZone", "id": str(number)}
    if zone["visibility"] == "public":
        zone["nameServers"] = NAME_SERVERS
        # Sent by the provider for every zone; a public one that answered it would show as changed.
        zone.pop("privateVisibilityConfig", None)
    if zone.get("dnssecConfig", {}).get("state") == "on":
        zone["dnssecConfig"] = {
            "kind": "dns#managedZoneDnsSecConfig",
            "nonExistence": "nsec3",
            "defaultKeySpecs": DNSSEC_KEYS,
            **zone["dnssecConfig"],
        }
    call.store.put(zone.key, zone)
    soa = f"{NAME_SERVERS[0]} cloud-dns-hostmaster.google.com. 1 21600 3600 259200 300"
    for kind, data in (("NS", NAME_SERVERS), ("SOA", [soa])):
        record = {"name": zone["dnsName"], "type": kind, "ttl": 21600, "rrdatas": data}
        call.store.put(_record_key(zone, record), {"kind": "dns#resourceRecordSet", **record})
    return zone


def _add(call: Call, zone: Resource, record: dict[str, Any]) -> Resource:
    _check_fields("entity.change.additions", record)
    if record["name"] != zone["dnsName"] and not record["name"].endswith("." + zone["dnsName"]):
        raise InvalidArgument(
            f"Invalid value for 'entity.change.additions.name': '{record['name']}' is not within {zone['dnsName']}"
        )
    _check_addresses(record)
    key = _record_key(zone, record)
    if call.store.exists(key):
        raise AlreadyExists(
            f"The resource 'entity.change.additions' named '{record['name']} ({record['type']})' already exists"
        )
    return call.store.create(key, {"kind": "dns#resourceRecordSet", **without_nulls(record)})


def _check_addresses(record: dict[str, Any]) -> None:
    address = ADDRESS_TYPES.get(record["type"])
    if address is None:
        return
    for index, data in enumerate(record.get("rrdatas") or ()):
        try:
            address(data)
        except ValueError:
            raise InvalidArgument(
                f"Invalid value for 'entity.change.additions.rrdata[{index}]': '{data}'", reason="invalid"
            ) from None


def _record_key(zone: Resource, record: dict[str, Any]) -> str:
    return f"{zone.key}/rrsets/{record['name']} {record['type']}"


def _check_name(zone: Mapping[str, Any]) -> None:
    name = zone.get("dnsName") or ""
    if not name.endswith("."):
        raise InvalidArgument(f"Invalid value for 'entity.managedZone.dnsName': '{name}': it must end with a dot.")


def _check_fields(where: str, record: Mapping[str, Any]) -> None:
    """A routing policy takes the place of data; its record need not have a time to live."""
    needed = ("name", "type") if "routingPolicy" in record else ("name", "type", "ttl", "rrdatas")
    missing = [name for name in needed if not record.get(name) and record.get(name) != 0]
    if missing:
        raise InvalidArgument(f"Required field '{where}.{missing[0]}' not specified", reason="required")


def _data(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a deletion has to repeat of a record."""
    return record.get("ttl"), sorted(record.get("rrdatas") or ()), record.get("routingPolicy")
