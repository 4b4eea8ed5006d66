"""Every resource type, one module per API or family of APIs."""

from collections.abc import Mapping

from localgcp.pulumi.gcp.kind import Kind
from localgcp.pulumi.gcp.kinds import (
    artifacts,
    certificates,
    compute,
    dns,
    edge,
    keys,
    logs,
    members,
    monitoring,
    projects,
    run,
    scheduling,
    secrets,
    sql,
    storage,
)

_MODULES = (
    artifacts,
    certificates,
    compute,
    dns,
    edge,
    keys,
    logs,
    members,
    monitoring,
    projects,
    run,
    scheduling,
    secrets,
    sql,
    storage,
)

#: By type token, `gcp:storage/bucket:Bucket`.
KINDS: Mapping[str, Kind] = {kind.type: kind for module in _MODULES for kind in module.KINDS}
