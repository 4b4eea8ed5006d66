"""Cloud Monitoring: alert policies, channels, uptime checks, dashboards. The API chooses all names."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localgcp.pulumi.gcp.kind import Kind, Work
from localgcp.pulumi.gcp.kinds.artifacts import last_segment
from localgcp.pulumi.gcp.mapping import Body, Encoding, Values
from localgcp.pulumi.gcp.values import same_json
from localgcp.pulumi.provider import ProviderError

_API = "monitoring/v3"


@dataclass(frozen=True, kw_only=True)
class NamedByServer(Kind):
    """The id is the name that the API gave, `projects/<project>/<collection>/<id>`."""

    server_name: str = "name"
    auto_name: bool = False

    def parse_id(self, id: str) -> Values:
        parts = id.split("/")
        if len(parts) != 4:
            raise ProviderError(f"{id!r} is no id of a {self.label}: expected {self.collection}/{{name}}")
        # Some ids name the project by its number; programs name it by its id.
        return {} if parts[1].isdigit() else {"project": parts[1]}


ALERT_POLICY = NamedByServer(
    type="gcp:monitoring/alertPolicy:AlertPolicy",
    api=_API,
    collection="projects/{project}/alertPolicies",
    mask=(
        "displayName",
        "combiner",
        "enabled",
        "conditions",
        "notificationChannels",
        "alertStrategy",
        "userLabels",
        "severity",
        "documentation",
    ),
    encoding=Encoding(keep_zero=frozenset({"enabled", "conditions.conditionThreshold.thresholdValue"})),
    update_encoding=Encoding(
        keep_zero=frozenset({"enabled", "conditions.conditionThreshold.thresholdValue"}),
        sent_outputs=frozenset({"conditions.name"}),
    ),
)

_SENSITIVE = {"authToken": "auth_token", "password": "password", "serviceKey": "service_key"}


@dataclass(frozen=True, kw_only=True)
class NotificationChannel(NamedByServer):
    """Sensitive labels are labels for the API, which answers them masked."""

    def encode(self, work: Work, *, updating: bool) -> Body:
        body = super().encode(work, updating=updating)
        sensitive = work.inputs.get("sensitiveLabels") or {}
        hidden = {_SENSITIVE[name]: value for name, value in sensitive.items() if name in _SENSITIVE and value}
        if hidden:
            body["labels"] = {**body.get("labels", {}), **hidden}
        return body

    def changed_fields(self, work: Work) -> set[str]:
        changed = super().changed_fields(work)
        return changed | {"labels"} if self.has_changed(work, "sensitiveLabels") else changed

    def decode(self, work: Work, body: Mapping[str, Any]) -> Values:
        live = super().decode(work, body)
        hidden = set(_SENSITIVE.values()) - (work.inputs.get("labels") or {}).keys()
        live["labels"] = {name: value for name, value in live.get("labels", {}).items() if name not in hidden}
        return live

    def delete(self, work: Work) -> None:
        force = "true" if work.value("forceDelete") else "false"
        work.call("DELETE", self.api, self.path(work), query={"force": force})


NOTIFICATION_CHANNEL = NotificationChannel(
    type="gcp:monitoring/notificationChannel:NotificationChannel",
    api=_API,
    collection="projects/{project}/notificationChannels",
    encoding=Encoding(keep_zero=frozenset({"enabled"})),
)


@dataclass(frozen=True, kw_only=True)
class UptimeCheck(NamedByServer):
    def decode(self, work: Work, body: Mapping[str, Any]) -> Values:
        return {**super().decode(work, body), "uptimeCheckId": last_segment(work.id)}


UPTIME_CHECK = UptimeCheck(
    type="gcp:monitoring/uptimeCheckConfig:UptimeCheckConfig",
    api=_API,
    collection="projects/{project}/uptimeCheckConfigs",
    mask=("displayName", "period", "timeout", "contentMatchers", "selectedRegions", "httpCheck", "tcpCheck"),
)


@dataclass(frozen=True, kw_only=True)
class Dashboard(NamedByServer):
    """`dashboardJson` is the body itself; in the state, it is what the API answered, its etag included."""

    def encode(self, work: Work, *, updating: bool) -> Body:
        body: Body = json.loads(work.inputs["dashboardJson"])
        if updating and "etag" not in body:
            etag = json.loads(work.state.get("dashboardJson") or "{}").get("etag")
            return {**body, "etag": etag} if etag else body
        return body

    def update(self, work: Work) -> Body | None:
        if not same_json(work.inputs["dashboardJson"], work.old_inputs.get("dashboardJson")):
            work.call("PATCH", self.api, self.path(work), body=self.encode(work, updating=True))
        return None

    def decode(self, work: Work, body: Mapping[str, Any]) -> Values:
        return {"dashboardJson": json.dumps(body, sort_keys=True), "project": work.project}

    def check(self, inputs: Values) -> list[tuple[str, str]]:
        text = inputs.get("dashboardJson")
        if isinstance(text, str):
            try:
                json.loads(text)
            except ValueError as error:
                return [("dashboardJson", f"is not JSON: {error}")]
        return []


DASHBOARD = Dashboard(
    type="gcp:monitoring/dashboard:Dashboard",
    api="monitoring/v1",
    collection="projects/{project}/dashboards",
    alike={"dashboardJson": same_json},
)


@dataclass(frozen=True, kw_only=True)
class OrgPolicy(Kind):
    def decode(self, work: Work, body: Mapping[str, Any]) -> Values:
        parent, _, name = str(body["name"]).partition("/policies/")
        return {
            **super().decode(work, body),
            "name": work.value("name") or f"{parent}/policies/{name}",
            "parent": work.value("parent") or parent,
        }

    def update_mask(self, work: Work) -> list[str]:
        return [f"policy.{name}" for name in sorted(self.changed_fields(work))]


_SPECS = ("spec", "dryRunSpec")

ORG_POLICY = OrgPolicy(
    type="gcp:orgpolicy/policy:Policy",
    api="orgpolicy",
    collection="{parent}/policies",
    auto_name=False,
    name_in_body="full",
    mask=(),
    encoding=Encoding(
        always={
            **{spec: {"inheritFromParent": False, "reset": False} for spec in _SPECS},
            **{f"{spec}.rules": {"allowAll": None, "denyAll": None, "enforce": None} for spec in _SPECS},
        },
        sent_outputs=frozenset({"spec.etag", "spec.updateTime", "dryRunSpec.etag", "dryRunSpec.updateTime"}),
        keep_zero=frozenset({f"{spec}.rules.{rule}" for spec in _SPECS for rule in ("allowAll", "denyAll", "enforce")}),
    ),
)

KINDS = (ALERT_POLICY, NOTIFICATION_CHANNEL, UPTIME_CHECK, DASHBOARD, ORG_POLICY)
