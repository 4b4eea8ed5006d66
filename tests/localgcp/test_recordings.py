"""The region answers what the real provider sends.

Requests of the real `gcp` provider, recorded once, are sent to a region in the order in which the provider sent them.
The recordings are not part of this repository: the test runs where they are present, beside the repository or where
`VALIDIBOT_PROVIDER_RECORDINGS` says, and is reported as skipped elsewhere.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.localgcp.fixtures import Region, served, temporary_data_dir

RECORDINGS = Path(
    os.environ.get("VALIDIBOT_PROVIDER_RECORDINGS")
    or Path(__file__).resolve().parents[2].parent / "shared" / "provider" / "recordings"
)
RECORDED_NUMBER = "123456789012"
# Chosen by the server that the recordings were made with; ours chooses its own.
GENERATED_NAME = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d{15,}|.*-abc123")
VERSIONS = ("etag", "fingerprint", "labelFingerprint", "settingsVersion")
PASSES = 8  # resources are sent again until what they refer to exists

# What the recordings ask for and a region on one machine refuses, and why.
REFUSED = {
    "db-clone": "clones of an instance are not offered",
    "job-energyplus": "the recorded image was never built here",
    "job-migrate": "the recorded image was never built here",
    "job-runner": "it is a grant on job-energyplus",
    "web": "the recorded image was never built here",
    "worker": "the recorded image was never built here",
    "worker-tasks": "it is a grant on worker",
}

Recording = Mapping[str, Any]

pytestmark = pytest.mark.skipif(not RECORDINGS.is_dir(), reason=f"the provider's recordings are missing: {RECORDINGS}")


def recordings() -> Iterator[Recording]:
    for file in sorted(RECORDINGS.glob("*-*.json")):
        recording = json.loads(file.read_text())
        yield recording
        yield from recording.get("variants", [])


class Replay:
    """Sends recorded requests, with this region's names and versions in place of the recorded ones."""

    def __init__(self, region: Region) -> None:
        self._http = region.http()
        self._url = region.url
        self._names = {RECORDED_NUMBER: region.core.project_number("validibot-au")}
        self._seen: dict[str, dict[str, str]] = {}

    def close(self) -> None:
        self._http.close()

    def send(self, request: Mapping[str, Any]) -> httpx.Response:
        path = self._here(request["path"])
        query = {name: self._here(value) for name, value in request["query"].items()}
        if path.startswith("/upload/"):
            headers = {"content-type": "multipart/related; boundary=boundary"}
            return self._http.post(path, params=query, content=request["body"].encode(), headers=headers)
        body = None if request["body"] is None else json.loads(self._here(json.dumps(request["body"])))
        if body is not None:
            self._freshen(body, path)
        answer = self._http.request(request["method"], path, params=query, json=body)
        self._learn(path, answer, (request.get("response") or {}).get("body"))
        return answer

    def expects(self, request: Mapping[str, Any]) -> int:
        return int((request.get("response") or {}).get("status", request.get("status", 200)))

    def _here(self, text: str) -> str:
        for theirs, ours in self._names.items():
            text = text.replace(theirs, ours)
        return text.replace("{endpoint}", self._url)

    def _freshen(self, body: Any, path: str) -> None:
        """Versions (etags, fingerprints) that were read are sent back; these are the ones that this region answered."""
        if isinstance(body, list):
            for item in body:
                self._freshen(item, path)
        if not isinstance(body, dict):
            return
        for name in list(body):
            if name in VERSIONS and isinstance(body[name], str):
                known = self._seen.get(_resource(path), {})
                if name in known:
                    body[name] = known[name]
                else:
                    del body[name]
            else:
                self._freshen(body[name], path)

    def _learn(self, path: str, answer: httpx.Response, recorded: Any) -> None:
        if not answer.headers.get("content-type", "").startswith("application/json") or answer.is_error:
            return
        ours = answer.json()
        found: dict[str, str] = {}
        _versions(ours, found)
        self._seen.setdefault(_resource(path), {}).update(found)
        if isinstance(recorded, dict) and isinstance(ours, dict):
            for field in ("name", "id"):
                theirs, mine = _last(recorded.get(field)), _last(ours.get(field))
                if theirs != mine and GENERATED_NAME.fullmatch(theirs) and mine:
                    self._names[theirs] = mine


