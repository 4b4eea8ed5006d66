"""Certificate Manager: certificates, maps and authorisations are kept, and refer only to what exists.

A managed certificate is ACTIVE at once: no certificate is issued, and the front door does not speak TLS.
"""

import hashlib
from datetime import timedelta
from typing import Any

from localgcp.clock import timestamp
from localgcp.errors import FailedPrecondition, InvalidArgument, NotFound
from localgcp.generic import existing
from localgcp.service import Call, Service

# "Managed certificates" of Certificate Manager: valid for 90 days, renewed a month before the end.
_VALIDITY = timedelta(days=90)
_LOCATION = "projects.locations"

service = Service("certificatemanager:v1")
service.allow("certificatemanager.certs", f"{_LOCATION}.certificates")
service.allow("certificatemanager.certmaps", f"{_LOCATION}.certificateMaps")
service.allow("certificatemanager.certmapentries", f"{_LOCATION}.certificateMaps.certificateMapEntries")
service.allow("certificatemanager.dnsauthorizations", f"{_LOCATION}.dnsAuthorizations")
service.allow("certificatemanager.certissuanceconfigs", f"{_LOCATION}.certificateIssuanceConfigs")
service.allow("certificatemanager.trustconfigs", f"{_LOCATION}.trustConfigs")
service.allow("certificatemanager.operations", f"{_LOCATION}.operations")
service.permissions[f"{_LOCATION}.get"] = "certificatemanager.locations.get"
service.permissions[f"{_LOCATION}.list"] = "certificatemanager.locations.list"


@service.method(f"{_LOCATION}.certificates.create")
def create_certificate(call: Call) -> Any:
    managed = call.body.get("managed")
    if not managed and not call.body.get("selfManaged"):
        raise InvalidArgument("A certificate must be either managed or self-managed.")
    if managed:
        _check_exist(call, managed.get("dnsAuthorizations"))
        managed["state"] = "ACTIVE"
        call.body["sanDnsnames"] = managed.get("domains", [])
        call.body["expireTime"] = timestamp(call.region.clock.now() + _VALIDITY)
    return call.proceed()


@service.method(f"{_LOCATION}.certificates.delete")
def delete_certificate(call: Call) -> Any:
    certificate = existing(call)
    for entry in call.store.scan(call.key.rpartition("/certificates/")[0] + "/certificateMaps/"):
        if certificate["name"] in [call.region.with_project_ids(name) for name in entry.get("certificates", [])]:
            raise FailedPrecondition(
                f"can't delete certificate that is referenced by a CertificateMapEntry: {entry['name']}"
            )
    return call.proceed()


@service.method(f"{_LOCATION}.certificateMaps.delete")
def delete_map(call: Call) -> Any:
    existing(call)
    if call.store.list(call.key, "certificateMapEntries"):
        raise FailedPrecondition(f"can't delete certificate map {call.named}: it has entries. Delete them first.")
    return call.proceed()


@service.method(f"{_LOCATION}.certificateMaps.certificateMapEntries.create")
def create_entry(call: Call) -> Any:
    if not call.store.exists(call.key):
        raise NotFound(f"Resource '{call.named}' was not found")
    if not call.body.get("certificates"):
        raise InvalidArgument("A certificate map entry must name at least one certificate.")
    _check_exist(call, call.body["certificates"])
    call.body["state"] = "ACTIVE"
    return call.proceed()


@service.method(f"{_LOCATION}.certificateMaps.certificateMapEntries.patch")
def patch_entry(call: Call) -> Any:
    _check_exist(call, call.body.get("certificates"))
    return call.proceed()


@service.method(f"{_LOCATION}.dnsAuthorizations.create")
def create_dns_authorization(call: Call) -> Any:
    domain = str(call.body.get("domain") or "").rstrip(".")
    if not domain or domain.startswith("*"):
        raise InvalidArgument("domain must be a name without wildcard: its authorization covers one wildcard level.")
    # The same domain in the same project keeps its record, so that a zone need not change when a stack is made anew.
    token = hashlib.sha256(f"{call.project} {domain}".encode()).hexdigest()
    call.body["type"] = call.body.get("type") or "FIXED_RECORD"
    call.body["dnsResourceRecord"] = {
        "name": f"_acme-challenge.{domain}.",
        "type": "CNAME",
        "data": f"{token[:8]}-{token[8:12]}-{token[12:16]}-{token[16:20]}-{token[20:32]}"
        ".1.authorize.certificatemanager.goog.",
    }
    return call.proceed()


def _check_exist(call: Call, names: Any) -> None:
    for name in names or []:
        if not call.store.exists("certificatemanager/" + call.region.with_project_ids(str(name))):
            raise NotFound(f"Resource '{name}' was not found")
