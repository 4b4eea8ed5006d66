"""Cloud Storage: buckets, objects; and transfer jobs."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from localgcp.pulumi.gcp.contents import content_of_source
from localgcp.pulumi.gcp.kind import Kind, Work
from localgcp.pulumi.gcp.mapping import Body, Encoding, Values
from localgcp.pulumi.gcp.rest import RestError
from localgcp.pulumi.gcp.values import is_zero, same
from localgcp.pulumi.provider import ProviderError

_LIVE = {"LIVE": True, "ARCHIVED": False}


def _same_case(a: Any, b: Any) -> bool:
    return isinstance(a, str) and isinstance(b, str) and a.upper() == b.upper()


@dataclass(frozen=True, kw_only=True)
class Bucket(Kind):
    id_form: str = "{name}"

    def path(self, work: Work) -> str:
        return f"b/{work.id or self.values(work)['name']}"

    def create(self, work: Work) -> Body | None:
        body = self.encode(work, updating=False)
        self.post(work, "b", body, query={"project": work.project})
        work.id = self.identify(work)
        live = self.get(work)
        if live is not None and live.get("projectNumber"):
            # Buckets know their project by its number only.
            try:
                project = work.call("GET", "compute", f"projects/{live['projectNumber']}")
            except RestError:
                return live  # the number is as good
            work.state["project"] = project.get("name", work.project)
        return live

    def update(self, work: Work) -> Body | None:
        """A PATCH of the blocks that changed; what the program no longer sets is null in it."""
        changed = self.changed_fields(work)
        if not changed:
            return None
        wanted = self.encode(work, updating=True)
        body: Body = {name: wanted.get(name) for name in sorted(changed)}
        if "labels" in changed:
            before = {*(work.old_inputs.get("labels") or {}), *(work.state.get("pulumiLabels") or {})}
            removed = before - wanted["labels"].keys()
            body["labels"] = {**wanted["labels"], **dict.fromkeys(removed)}
        work.call("PATCH", self.api, self.path(work), body=body)
        return None

    def changed_fields(self, work: Work) -> set[str]:
        changed = super().changed_fields(work)
        return changed | {"autoclass"} if self.has_changed(work, "autoclass") else changed

    def decode(self, work: Work, body: Mapping[str, Any]) -> Values:
        live = super().decode(work, body)
        live["url"] = f"gs://{body['name']}"
        live["project"] = work.value("project") or work.project
        return live

    def delete(self, work: Work) -> None:
        path = self.path(work)
        try:
            work.call("GET", self.api, f"{path}/anywhereCaches/")
        except RestError as error:
            if error.status not in (400, 404, 501):
                raise
        self._empty(work, path)
        work.call("DELETE", self.api, path)

    def _empty(self, work: Work, path: str) -> None:
        query = {"versions": "true"}
        while True:
            page = work.call("GET", self.api, f"{path}/o", query=query)
            objects = page.get("items", [])
            if objects and not work.value("forceDestroy"):
                raise ProviderError(
                    f"the bucket {work.id} still holds objects ({objects[0]['name']}, …): delete them, or set "
                    "forceDestroy=True and run `pulumi up` before destroying it"
                )
            for each in objects:
                name = quote(each["name"], safe="")
                try:
                    work.call("DELETE", self.api, f"{path}/o/{name}", query={"generation": str(each["generation"])})
                except RestError as error:
                    if error.status != 404:
                        raise
            if not page.get("nextPageToken"):
                return
            query["pageToken"] = page["nextPageToken"]


BUCKET = Bucket(
    type="gcp:storage/bucket:Bucket",
    api="storage",
    collection="projects/{project}/buckets",
    name_in_body="short",
    encoding=Encoding(
        always={"": {"iamConfiguration.uniformBucketLevelAccess.enabled": False, "lifecycle.rule": []}},
        convert={"lifecycleRules.condition.withState": _LIVE.get},
        keep_zero=frozenset(
            {"lifecycleRules.condition.withState", "versioning.enabled", "uniformBucketLevelAccess", "requesterPays"}
            | {"softDeletePolicy.retentionDurationSeconds", "autoclass.enabled"}
        ),
        text_numbers=True,
    ),
    decoding={"lifecycleRules.condition.withState": lambda live: "LIVE" if live else "ARCHIVED"},
    alike={"location": _same_case, "storageClass": _same_case},
)

_BOUNDARY = b"localgcp-multipart-boundary"


def content_of(values: Mapping[str, Any]) -> bytes:
    """What an object shall hold."""
    if values.get("content") is not None:
        return str(values["content"]).encode()
    return content_of_source(values.get("source"))


_MAGIC = {
    b"PK\x03\x04": "application/zip",
    b"\x1f\x8b\x08": "application/x-gzip",
    b"%PDF-": "application/pdf",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
}


def _sniff(content: bytes) -> str:
    """The content type when none is given: the little of the provider's own guess that matters here."""
    for magic, type in _MAGIC.items():
        if content.startswith(magic):
            return type
    try:
        text = content[:512].decode()
    except UnicodeDecodeError as error:
        if error.end < min(len(content), 512) - 3:
            return "application/octet-stream"
        text = content[: error.start].decode()
    start = text.lstrip().lower()
    if any(ord(char) < 32 and char not in "\t\n\r\f\x1b" for char in text):
        return "application/octet-stream"
    if start.startswith(("<!doctype html", "<html")):
        return "text/html; charset=utf-8"
    return "text/xml; charset=utf-8" if start.startswith("<?xml") else "text/plain; charset=utf-8"


