"""Roles: predefined ones from `roles.json`, custom ones from the store."""

import fnmatch
import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

from localgcp.store import Store

# What an editor may not do although it changes resources: decide who may do what, take another's identity, read what is
# secret. Objects reach the basic roles through the convenience values of a bucket's policy.
_NOT_FOR_EDITORS = (
    "*.setIamPolicy",
    "cloudkms.cryptoKeyVersions.useTo*",
    "iam.roles.*",
    "iam.serviceAccounts.get*Token",
    "iam.serviceAccounts.implicitDelegation",
    "iam.serviceAccounts.sign*",
    "resourcemanager.projects.delete",
    "secretmanager.versions.access",
    "storage.objects.*",
)

_READING = ("*.get", "*.list", "*.getIamPolicy", "*.search", "*.query", "*.fetch")

# Cloud Storage leaves these to the policies of buckets: viewers of a project do not have them.
_NOT_FOR_VIEWERS = ("storage.objects.*", "storage.buckets.get", "storage.buckets.getIamPolicy")


@dataclass(frozen=True, kw_only=True)
class Role:
    name: str
    title: str
    description: str
    #: Exact permissions, in order.
    permissions: tuple[str, ...]
    #: Owner, editor and viewer hold permissions by rule, because their lists follow every API that Google has.
    is_basic: bool = False

    def includes(self, permission: str) -> bool:
        if not self.is_basic:
            return permission in _as_set(self)
        if self.name == "roles/owner":
            return True
        if self.name == "roles/editor":
            return not any(fnmatch.fnmatchcase(permission, pattern) for pattern in _NOT_FOR_EDITORS)
        return any(fnmatch.fnmatchcase(permission, pattern) for pattern in _READING) and not any(
            fnmatch.fnmatchcase(permission, pattern) for pattern in _NOT_FOR_VIEWERS
        )


@functools.lru_cache(maxsize=4096)
def _as_set(role: Role) -> frozenset[str]:
    return frozenset(role.permissions)


@functools.cache
def predefined() -> dict[str, Role]:
    data: dict[str, Any] = json.loads((resources.files("localgcp.iam") / "roles.json").read_text())
    found = {}
    for name, entry in data.items():
        found[name] = Role(
            name=name,
            title=entry["title"],
            description=entry.get("description", ""),
            permissions=tuple(sorted(entry.get("permissions", ()))),
            is_basic=entry.get("basic", False),
        )
    return found


@functools.cache
def known_permissions() -> frozenset[str]:
    """Every permission that some predefined role names."""
    return frozenset(permission for role in predefined().values() for permission in role.permissions)


class Roles:
    def __init__(self, store: Store) -> None:
        self._store = store

    def find(self, name: str) -> Role | None:
        """A role that can be granted: a custom role that is deleted or disabled cannot be found."""
        if name.startswith("roles/"):
            return predefined().get(name)
        stored = self._store.find(f"iam/{name}")
        if stored is None or stored.get("deleted") or stored.get("stage") == "DISABLED":
            return None
        return Role(
            name=name,
            title=stored.get("title", ""),
            description=stored.get("description", ""),
            permissions=tuple(stored.get("includedPermissions", ())),
        )

    def exists(self, name: str) -> bool:
        """Whether a policy may name the role. A disabled role may be named: it grants nothing until it is enabled."""
        if name.startswith("roles/"):
            return name in predefined()
        stored = self._store.find(f"iam/{name}")
        return stored is not None and not stored.get("deleted")
