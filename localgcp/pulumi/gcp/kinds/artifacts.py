"""Artifact Registry repositories, Cloud Build triggers, billing budgets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localgcp.pulumi.gcp.kind import Kind, Work
from localgcp.pulumi.gcp.mapping import Body, Encoding, Values
from localgcp.pulumi.provider import ProviderError


def last_segment(value: Any) -> str:
    return str(value).rpartition("/")[2]


REPOSITORY = Kind(
    type="gcp:artifactregistry/repository:Repository",
    api="artifactregistry",
    collection="projects/{project}/locations/{location}/repositories",
    name="repositoryId",
    auto_name=False,
    name_query="repository_id",
    mask=("description",),
    encoding=Encoding(sent_outputs=frozenset({"vulnerabilityScanningConfig.enablementState"})),
    decoding={"name": last_segment},
    conflicts=(("remoteRepositoryConfig", "virtualRepositoryConfig"),),
)


@dataclass(frozen=True, kw_only=True)
class Trigger(Kind):
    """A trigger of the location `global` has an id without a location, and is called with one."""

    def adopt_name(self, work: Work, answer: Mapping[str, Any]) -> None:
        location = "" if work.location == "global" else f"locations/{work.location}/"
        work.id = f"projects/{work.project}/{location}triggers/{answer['id']}"

    def path(self, work: Work) -> str:
        return f"{self.collection_path(work)}/{last_segment(work.id)}"

    def parse_id(self, id: str) -> Values:
        parts = id.split("/")
        if len(parts) not in (4, 6):
            raise ProviderError(f"{id!r} is no id of a Trigger: expected {self.collection}/{{name}}")
        return {"project": parts[1], "location": parts[3] if parts[2] == "locations" else "global"}

    def encode(self, work: Work, *, updating: bool) -> Body:
        body = super().encode(work, updating=updating)
        if updating:
            body["id"] = last_segment(work.id)
        return body


_TRIGGER_ALWAYS = {"build.options": {"dynamicSubstitutions": False}}

TRIGGER = Trigger(
    type="gcp:cloudbuild/trigger:Trigger",
    api="cloudbuild",
    collection="projects/{project}/locations/{location}/triggers",
    server_name="id",
    encoding=Encoding(always=_TRIGGER_ALWAYS),
    update_encoding=Encoding(always={**_TRIGGER_ALWAYS, "": {"approvalConfig": {}}}),
)


@dataclass(frozen=True, kw_only=True)
class Budget(Kind):
    def update_mask(self, work: Work) -> list[str]:
        mask = []
        for name in super().update_mask(work):
            if name == "amount":
                # The provider goes down to the leaves here, and only here.
                mask += [f"amount.specifiedAmount.{leaf}" for leaf in ("currencyCode", "units", "nanos")]
            else:
                mask.append(name)
        return mask


BUDGET = Budget(
    type="gcp:billing/budget:Budget",
    api="billingbudgets",
    collection="billingAccounts/{billingAccount}/budgets",
    server_name="name",
    auto_name=False,
    mask=("amount", "budgetFilter", "thresholdRules", "notificationsRule", "displayName"),
    encoding=Encoding(
        keep_empty=frozenset({"amount.lastPeriodAmount"}),
        convert={
            "amount.lastPeriodAmount": lambda value: {} if value else None,
            # Every month is what the API does anyway, and the provider does not say it.
            "budgetFilter.calendarPeriod": lambda value: None if value == "MONTH" else value,
        },
    ),
    decoding={"name": last_segment, "amount.lastPeriodAmount": lambda value: True},
    alike={"budgetFilter.calendarPeriod": lambda a, b: {a, b} <= {"MONTH", None}},
)

KINDS = (REPOSITORY, TRIGGER, BUDGET)
