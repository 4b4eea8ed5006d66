"""Certificate Manager."""

from typing import Any

from localgcp.pulumi.gcp.kind import Kind
from localgcp.pulumi.gcp.mapping import Encoding

_MASK = ("description",)
_LOCATION = "projects/{project}/locations/{location}"
_MAPS = "projects/{project}/locations/global/certificateMaps"


def _scope(value: Any) -> Any:
    return None if value == "DEFAULT" else value


CERTIFICATE = Kind(
    type="gcp:certificatemanager/certificate:Certificate",
    api="certificatemanager",
    collection=_LOCATION + "/certificates",
    name_query="certificateId",
    mask=_MASK,
    encoding=Encoding(convert={"scope": _scope}),
    conflicts=(("managed", "selfManaged"),),
)
DNS_AUTHORIZATION = Kind(
    type="gcp:certificatemanager/dnsAuthorization:DnsAuthorization",
    api="certificatemanager",
    collection=_LOCATION + "/dnsAuthorizations",
    name_query="dnsAuthorizationId",
    mask=_MASK,
)
CERTIFICATE_MAP = Kind(
    type="gcp:certificatemanager/certificateMap:CertificateMap",
    api="certificatemanager",
    collection=_MAPS,
    name_query="certificateMapId",
    mask=_MASK,
)
CERTIFICATE_MAP_ENTRY = Kind(
    type="gcp:certificatemanager/certificateMapEntry:CertificateMapEntry",
    api="certificatemanager",
    collection=_MAPS + "/{map}/certificateMapEntries",
    name_query="certificateMapEntryId",
    name_in_body="short",
    mask=_MASK,
    conflicts=(("hostname", "matcher"),),
)

KINDS = (CERTIFICATE, DNS_AUTHORIZATION, CERTIFICATE_MAP, CERTIFICATE_MAP_ENTRY)
