"""Recorded conversations with Google's APIs, and a server that plays Google's part in them.

A recording is one resource of one type: inputs, and the requests of its creation, update, refresh and deletion with
the answers to them. `play` lets our provider live through the same and returns what it has sent.
"""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from localgcp.pulumi.gcp.provider import GcpProvider

PROJECT, REGION = "validibot-au", "australia-southeast1"
#: API -> path below the server's address.
_PATHS = {
    "ARTIFACT_REGISTRY": "artifactregistry/v1/",
    "BILLING_BUDGETS": "billingbudgets/v1/",
    "CERTIFICATE_MANAGER": "certificatemanager/v1/",
    "CLOUD_BUILD": "cloudbuild/v1/",
    "CLOUD_RUN_V2": "run/v2/",
    "CLOUD_SCHEDULER": "cloudscheduler/v1/",
    "CLOUD_TASKS": "cloudtasks/v2/",
    "COMPUTE": "compute/v1/",
    "DNS": "dns/v1beta2/",
    "IAM_BETA": "iam/v1/",
    "KMS": "cloudkms/v1/",
    "LOGGING": "logging/v2/",
    "MONITORING": "monitoring/",
    "ORG_POLICY": "orgpolicy/v2/",
    "RESOURCE_MANAGER": "cloudresourcemanager/v1/",
    "SECRET_MANAGER": "secretmanager/v1/",
    "SERVICE_NETWORKING": "servicenetworking/v1/",
    "SERVICE_USAGE": "serviceusage/v1beta1/",
    "SQL": "sqladmin/sql/v1beta4/",
    "STORAGE": "storage/v1/",
    "STORAGE_TRANSFER": "storagetransfer/v1/",
}


def environment(address: str) -> dict[str, str]:
    """What a provider needs to talk to a server at `address`."""
    endpoints = {f"GOOGLE_{api}_CUSTOM_ENDPOINT": f"{address}/{path}" for api, path in _PATHS.items()}
    return {**endpoints, "GOOGLE_PROJECT": PROJECT, "GOOGLE_REGION": REGION}


@dataclass
class Sent:
    """A request that arrived."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        return self.method, self.path, json.dumps(self.query, sort_keys=True)


def key_of(request: Mapping[str, Any]) -> tuple[str, str, str]:
    return request["method"], request["path"], json.dumps(request.get("query") or {}, sort_keys=True)


class Replay:
    """A server that answers as recorded, in the recorded order per address, and remembers what it was sent."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self._answers: dict[tuple[str, str, str], list[Any]] = {}
        self._lock = threading.Lock()
        self.address = ""

    def load(self, requests: Sequence[Mapping[str, Any]]) -> None:
        """The answers for what comes next. What was answered last stays the answer of an address without new ones."""
        fresh: dict[tuple[str, str, str], list[Any]] = {}
        for request in requests:
            if "response" in request:
                fresh.setdefault(key_of(request), []).append(request["response"])
        with self._lock:
            self._answers.update(fresh)
            self.sent.clear()

    def settle(self, requests: Sequence[Mapping[str, Any]]) -> None:
        """What recorded writes that nobody read afterwards have made of the resource: its next reading shows it."""
        for index, write in enumerate(requests):
            path, _, verb = write["path"].rpartition(":") if write["path"].endswith("able") else (write["path"], "", "")
            later = [each for each in requests[index + 1 :] if (each["method"], each["path"]) == ("GET", path)]
            for key, answers in self._answers.items():
                if write["method"] in ("PATCH", "POST") and not later and key[:2] == ("GET", path):
                    body = {"disabled": verb == "disable"} if verb else write["response"]["body"]
                    answers[:] = [{"status": 200, "body": {**answers[-1]["body"], **body}}]

    def answer(self, sent: Sent) -> tuple[int, Any]:
        with self._lock:
            self.sent.append(sent)
            answers = self._answers.get(sent.key)
            if not answers:
                error = {"code": 404, "message": f"not recorded: {sent.method} {sent.path} {sent.query}"}
                return 404, {"error": error}
            response = answers.pop(0) if len(answers) > 1 else answers[0]
            return response["status"], response["body"]


@contextmanager
def replaying(played: Replay | None = None) -> Iterator[Replay]:
    """A replay server on a loopback port."""
    replay = played or Replay()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 65536  # one packet per answer; two would wait for one another

        def _serve(self) -> None:
            address = urlsplit(self.path)
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            sent = Sent(
                self.command,
                address.path,
                dict(parse_qsl(address.query, keep_blank_values=True)),
                _body(raw, self.headers.get("Content-Type", ""), replay.address),
                {name.lower(): value for name, value in self.headers.items()},
            )
            status, body = replay.answer(sent)
            content = b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    replay.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield replay
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def _body(raw: bytes, content_type: str, address: str) -> Any:
    if not raw:
        return None
    if content_type.startswith("multipart/"):
        boundary = content_type.partition("boundary=")[2]
        return raw.decode().replace(boundary, "boundary")
    return json.loads(raw.decode().replace(address, "{endpoint}"))


