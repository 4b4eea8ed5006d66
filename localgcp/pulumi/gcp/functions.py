"""Data sources: the few that programs of every kind begin with."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from localgcp.pulumi.gcp.rest import Rest
from localgcp.pulumi.provider import NotSupported, Outputs, ProviderError, Secret


@dataclass(frozen=True, kw_only=True)
class Question:
    """One call of a data source."""

    rest: Rest
    arguments: Mapping[str, Any]
    default_project: str
    default_region: str
    default_labels: Mapping[str, str]

    def text(self, name: str) -> str:
        return str(self.arguments.get(name) or "")

    @property
    def project(self) -> str:
        project = self.text("project") or self.text("projectId") or self.default_project
        if not project:
            raise ProviderError("no project: name one, or set gcp:project or GOOGLE_PROJECT")
        return project.removeprefix("projects/")


def _project(ask: Question) -> Outputs:
    found = ask.rest.call("GET", "cloudresourcemanager", f"projects/{ask.project}")
    parent = found.get("parent") or {}
    labels = found.get("labels") or {}
    return {
        "id": f"projects/{found['projectId']}",
        "projectId": found["projectId"],
        "number": str(found["projectNumber"]),
        "name": found.get("name", ""),
        "orgId": parent.get("id", "") if parent.get("type") == "organization" else "",
        "folderId": parent.get("id", "") if parent.get("type") == "folder" else "",
        "billingAccount": "",
        "autoCreateNetwork": False,
        "deletionPolicy": "",
        "labels": labels,
        "effectiveLabels": labels,
        "pulumiLabels": labels,
        "tags": {},
    }


def _client_config(ask: Question) -> Outputs:
    return {
        "id": f"projects/{ask.default_project}/regions/{ask.default_region}/zones/",
        "project": ask.default_project,
        "region": ask.default_region,
        "zone": "",
        "defaultLabels": dict(ask.default_labels),
        "accessToken": Secret(ask.rest.token()),
    }


def _secret_version(ask: Question) -> Outputs:
    version = ask.rest.call("GET", "secretmanager", _version_path(ask))
    return {
        **_secret_version_access(ask),
        "createTime": version.get("createTime", ""),
        "destroyTime": version.get("destroyTime", ""),
        "enabled": version.get("state") == "ENABLED",
    }


def _secret_version_access(ask: Question) -> Outputs:
    answer = ask.rest.call("GET", "secretmanager", f"{_version_path(ask)}:access")
    data = str(answer["payload"]["data"])
    as_it_is = bool(ask.arguments.get("isSecretDataBase64"))
    return {
        "id": answer["name"],
        "name": answer["name"],
        "project": ask.project,
        "secret": ask.text("secret").rpartition("/")[2],
        "version": str(answer["name"]).rpartition("/")[2],
        "isSecretDataBase64": as_it_is,
        "secretData": Secret(data if as_it_is else base64.b64decode(data).decode()),
    }


def _version_path(ask: Question) -> str:
    secret = ask.text("secret")
    path = secret if "/" in secret else f"projects/{ask.project}/secrets/{secret}"
    return f"{path}/versions/{ask.text('version') or 'latest'}"


_FUNCTIONS: Mapping[str, Callable[[Question], Outputs]] = {
    "gcp:organizations/getClientConfig:getClientConfig": _client_config,
    "gcp:organizations/getProject:getProject": _project,
    "gcp:secretmanager/getSecretVersion:getSecretVersion": _secret_version,
    "gcp:secretmanager/getSecretVersionAccess:getSecretVersionAccess": _secret_version_access,
}


def call_function(token: str, ask: Question) -> Outputs:
    """What a data source answers."""
    function = _FUNCTIONS.get(token)
    if function is None:
        names = ", ".join(sorted(name.rpartition(":")[2] for name in _FUNCTIONS))
        raise NotSupported(
            f"the offline provider has no {token.rpartition(':')[2]}, only {names}: read a resource that exists with "
            "the `get` of its class, or install the real provider"
        )
    try:
        return function(ask)
    except ProviderError as error:
        raise ProviderError(f"Error calling {token.rpartition(':')[2]}: {error}") from error