def _resource(path: str) -> str:
    """The resource that a path is about, whatever is done to it."""
    return re.sub(r"(:|/)(set\w+|getIamPolicy|setIamPolicy|iam|addRule|patchRule|removeRule)$", "", path)


def _versions(body: Any, found: dict[str, str]) -> None:
    for name, value in body.items() if isinstance(body, dict) else ():
        if name in VERSIONS and isinstance(value, str):
            found[name] = value
        else:
            _versions(value, found)


def _last(name: Any) -> str:
    return name.rpartition("/")[2] if isinstance(name, str) else ""


@pytest.fixture
def empty_region() -> Iterator[Region]:
    """A region of its own: the recordings use one project's names for everything."""
    with temporary_data_dir() as data_dir, served(data_dir) as region:
        yield region


@pytest.mark.slow
def test_every_recorded_request_is_answered_as_the_real_provider_needs_it(empty_region: Region) -> None:
    everything = [recording for recording in recordings() if recording["resource"] not in REFUSED]
    assert len(everything) > 90

    with closing(Replay(empty_region)) as replay:
        wrong = _lived_through(replay, everything)

    assert wrong == {"create": {}, "update": {}, "refresh": {}, "delete": {}}


def _lived_through(replay: Replay, everything: list[Recording]) -> dict[str, dict[str, str]]:
    """Create, update, refresh and delete all of it: phase -> resource -> what was answered instead."""
    failed, created = _run(replay, everything, "create")
    wrong = {"create": failed}
    for phase in ("update", "refresh"):
        wrong[phase] = {}
        for recording in everything:
            for request in _requests(recording, phase):
                wrong[phase] |= _sent(replay, recording, request)
    wrong["delete"], _ = _run(replay, created[::-1], "delete")
    return wrong


def _run(replay: Replay, wanted: list[Recording], phase: str) -> tuple[dict[str, str], list[Recording]]:
    """Send a phase of every recording: what failed to the end, and the rest in the order in which it was done.

    What fails because something that it refers to is not there yet goes on where it stopped, in the next pass.
    """
    left = [(recording, list(_requests(recording, phase))) for recording in wanted]
    failures: dict[str, str] = {}
    done: list[Recording] = []
    for _ in range(PASSES):
        failures = {}
        for recording, requests in left:
            while requests:
                failure = _sent(replay, recording, requests[0])
                if failure:
                    failures |= failure
                    break
                requests.pop(0)
            else:
                done.append(recording)
        left = [entry for entry in left if entry[1]]
    return failures, done


def _requests(recording: Recording, phase: str) -> Iterator[Mapping[str, Any]]:
    requests = recording[phase] or []
    for request in requests["requests"] if isinstance(requests, dict) else requests:
        # An operation that comes back done is not polled, so ours never are.
        if "/operations/" not in request["path"]:
            yield request


def _sent(replay: Replay, recording: Recording, request: Mapping[str, Any]) -> dict[str, str]:
    answer = replay.send(request)
    expected = replay.expects(request)
    # "Is it there already?" comes before a creation; in a later pass it is.
    failure = _operation_error(answer)
    if not failure and (answer.status_code == expected or expected == 404):
        return {}
    said = f"{request['method']} {request['path']}: {answer.status_code} for {expected}: {answer.text[:200]}"
    return {recording["resource"]: said}


def _operation_error(answer: httpx.Response) -> Any:
    """What an operation ended with, although the answer that tells of it is a success."""
    if not answer.is_success or not answer.headers.get("content-type", "").startswith("application/json"):
        return None
    body = answer.json()
    is_operation = isinstance(body, dict) and (body.get("done") is True or str(body.get("kind")).endswith("#operation"))
    return body.get("error") if is_operation else None