#: Lists whose order says nothing: sets of the provider.
_SETS = frozenset(
    {"allowed", "auditLogConfigs", "bindings", "databaseFlags", "denied", "env", "includedPermissions", "members"}
    | {"paths", "rules"}
)
#: Chosen by a server, or by the clock: that they are sent counts, not their value.
_ARBITRARY = frozenset({"fingerprint", "labelFingerprint", "nextRotationTime", "settingsVersion"})


def normal(body: Any, name: str = "") -> Any:
    """A body without what a comparison must ignore."""
    if isinstance(body, dict):
        # One policy is recorded without the etag that had been read. Ours never goes without.
        return {key: "…" if key in _ARBITRARY else normal(value, key) for key, value in body.items() if key != "etag"}
    if isinstance(body, list):
        items = [normal(item) for item in body]
        return sorted(items, key=lambda item: json.dumps(item, sort_keys=True)) if name in _SETS else items
    return body


def conversation(requests: Sequence[Mapping[str, Any] | Sent]) -> list[tuple[str, str, dict[str, str], Any]]:
    """Requests as they are compared: without repetitions."""
    result: list[tuple[str, str, dict[str, str], Any]] = []
    for each in requests:
        request = each.__dict__ if isinstance(each, Sent) else each
        entry = (request["method"], request["path"], request.get("query") or {}, normal(request.get("body")))
        if not result or result[-1] != entry:
            result.append(entry)
    return result


@dataclass
class Phase:
    """One step of a resource's life: what the real provider sent, what ours did, and what went wrong in ours."""

    name: str
    expected: list[tuple[str, str, dict[str, str], Any]]
    actual: list[tuple[str, str, dict[str, str], Any]]
    error: str = ""

    @property
    def is_equal(self) -> bool:
        return not self.error and self.expected == self.actual


def play(replay: Replay, type: str, recording: Mapping[str, Any], fixtures: Mapping[str, Any]) -> list[Phase]:
    """Let the provider create, update, refresh and delete a recorded resource."""
    provider = GcpProvider(environment=environment(replay.address))
    phases: list[Phase] = []
    urn = f"urn:pulumi:au::validibot::{type}::{recording['resource']}"

    def phase(name: str, requests: Sequence[Mapping[str, Any]], error: str = "") -> None:
        phases.append(Phase(name, conversation(requests), conversation(replay.sent), error))

    wanted = {**recording["inputs"], **fixtures}
    inputs, failures = provider.check(type, urn, olds=None, news=wanted, random_seed=b"seed")
    if failures:
        return [Phase("check", [], [], str(failures))]
    replay.load(recording["create"])
    error, id = "", ""
    outputs: dict[str, Any] = {}
    try:
        id, outputs = provider.create(type, urn, inputs=inputs, preview=False, timeout_seconds=10)
        if id != recording["id"]:
            error = f"id {id}, not {recording['id']}"
    except Exception as caught:
        error = repr(caught)
    phase("create", recording["create"], error)
    if not id:
        return phases

    if update := recording.get("update"):
        news = {**wanted, **{name: change["to"] for name, change in update["changed"].items()}}
        news = {name: value for name, value in news.items() if value is not None}
        checked, _ = provider.check(type, urn, olds=inputs, news=news, random_seed=b"seed")
        replay.load(update["requests"])
        error = ""
        difference = provider.diff(type, urn, id, old_inputs=inputs, old_outputs=outputs, news=checked)
        if not difference.changes or difference.replaces:
            error = f"the diff is {difference}"
        try:
            outputs = provider.update(
                type,
                urn,
                id,
                old_inputs=inputs,
                old_outputs=outputs,
                news=checked,
                preview=False,
                timeout_seconds=10,
            )
        except Exception as caught:
            error = repr(caught)
        inputs = checked
        replay.settle(update["requests"])
        phase("update", update["requests"], error)

    replay.load([])
    error = ""
    try:
        found = provider.read(type, urn, id, inputs=inputs, outputs=outputs)
        if found is None:
            error = "gone"
        else:
            drift = provider.diff(type, urn, id, old_inputs=found.inputs, old_outputs=found.outputs, news=inputs)
            if drift.changes or found.inputs != inputs:
                error = f"drift {dict(drift.changes)}"
    except Exception as caught:
        error = repr(caught)
    phase("refresh", recording["refresh"], error)

    replay.load(recording["delete"])
    error = ""
    unprotected = {**inputs, **({"deletionProtection": False} if "deletionProtection" in inputs else {})}
    try:
        # Another command of the engine, another process of the provider.
        provider = GcpProvider(environment=environment(replay.address))
        provider.delete(type, urn, id, inputs=unprotected, outputs=outputs, timeout_seconds=10)
    except Exception as caught:
        error = repr(caught)
    phase("delete", recording["delete"], error)
    return phases
