"""How policies name resources: the chain of keys that a permission is inherited along, and the names in conditions."""

import re
from dataclasses import dataclass

from localgcp.store import Store

_PROJECT = re.compile(r"(?:^|/)projects/([^/:]+)")

# APIs whose resource names in conditions carry the project's number ("resource attributes" in Google's reference of
# IAM conditions). The others keep the id.
_NUMBERED = frozenset({"secretmanager"})

_TYPES = {
    "storage": {"b": "Bucket", "o": "Object", "managedFolders": "ManagedFolder"},
    "secretmanager": {"secrets": "Secret", "versions": "SecretVersion"},
    "cloudkms": {
        "keyRings": "KeyRing",
        "cryptoKeys": "CryptoKey",
        "cryptoKeyVersions": "CryptoKeyVersion",
    },
    "sqladmin": {"instances": "Instance", "backupRuns": "BackupRun", "databases": "Database"},
    "run": {"services": "Service", "jobs": "Job", "executions": "Execution"},
    "cloudtasks": {"queues": "Queue", "tasks": "Task"},
    "iam": {"serviceAccounts": "ServiceAccount", "roles": "Role"},
    "cloudresourcemanager": {"projects": "Project"},
    "artifactregistry": {"repositories": "Repository"},
    "logging": {"buckets": "LogBucket"},
}


@dataclass(frozen=True, kw_only=True)
class ResourceAttributes:
    """What a condition can ask of a resource."""

    name: str
    service: str
    type: str


class Names:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._ids: dict[str, str] = {}

    def project_of(self, key: str) -> str | None:
        """The id of the project that a resource belongs to; None for what belongs to none (a billing account)."""
        if (match := _PROJECT.search(key)) is not None:
            return self.project_id(match[1])
        words = key.split("/")
        if words[:2] == ["storage", "b"] and len(words) > 2:
            bucket = self._store.find("/".join(words[:3]))
            if bucket and bucket.get("projectNumber"):
                return self.project_id(str(bucket["projectNumber"]))
        return None

    def lineage(self, key: str) -> list[str]:
        """The keys whose policies speak for a resource: its own, its ancestors' and its project's."""
        project = self.project_of(key)
        api, _, relative_name = key.partition("/")
        words = relative_name.split("/")
        chain = [f"{api}/{'/'.join(words[:end])}" for end in range(len(words), 0, -1)]
        if api == "storage" and words[0] == "b":
            # An object's name may hold slashes, but only its bucket has a policy that counts.
            chain = [f"storage/b/{words[1]}"] if len(words) > 1 else []
        if project is not None and (project_key := f"cloudresourcemanager/projects/{project}") not in chain:
            chain.append(project_key)
        return chain

    def attributes(self, key: str) -> ResourceAttributes:
        api, _, name = key.partition("/")
        service = f"{api}.googleapis.com"
        words = name.split("/")
        if api == "sqladmin" and words[2:3] == ["instances"] and words[4:5] not in (["databases"], ["backupRuns"]):
            # Users, certificates and connect settings are no resources of their own.
            words = words[:4]
            name = "/".join(words)
        types = _TYPES.get(api, {})
        kind = next((types[word] for word in reversed(words[:-1]) if word in types), "")
        if api == "storage" and words[0] == "b" and len(words) > 1:
            kind = "Object" if len(words) > 3 and words[2] == "o" else "Bucket"
            name = f"projects/_/buckets/{words[1]}" + (f"/objects/{'/'.join(words[3:])}" if kind == "Object" else "")
        elif api in _NUMBERED and (project := self.project_of(key)) is not None:
            name = _PROJECT.sub(f"projects/{self.project_number(project)}", name, count=1)
        return ResourceAttributes(name=name, service=service, type=f"{service}/{kind}" if kind else "")

    def project_number(self, project: str) -> str:
        row = self._store.row("SELECT number FROM projects WHERE id = ?", (project,))
        return str(row["number"]) if row else project

    def project_id(self, id_or_number: str) -> str:
        if not id_or_number.isdigit():
            return id_or_number
        if (known := self._ids.get(id_or_number)) is not None:
            return known
        row = self._store.row("SELECT id FROM projects WHERE number = ?", (id_or_number,))
        if row is None:
            return id_or_number  # not remembered: the project may come to be
        self._ids[id_or_number] = str(row["id"])
        return self._ids[id_or_number]