@dataclass(frozen=True, kw_only=True)
class BucketObject(Kind):
    """An object's content goes up in one multipart request, at creation and whenever it changes."""

    id_form: str = "{bucket}-{name}"
    short_name: bool = False

    def path(self, work: Work) -> str:
        return f"b/{work.value('bucket')}/o/{quote(str(work.value('name')), safe='')}"

    def create(self, work: Work) -> Body | None:
        self._upload(work)
        work.id = f"{work.value('bucket')}-{work.value('name')}"
        return None

    def _upload(self, work: Work) -> None:
        content = content_of(work.inputs)
        metadata = {**self.encode(work, updating=False), "bucket": work.value("bucket")}
        content_type = metadata.get("contentType") or _sniff(content)
        if work.value("forceEmptyContentType"):
            metadata["contentType"] = content_type = ""
        # As Go's encoder writes it: sorted, and with a final line break.
        header = json.dumps(metadata, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        parts = [
            b"--" + _BOUNDARY + b"\r\nContent-Type: application/json\r\n\r\n" + header,
            b"\r\n--" + _BOUNDARY + b"\r\nContent-Type: " + content_type.encode() + b"\r\n\r\n" + content,
            b"\r\n--" + _BOUNDARY + b"--\r\n",
        ]
        path = f"b/{work.value('bucket')}/o"
        digest = hashlib.sha256(content).hexdigest()
        work.call(
            "POST",
            "upload",
            path,
            query={"uploadType": "multipart", "name": str(work.value("name"))},
            content=b"".join(parts),
            content_type=f"multipart/related; boundary={_BOUNDARY.decode()}",
            # An upload may be repeated: it only makes the same object once more.
            request_id=work.creation_id("POST", f"{path}/{work.value('name')}/{work.state.get('generation')}", digest),
        )

    def update(self, work: Work) -> Body | None:
        if self._has_new_content(work):
            self._upload(work)
            return None
        changed = self.changed_fields(work)
        if changed:
            wanted = self.encode(work, updating=False)
            work.call("PATCH", self.api, self.path(work), body={name: wanted.get(name) for name in sorted(changed)})
        return None

    def _has_new_content(self, work: Work) -> bool:
        return any(
            not same(self.properties[name], work.inputs.get(name), work.old_inputs.get(name))
            for name in ("content", "source", "sourceMd5hash")
        )

    def encode(self, work: Work, *, updating: bool) -> Body:
        body = super().encode(work, updating=updating)
        body.pop("name", None)
        return body

    def decode(self, work: Work, body: Mapping[str, Any]) -> Values:
        live = super().decode(work, body)
        if md5 := body.get("md5Hash"):
            live["md5hexhash"] = base64.b64decode(md5).hex()
            live["detectMd5hash"] = md5
        return {**live, "name": body["name"], "outputName": body["name"], "bucket": work.value("bucket")}

    def observe(self, work: Work, live: Values) -> Values:
        inputs = {**super().observe(work, live)}
        if "detectMd5hash" in work.inputs:
            inputs["detectMd5hash"] = work.inputs["detectMd5hash"]
        try:
            content = content_of(work.inputs)
        except (OSError, ProviderError):
            return inputs  # the file is elsewhere; whether it is the same cannot be said
        mine = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        if live.get("md5hash") and live["md5hash"] != mine:
            # Somebody else's content: the program's comes up as new.
            inputs.pop("content", None)
            inputs.pop("source", None)
        return inputs

    def parse_id(self, id: str) -> Values:
        bucket, _, name = id.partition("/")
        if not name:
            raise ProviderError(f"{id!r} is no id of a BucketObject: expected <bucket>/<name>")
        return {"bucket": bucket, "name": name}

    def check(self, inputs: Values) -> list[tuple[str, str]]:
        if inputs.get("content") is None and inputs.get("source") is None:
            return [("content", "is required, or source")]
        return super().check(inputs)


BUCKET_OBJECT = BucketObject(
    type="gcp:storage/bucketObject:BucketObject",
    api="storage",
    collection="b/{bucket}/o",
    conflicts=(("content", "source"),),
)


@dataclass(frozen=True, kw_only=True)
class TransferJob(Kind):
    """Updates and deletions name the changed fields in the body; deleted is a status."""

    auto_name: bool = False

    def _short(self, work: Work) -> str:
        return str(work.value("name")).rpartition("/")[2]

    def identify(self, work: Work) -> str:
        return f"{work.project}/{self._short(work)}"

    def path(self, work: Work) -> str:
        return f"transferJobs/{self._short(work)}"

    def parse_id(self, id: str) -> Values:
        project, _, name = id.partition("/")
        return {"project": project, "name": f"transferJobs/{name}"}

    def encode(self, work: Work, *, updating: bool) -> Body:
        body = super().encode(work, updating=updating)
        if name := work.value("name"):
            body["name"] = name
        return body

    def create(self, work: Work) -> Body | None:
        body = {**self.encode(work, updating=False), "projectId": work.project}
        answer = self.post(work, "transferJobs", body)
        work.plan["name"] = answer.get("name", work.value("name"))
        work.id = self.identify(work)
        return None

    def get(self, work: Work) -> Body | None:
        return work.rest_get(self.api, self.path(work), query={"projectId": work.project})

    def is_gone(self, body: Mapping[str, Any]) -> bool:
        return body.get("status") == "DELETED"

    def decode(self, work: Work, body: Mapping[str, Any]) -> Values:
        return {**super().decode(work, body), "name": body["name"], "project": work.project}

    def _patch(self, work: Work, job: Body) -> Body:
        mask = ",".join(sorted(job))
        body = {"projectId": work.project, "transferJob": job, "updateTransferJobFieldMask": mask}
        return work.call("PATCH", self.api, self.path(work), body=body)

    def update(self, work: Work) -> Body | None:
        changed = sorted(self.changed_fields(work))
        if not changed:
            return None
        wanted = self.encode(work, updating=False)
        return self._patch(work, {name: wanted.get(name) for name in changed})

    def delete(self, work: Work) -> None:
        self._patch(work, {"status": "DELETED"})

    def check(self, inputs: Values) -> list[tuple[str, str]]:
        name = inputs.get("name")
        if isinstance(name, str) and not is_zero(name) and not name.startswith("transferJobs/"):
            return [("name", f"{name!r} is no name of a transfer job: expected transferJobs/…")]
        return []


TRANSFER_JOB = TransferJob(type="gcp:storage/transferJob:TransferJob", api="storagetransfer", collection="transferJobs")

KINDS = (BUCKET, BUCKET_OBJECT, TRANSFER_JOB)
