"""Long-running operations, in the dialect of each API.

An operation is stored before it is answered. One that was running when the process died is failed at the next start:
its service has by then finished or undone the work, and the client that asks again is told what became of it.
"""

import logging
import secrets
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from localgcp.clock import timestamp
from localgcp.errors import Aborted, ApiError, Internal
from localgcp.identifiers import numeric_id

if TYPE_CHECKING:
    from localgcp.region import Region
    from localgcp.service import Call

# How long an answer waits for the work before it says "not done yet". Below every client's HTTP timeout, of which that
# of google-cloud-run is the shortest: it gives the deletion of a service 10 seconds.
INLINE_SECONDS = 5.0

Work = Callable[[], Mapping[str, Any] | None]
log = logging.getLogger(__name__)


class Operations:
    def __init__(self, region: "Region") -> None:
        self._region = region
        self._pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix="operation")

    def begin(
        self,
        call: "Call",
        work: Work | None,
        *,
        target: str,
        kind: str,
        response: Mapping[str, Any] | None,
        metadata: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        key, body = self._new(call, target, kind, metadata)
        if work is None:
            return self._finish(key, body, response, None)
        self._region.store.put(key, body)
        finished = threading.Event()

        def run() -> None:
            error: ApiError | None = None
            result: Mapping[str, Any] | None = None
            try:
                result = work()
            except ApiError as refused:
                error = refused
            except Exception:
                log.exception("operation %s failed", key)
                error = Internal("Internal error encountered. The log of localgcp has the cause.")
            try:
                self._finish(key, body, result, error)
            finally:
                finished.set()

        self._pool.submit(run)
        finished.wait(INLINE_SECONDS)
        return dict(self._region.store.get(key))

    def recover(self) -> None:
        """Fail what was running when the process died."""
        interrupted = Aborted("The operation was interrupted by a restart of localgcp: ask again.")
        for api in self._region.apis:
            for operation in self._region.store.scan(f"{api}/"):
                if operation.get("_localgcp") == "running":
                    self._finish(operation.key, dict(operation), None, interrupted)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _new(
        self, call: "Call", target: str, kind: str, metadata: Mapping[str, Any] | None
    ) -> tuple[str, dict[str, Any]]:
        api = call.service.api
        now = timestamp(self._region.clock.now())
        if api.dialect == "compute":
            return self._new_compute(call, target, kind, now)
        if api.dialect == "sql":
            name = str(uuid.uuid4())
            link = f"https://sqladmin.googleapis.com/sql/v1beta4/projects/{call.project}"
            relative = target.partition("/")[2].split("/")
            instance = relative[3] if len(relative) > 3 else ""
            return f"sqladmin/projects/{call.project}/operations/{name}", {
                "kind": "sql#operation",
                "name": name,
                "status": "RUNNING",
                "operationType": kind.upper(),
                "insertTime": now,
                "startTime": now,
                "user": call.principal.email or "",
                "targetId": instance,
                "targetProject": call.project,
                "targetLink": f"{link}/instances/{instance}",
                "selfLink": f"{link}/operations/{name}",
                "_localgcp": "running",
            }
        identifier = secrets.token_hex(16)
        if api.operations_at == "root" or not (call.project and call.location):
            name = f"operations/{identifier}"
        else:
            name = f"projects/{call.project}/locations/{call.location}/operations/{identifier}"
        body: dict[str, Any] = {"name": name, "done": False, "_localgcp": "running"}
        if metadata is not None:
            body["metadata"] = dict(metadata)
        return f"{api.name}/{name}", body

    def _new_compute(self, call: "Call", target: str, kind: str, now: str) -> tuple[str, dict[str, Any]]:
        name = f"operation-{uuid.uuid4()}"
        region = f"regions/{call.location}" if call.location not in (None, "global") else "global"
        base = "https://www.googleapis.com/compute/v1"
        return f"compute/projects/{call.project}/{region}/operations/{name}", {
            "kind": "compute#operation",
            "id": numeric_id(),
            "name": name,
            "operationType": kind,
            "targetLink": f"{base}/{target.partition('/')[2]}",
            "targetId": numeric_id(),
            "status": "RUNNING",
            "user": call.principal.email or "",
            "progress": 0,
            "insertTime": now,
            "startTime": now,
            "selfLink": f"{base}/projects/{call.project}/{region}/operations/{name}",
            "_localgcp": "running",
        }

    def _finish(
        self, key: str, body: dict[str, Any], response: Mapping[str, Any] | None, error: ApiError | None
    ) -> dict[str, Any]:
        now = timestamp(self._region.clock.now())
        body = {name: value for name, value in body.items() if name != "_localgcp"}
        if "done" in body:
            body["done"] = True
            if error is not None:
                body["error"] = error.to_status()
            else:
                body["response"] = {"@type": "type.googleapis.com/google.protobuf.Empty", **(response or {})}
        else:
            body |= {"status": "DONE", "endTime": now}
            if "progress" in body:
                body["progress"] = 100
            if error is not None and body["kind"] == "sql#operation":
                body["error"] = {
                    "kind": "sql#operationErrors",
                    "errors": [{"kind": "sql#operationError", "code": error.code, "message": error.message}],
                }
            elif error is not None:
                body["error"] = {"errors": [{"code": error.code, "message": error.message}]}
                body |= {"httpErrorStatusCode": error.status, "httpErrorMessage": error.code}
        return dict(self._region.store.put(key, body))
