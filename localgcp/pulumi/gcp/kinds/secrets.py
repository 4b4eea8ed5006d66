"""Secret Manager: secrets, and versions, whose payload is written and never read back."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localgcp.pulumi.gcp.kind import Kind, Work
from localgcp.pulumi.gcp.kinds.artifacts import last_segment
from localgcp.pulumi.gcp.mapping import Body, Encoding, Values
from localgcp.pulumi.gcp.values import is_zero
from localgcp.pulumi.provider import UNKNOWN, ProviderError


@dataclass(frozen=True, kw_only=True)
class Secret(Kind):
    def encode(self, work: Work, *, updating: bool) -> Body:
        body = super().encode(work, updating=updating)
        replication = body.get("replication", {})
        if "userManaged" in replication:
            replication["automatic"] = None
        return body

    def check(self, inputs: Values) -> list[tuple[str, str]]:
        failures = super().check(inputs)
        replication = inputs.get("replication")
        if isinstance(replication, Mapping):
            given = [name for name in ("auto", "userManaged") if replication.get(name) is not None]
            if len(given) != 1:
                failures.append(("replication", "takes exactly one of auto and userManaged"))
        return failures


SECRET = Secret(
    type="gcp:secretmanager/secret:Secret",
    api="secretmanager",
    collection="projects/{project}/secrets",
    name="secretId",
    name_query="secretId",
    mask=("annotations", "versionAliases", "versionDestroyTtl", "topics", "rotation", "expireTime", "ttl"),
    sent_on_update=frozenset({"replication"}),
    encoding=Encoding(keep_empty=frozenset({"replication.auto"})),
    conflicts=(("ttl", "expireTime"),),
)


@dataclass(frozen=True, kw_only=True)
class SecretVersion(Kind):
    server_name: str = "name"
    auto_name: bool = False

    def _secret(self, work: Work) -> str:
        secret = str(work.value("secret"))
        return secret if "/" in secret else f"projects/{work.project}/secrets/{secret}"

    def path(self, work: Work) -> str:
        return work.id

    def create(self, work: Work) -> Body | None:
        data = str(work.value("secretData") or work.value("secretDataWo") or "")
        encoded = data if work.value("isSecretDataBase64") else base64.b64encode(data.encode()).decode()
        answer = self.post(work, f"{self._secret(work)}:addVersion", {"payload": {"data": encoded}})
        work.id = str(answer["name"])
        self._set_state(work)
        return None

    def update(self, work: Work) -> Body | None:
        if self.has_changed(work, "enabled"):
            self._set_state(work)
        return None

    def _set_state(self, work: Work) -> None:
        verb = "disable" if work.inputs.get("enabled") is False else "enable"
        work.call("POST", self.api, f"{work.id}:{verb}")

    def is_gone(self, body: Mapping[str, Any]) -> bool:
        return body.get("state") == "DESTROYED"

    def decode(self, work: Work, body: Mapping[str, Any]) -> Values:
        live = super().decode(work, body)
        secret = work.value("secret") or work.id.partition("/versions/")[0]
        return {**live, "secret": secret, "version": last_segment(work.id), "enabled": body.get("state") == "ENABLED",
                "name": body["name"]}  # fmt: skip

    def delete(self, work: Work) -> None:
        verb = "disable" if work.value("deletionPolicy") == "DISABLE" else "destroy"
        work.call("POST", self.api, f"{work.id}:{verb}")

    def parse_id(self, id: str) -> Values:
        secret, versions, _ = id.partition("/versions/")
        if not versions:
            raise ProviderError(f"{id!r} is no id of a SecretVersion: expected projects/…/secrets/…/versions/…")
        return {"secret": secret}

    def check(self, inputs: Values) -> list[tuple[str, str]]:
        data = inputs.get("secretData")
        if data is not UNKNOWN and is_zero(data) and is_zero(inputs.get("secretDataWo")):
            return [("secretData", "is required: a version holds at least one byte")]
        return []


SECRET_VERSION = SecretVersion(
    type="gcp:secretmanager/secretVersion:SecretVersion",
    api="secretmanager",
    collection="{secret}/versions",
    conflicts=(("secretData", "secretDataWo"),),
)

KINDS = (SECRET, SECRET_VERSION)
