"""Cloud Monitoring: policies, channels, uptime checks and dashboards are kept and checked. Nothing is measured, and
nobody is notified: time series have no behaviour, and a call for them says so."""

import re
import secrets
from typing import Any

from localgcp import generic
from localgcp.clock import seconds, timestamp
from localgcp.errors import FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from localgcp.identifiers import numeric_id
from localgcp.service import Call, Service
from localgcp.store import Resource
from localgcp.validation import is_output_only, without_nulls

#: UptimeCheckConfig.period and .timeout of the discovery document, in seconds.
UPTIME_PERIODS = (60, 300, 600, 900)
UPTIME_TIMEOUTS = (1, 60)

service = Service("monitoring:v3")
for _noun in ("alertPolicies", "groups", "uptimeCheckConfigs", "metricDescriptors", "snoozes", "dashboards"):
    service.allow(f"monitoring.{_noun}", f"projects.{_noun}")
service.allow(
    "monitoring.notificationChannels",
    "projects.notificationChannels",
    sendVerificationCode="monitoring.notificationChannels.sendVerificationCode",
    getVerificationCode="monitoring.notificationChannels.getVerificationCode",
    verify="monitoring.notificationChannels.verify",
)
service.allow("monitoring.services", "services")
service.allow("monitoring.slos", "services.serviceLevelObjectives")
service.permissions |= {
    "projects.timeSeries.create": "monitoring.timeSeries.create",
    "projects.timeSeries.list": "monitoring.timeSeries.list",
    "projects.timeSeries.query": "monitoring.timeSeries.list",
}


@service.method("projects.timeSeries.create", "projects.timeSeries.list", "projects.timeSeries.query")
def refuse_time_series(call: Call) -> None:
    # The generic store would keep a point as a resource, and a list of none would look like a quiet service.
    raise Unimplemented(f"monitoring.{call.method.id} has no behaviour in localgcp: nothing is measured.")


@service.method("projects.alertPolicies.create")
def create_alert_policy(call: Call) -> Resource:
    _check_alert_policy(call, call.body)
    policy_id = numeric_id()
    name = f"{call.named}/alertPolicies/{policy_id}"
    call.body["name"] = name
    _name_conditions(call.body, name)
    record = _record(call)
    call.body |= {"creationRecord": record, "mutationRecord": record}
    call.body.setdefault("enabled", True)
    policy: Resource = call.proceed()
    return policy


@service.method("projects.alertPolicies.patch")
def patch_alert_policy(call: Call) -> Resource:
    with call.store.transaction():
        changed = _updated(call)
        _check_alert_policy(call, changed)
        _name_conditions(changed, str(changed["name"]))
        return call.store.put(call.key, {**changed, "mutationRecord": _record(call)})


@service.method("projects.notificationChannels.create")
def create_channel(call: Call) -> Resource:
    if not call.body.get("type"):
        raise InvalidArgument('Field notification_channel.type had an invalid value of "": A type must be provided.')
    call.body["name"] = f"{call.named}/notificationChannels/{numeric_id()}"
    call.body["creationRecord"] = _record(call)
    call.body.setdefault("enabled", True)
    channel: Resource = call.proceed()
    return channel


@service.method("projects.notificationChannels.patch")
def patch_channel(call: Call) -> Resource:
    with call.store.transaction():
        changed = _updated(call)
        records = [*changed.get("mutationRecords", []), _record(call)]
        return call.store.put(call.key, {**changed, "mutationRecords": records})


@service.method("projects.notificationChannels.delete")
def delete_channel(call: Call) -> dict[str, Any]:
    channel = generic.existing(call)
    with call.store.transaction():
        users = [
            policy
            for policy in call.store.list(f"monitoring/projects/{call.project}", "alertPolicies")
            if channel["name"] in policy.get("notificationChannels", [])
        ]
        if users and not call.query.get("force"):
            raise FailedPrecondition(
                f"Cannot delete notification channel {channel['name']}: it is used by "
                f"{', '.join(str(policy['name']) for policy in users)}. Remove it there, or set force."
            )
        for policy in users:
            kept = [name for name in policy["notificationChannels"] if name != channel["name"]]
            call.store.put(policy.key, {**policy, "notificationChannels": kept})
        call.store.delete(call.key)
    return {}


