"""Cloud DNS: zones, and record sets, which exist only through changes of a zone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localgcp.pulumi.gcp.kind import Kind, Work
from localgcp.pulumi.gcp.mapping import Body, Encoding, Values, expand
from localgcp.pulumi.gcp.rest import RestError
from localgcp.pulumi.gcp.values import relative_link
from localgcp.pulumi.provider import ProviderError

#: Records and changes are called at this version, zones at that of the endpoint.
_RECORDS = "dns/v1"


@dataclass(frozen=True, kw_only=True)
class ManagedZone(Kind):
    def encode(self, work: Work, *, updating: bool) -> Body:
        body = super().encode(work, updating=updating)
        for network in body["privateVisibilityConfig"].get("networks", []):
            network["networkUrl"] = work.rest.endpoints["compute"] + relative_link(network["networkUrl"])
        return body

    def decode(self, work: Work, body: Mapping[str, Any]) -> Values:
        live = super().decode(work, body)
        visibility = live.get("privateVisibilityConfig") or {}
        if not visibility.get("networks") and not visibility.get("gkeClusters"):
            live.pop("privateVisibilityConfig", None)
        return live

    def delete(self, work: Work) -> None:
        if work.value("forceDestroy"):
            path = self.path(work)
            records = work.call("GET", _RECORDS, f"{path}/rrsets").get("rrsets", [])
            apex = str(work.value("dnsName"))
            deletions = [r for r in records if not (r["type"] in ("NS", "SOA") and r["name"] == apex)]
            if deletions:
                _change(work, path, {"deletions": deletions})
        super().delete(work)


_ZONE_ALWAYS: Mapping[str, Mapping[str, Any]] = {"": {"privateVisibilityConfig.networks": []}}

MANAGED_ZONE = ManagedZone(
    type="gcp:dns/managedZone:ManagedZone",
    api="dns",
    collection="projects/{project}/managedZones",
    name_in_body="short",
    update_method="PUT",
    encoding=Encoding(always=_ZONE_ALWAYS),
    update_encoding=Encoding(
        always=_ZONE_ALWAYS,
        sent_outputs=frozenset({"creationTime", "managedZoneId", "nameServers"}),
    ),
)


def _change(work: Work, zone: str, change: Body) -> None:
    """Make a change and wait until it is done. It is always asked for once, also when it came back done."""
    request_id = work.creation_id("POST", f"{zone}/changes", change) if "deletions" not in change else ""
    answer = work.call("POST", _RECORDS, f"{zone}/changes", body=change, request_id=request_id)
    while True:
        answer = work.call("GET", _RECORDS, f"{zone}/changes/{answer['id']}")
        if answer.get("status") != "pending":
            return
        work.pause()


@dataclass(frozen=True, kw_only=True)
class RecordSet(Kind):
    auto_name: bool = False
    id_form: str = "projects/{project}/managedZones/{managedZone}/rrsets/{name}/{type}"

    def _zone(self, work: Work) -> str:
        return f"projects/{work.project}/managedZones/{str(work.value('managedZone')).rpartition('/')[2]}"

    def _record(self, values: Mapping[str, Any]) -> Body:
        wanted = {name: values.get(name) for name in ("name", "type", "ttl", "rrdatas", "routingPolicy")}
        return expand(self.properties, wanted, self.encoding)

    def _is_apex(self, record: Mapping[str, Any]) -> bool:
        return record.get("type") in ("NS", "SOA")

    def create(self, work: Work) -> Body | None:
        zone = self._zone(work)
        wanted = self._record(work.plan)
        there = work.call("GET", _RECORDS, f"{zone}/rrsets").get("rrsets", [])
        change: Body = {"additions": [wanted]}
        # A zone has its NS and SOA records from the beginning; setting them replaces those.
        old = [r for r in there if self._is_apex(r) and (r["name"], r["type"]) == (wanted["name"], wanted["type"])]
        if old:
            change["deletions"] = old
        _change(work, zone, change)
        work.id = self.identify(work)
        return None

    def update(self, work: Work) -> Body | None:
        if self.changed_fields(work):
            old, new = self._record(work.old_inputs), self._record(work.plan)
            _change(work, self._zone(work), {"additions": [new], "deletions": [old]})
        return None

    def delete(self, work: Work) -> None:
        if self._is_apex(work.plan):
            return  # a zone cannot be without them
        try:
            _change(work, self._zone(work), {"deletions": [self._record(work.inputs)]})
        except RestError as error:
            if error.status != 404:
                raise

    def get(self, work: Work) -> Body | None:
        query = {"name": str(work.value("name")), "type": str(work.value("type"))}
        try:
            found = work.call("GET", _RECORDS, f"{self._zone(work)}/rrsets", query=query).get("rrsets", [])
        except RestError as error:
            if error.status == 404:
                return None
            raise
        return found[0] if found else None

    def decode(self, work: Work, body: Mapping[str, Any]) -> Values:
        live = super().decode(work, body)
        return {**live, "project": work.project, "managedZone": work.value("managedZone"), "name": body["name"]}

    def parse_id(self, id: str) -> Values:
        parts = id.split("/")
        if len(parts) != 7:
            raise ProviderError(f"{id!r} is no id of a RecordSet: expected {self.id_form}")
        return {"project": parts[1], "managedZone": parts[3], "name": parts[5], "type": parts[6]}


def _same_records(a: Any, b: Any) -> bool:
    """The order of a record set's data says nothing."""
    return isinstance(a, list) and isinstance(b, list) and sorted(map(str, a)) == sorted(map(str, b))


RECORD_SET = RecordSet(
    type="gcp:dns/recordSet:RecordSet",
    api="dns",
    collection="projects/{project}/managedZones/{managedZone}/rrsets",
    alike={"rrdatas": _same_records},
)

KINDS = (MANAGED_ZONE, RECORD_SET)
