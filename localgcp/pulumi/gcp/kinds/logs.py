"""Cloud Logging: metrics, sinks, and log buckets, some of which are there before anybody creates them."""

from collections.abc import Mapping
from dataclasses import dataclass

from localgcp.pulumi.gcp.kind import Kind, Work
from localgcp.pulumi.gcp.mapping import Body, Encoding, Values
from localgcp.pulumi.gcp.values import is_zero

METRIC = Kind(
    type="gcp:logging/metric:Metric",
    api="logging",
    collection="projects/{project}/metrics",
    id_form="{name}",
    short_name=False,  # a metric's name may have a slash
    name_in_body="short",
    update_method="PUT",
)


@dataclass(frozen=True, kw_only=True)
class Sink(Kind):
    def _query(self, work: Work) -> dict[str, str]:
        return {"uniqueWriterIdentity": "true" if work.value("uniqueWriterIdentity") is not False else "false"}

    def create(self, work: Work) -> Body | None:
        self.get(work)  # as the provider does; whether one that is there is ours, the API knows best
        path, body = self.collection_path(work), self.encode(work, updating=False)
        self.post(work, path, body, query=self._query(work))
        work.id = self.identify(work)
        return None

    def update(self, work: Work) -> Body | None:
        changed = self.changed_fields(work)
        if changed or self.has_changed(work, "uniqueWriterIdentity"):
            # The provider names the exclusions in every mask.
            mask = ",".join(sorted(changed | {"exclusions"}))
            query = {**self._query(work), "updateMask": mask}
            work.call("PATCH", self.api, self.path(work), query=query, body=self.encode(work, updating=True))
        return None


SINK = Sink(
    type="gcp:logging/projectSink:ProjectSink",
    api="logging",
    collection="projects/{project}/sinks",
    name_in_body="short",
    update_encoding=Encoding(always={"": {"disabled": False, "exclusions": []}}),
)

_PERMANENT = ("_Default", "_Required")
_SETTINGS = ("retentionDays", "description", "indexConfigs", "cmekSettings", "locked")


@dataclass(frozen=True, kw_only=True)
class LogBucket(Kind):
    def _exists(self, work: Work) -> bool:
        body = work.rest_get(self.api, self.path(work))
        if body is not None and body.get("lifecycleState") == "DELETE_REQUESTED":
            work.call("POST", self.api, f"{self.path(work)}:undelete", body={})
        return body is not None

    def create(self, work: Work) -> Body | None:
        if self._exists(work):
            work.id = self.identify(work)
            given = [name for name in _SETTINGS if not is_zero(work.inputs.get(name))]
            self._patch(work, given)
            return None
        name = self.values(work)["name"]
        body = {"locked": False, "name": "", **self._settings(work)}
        if work.value("enableAnalytics"):
            body["analyticsEnabled"] = True
        for empty in ("description", "indexConfigs"):
            if is_zero(body[empty]):
                del body[empty]
        path = f"{self.collection_path(work)}:createAsync"
        request_id = work.creation_id("POST", f"{path}/{name}", body)
        answer = work.call("POST", self.api, path, query={"bucketId": name}, body=body, request_id=request_id)
        work.id = self.identify(work)
        work.finish(self.api, answer)
        return None

    def _settings(self, work: Work) -> Body:
        body = self.encode(work, updating=False)
        return {
            "cmekSettings": body.get("cmekSettings"),
            "description": body.get("description", ""),
            "indexConfigs": body.get("indexConfigs", []),
            "retentionDays": work.value("retentionDays"),
        }

    def _patch(self, work: Work, names: list[str]) -> None:
        if names:
            body = self._settings(work)
            if "locked" in names:
                body["locked"] = bool(work.inputs.get("locked"))
            query = {"updateMask": ",".join(names)}
            work.call("PATCH", self.api, self.path(work), query=query, body=body)

    def update(self, work: Work) -> Body | None:
        if self.has_changed(work, "enableAnalytics"):
            path, query = f"{self.path(work)}:updateAsync", {"updateMask": "analyticsEnabled"}
            body = {"analyticsEnabled": bool(work.inputs.get("enableAnalytics"))}
            work.finish(self.api, work.call("POST", self.api, path, query=query, body=body))
        self._patch(work, [name for name in _SETTINGS if self.has_changed(work, name)])
        return None

    def delete(self, work: Work) -> None:
        if self.values(work)["name"] not in _PERMANENT:
            super().delete(work)

    def is_gone(self, body: Mapping[str, object]) -> bool:
        return body.get("lifecycleState") == "DELETE_REQUESTED"

    def decode(self, work: Work, body: Mapping[str, object]) -> Values:
        return {**super().decode(work, body), "project": work.value("project") or work.project}


LOG_BUCKET = LogBucket(
    type="gcp:logging/projectBucketConfig:ProjectBucketConfig",
    api="logging",
    collection="projects/{project}/locations/{location}/buckets",
    name="bucketId",
    auto_name=False,
)

KINDS = (METRIC, SINK, LOG_BUCKET)