@service.method("projects.uptimeCheckConfigs.create")
def create_uptime_check(call: Call) -> Resource:
    if not call.body.get("displayName"):
        raise InvalidArgument("The display name of an uptime check must not be empty.")
    slug = re.sub(r"[^a-z0-9]+", "-", str(call.body["displayName"]).lower()).strip("-")
    call.body["name"] = f"{call.named}/uptimeCheckConfigs/{slug}-{secrets.token_urlsafe(8)}"
    period, timeout = seconds(call.body.get("period") or "60s"), seconds(call.body.get("timeout") or "10s")
    if period not in UPTIME_PERIODS:
        raise InvalidArgument(f"The period of an uptime check is one of {UPTIME_PERIODS} seconds, got {period:g}.")
    if not UPTIME_TIMEOUTS[0] <= timeout <= UPTIME_TIMEOUTS[1]:
        raise InvalidArgument(f"The timeout of an uptime check is 1 to 60 seconds, got {timeout:g}.")
    call.body.setdefault("checkerType", "STATIC_IP_CHECKERS")
    check: Resource = call.proceed()
    return check


@service.method("projects.dashboards.create")
def create_dashboard(call: Call) -> Resource:
    if not call.body.get("displayName"):
        raise InvalidArgument("Field displayName must not be empty.")
    given = str(call.body.get("name") or "").rpartition("/")[2]
    key = f"{call.key}/dashboards/{given or numeric_id()}"
    body = {**without_nulls(call.body), "etag": secrets.token_hex(16)}
    body["name"] = _numbered(call, key)
    return call.store.create(key, body)


@service.method("projects.dashboards.patch")
def patch_dashboard(call: Call) -> Resource:
    with call.store.transaction():
        current = generic.existing(call)
        generic.check_etag(call, current, call.body.get("etag"))
        body = {**without_nulls(call.body), "name": current["name"], "etag": secrets.token_hex(16)}
        return call.store.put(call.key, body)


def _updated(call: Call) -> Resource:
    """By mask where there is one; without one the whole resource is replaced, except what the server keeps."""
    if call.query.get("updateMask"):
        call.proceed()
        return call.store.get(call.key)
    current = generic.existing(call)
    schema = generic.resource_schema(call)
    kept = {
        name: value
        for name, value in current.items()
        if is_output_only(schema.get(name, {})) or name in ("name", "creationRecord", "mutationRecords")
    }
    return Resource(call.key, {**without_nulls(call.body), **kept})


def _check_alert_policy(call: Call, policy: dict[str, Any]) -> None:
    if not policy.get("displayName"):
        raise InvalidArgument("Field alert_policy.display_name must not be empty.")
    if not policy.get("conditions"):
        raise InvalidArgument("Field alert_policy.conditions must have at least one element.")
    if policy.get("combiner") in (None, "COMBINE_UNSPECIFIED"):
        raise InvalidArgument("Field alert_policy.combiner must be specified.")
    for index, condition in enumerate(policy["conditions"]):
        _check_threshold(f"alert_policy.conditions[{index}].condition_threshold", condition.get("conditionThreshold"))
    for name in policy.get("notificationChannels") or []:
        if not call.store.exists("monitoring/" + call.region.with_project_ids(name)):
            raise NotFound(f"Cannot find notification channel with name {name}.")


def _check_threshold(at: str, threshold: dict[str, Any] | None) -> None:
    if threshold is None:
        return
    expression = threshold.get("filter") or ""
    if "metric.type" not in expression or "resource.type" not in expression:
        raise InvalidArgument(
            f'Field {at}.filter had an invalid value of "{expression}": must specify a restriction on "metric.type" and'
            ' one on "resource.type" in the filter.'
        )
    if seconds(threshold.get("duration") or "0s") % 60:
        raise InvalidArgument(f"Field {at}.duration must be a multiple of a minute, got {threshold['duration']}.")


def _name_conditions(policy: dict[str, Any], name: str) -> None:
    for condition in policy.get("conditions") or []:
        if not condition.get("name"):
            condition["name"] = f"{name}/conditions/{numeric_id()}"


def _numbered(call: Call, key: str) -> str:
    number = call.region.project_number(call.project)
    return key.partition("/")[2].replace(f"projects/{call.project}", f"projects/{number}", 1)


def _record(call: Call) -> dict[str, str]:
    return {"mutateTime": timestamp(call.region.clock.now()), "mutatedBy": call.principal.email or ""}
