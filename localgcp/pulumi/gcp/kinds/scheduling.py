"""Cloud Tasks queues and Cloud Scheduler jobs: both can be paused, by a call of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localgcp.pulumi.gcp.kind import Kind, Work
from localgcp.pulumi.gcp.mapping import Body, Encoding, Values

#: What Cloud Scheduler adds to the headers by itself.
_OWN_HEADERS = {"User-Agent": "Google-Cloud-Scheduler", "Content-Type": "application/octet-stream"}


def _program_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {
        name: value
        for name, value in headers.items()
        if not name.lower().startswith("x-google-") and _OWN_HEADERS.get(name) != value
    }


@dataclass(frozen=True, kw_only=True)
class Queue(Kind):
    def create(self, work: Work) -> Body | None:
        super().create(work)
        if work.value("desiredState") == "PAUSED":
            work.call("POST", self.api, f"{self.path(work)}:pause")
        return None

    def update(self, work: Work) -> Body | None:
        super().update(work)
        if self.has_changed(work, "desiredState"):
            verb = "pause" if work.value("desiredState") == "PAUSED" else "resume"
            work.call("POST", self.api, f"{self.path(work)}:{verb}")
        return None

    def decode(self, work: Work, body: Mapping[str, Any]) -> Values:
        live = super().decode(work, body)
        live["desiredState"] = "PAUSED" if body.get("state") == "PAUSED" else "RUNNING"
        return live


QUEUE = Queue(
    type="gcp:cloudtasks/queue:Queue",
    api="cloudtasks",
    collection="projects/{project}/locations/{location}/queues",
    name_in_body="full",
    mask=("appEngineRoutingOverride", "rateLimits", "retryConfig", "stackdriverLoggingConfig", "httpTarget"),
    encoding=Encoding(sent_outputs=frozenset({"rateLimits.maxBurstSize"})),
)


@dataclass(frozen=True, kw_only=True)
class SchedulerJob(Kind):
    def encode(self, work: Work, *, updating: bool) -> Body:
        body = super().encode(work, updating=updating)
        if not updating and body.get("attemptDeadline") == "180s":
            del body["attemptDeadline"]
        return body

    def create(self, work: Work) -> Body | None:
        super().create(work)
        self._set_state(work)
        return None

    def update(self, work: Work) -> Body | None:
        if self.changed_fields(work) or self.has_changed(work, "paused"):
            body = self.encode(work, updating=True)
            work.call("PATCH", self.api, self.path(work), body=body)
        if self.has_changed(work, "paused"):
            self._set_state(work)
        return None

    def _set_state(self, work: Work) -> None:
        verb = "pause" if work.inputs.get("paused") else "resume"
        work.call("POST", self.api, f"{self.path(work)}:{verb}", body={})

    def decode(self, work: Work, body: Mapping[str, Any]) -> Values:
        live = super().decode(work, body)
        live["paused"] = body.get("state") == "PAUSED"
        return live


_TARGETS = ("httpTarget", "pubsubTarget", "appEngineHttpTarget")

JOB = SchedulerJob(
    type="gcp:cloudscheduler/job:Job",
    api="cloudscheduler",
    collection="projects/{project}/locations/{location}/jobs",
    name_in_body="full",
    decoding={"httpTarget.headers": _program_headers, "appEngineHttpTarget.headers": _program_headers},
    conflicts=(_TARGETS,),
)

KINDS = (QUEUE, JOB)
