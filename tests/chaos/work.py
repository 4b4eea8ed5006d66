"""The work that is submitted, and what has to come of it: both written down here, neither computed by the product.

A submission is sent with an idempotency key until it is acknowledged, as a careful client does. Only what was
acknowledged is promised anything.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

SCHEMA: Final = {
    "type": "object",
    "required": ["values"],
    "properties": {"values": {"type": "array", "items": {"type": "number", "minimum": 0}}},
}
BRANCHES: Final = 5
STEPS: Final = 10
# Each answers to another one than the last; a document with more has more findings.
MOST_ERRORS: Final = 4
LARGE: Final = 20_000
SENDERS: Final = 4
# Work comes in waves, so that there is some in hand when something strikes.
WAVES: Final = 10
# The application holds an idempotency key for 300 seconds when the request with it died; see app.idempotency.
KEY_SECONDS: Final = 330.0


def good_values(number: int) -> int:
    """Every eighth document is large, so that a worker has it in hand for a while."""
    return number % 7 + (LARGE if number % 8 == 0 else 0)


def document(number: int) -> dict[str, Any]:
    """A document with `number` modulo 5 errors, behind its good values."""
    return {"values": [1] * good_values(number) + [-1] * (number % (MOST_ERRORS + 1))}


def findings(number: int) -> list[str]:
    """Where the errors of `document(number)` are, in order."""
    return [f"/values/{good_values(number) + at}" for at in range(number % (MOST_ERRORS + 1))]


def submission(number: int) -> dict[str, Any]:
    return {"validator": "json-schema", "schema": SCHEMA, "document": document(number)}


def workflow(name: str, endpoint: str) -> dict[str, Any]:
    """Ten steps: one, five at once, one that joins them, then a message, a check and another message."""
    valid = {"validator": "json-schema", "schema": SCHEMA}
    branches = [f"branch{at}" for at in range(BRANCHES)]
    intake = {"document": {"ref": "/inputs/document"}}
    verdicts = {branch: {"ref": f"/steps/{branch}/outputs/verdict"} for branch in branches}
    retry = {"max_attempts": 20, "backoff_seconds": 1, "max_backoff_seconds": 20}
    # A step whose worker died is taken over this long after the end of its lease.
    timeout = {"timeout_seconds": 10}
    message = {"type": "ACTION", "config": {"action": "WEBHOOK", "endpoint": endpoint}, "retry": retry, **timeout}
    return {
        "name": name,
        "steps": [
            {"key": "intake", "type": "VALIDATOR", "inputs": intake, "config": valid, "retry": retry, **timeout},
            *(
                {
                    "key": branch,
                    "type": "VALIDATOR",
                    "depends_on": ["intake"],
                    "inputs": intake,
                    "config": valid,
                    "retry": retry,
                    **timeout,
                }
                for branch in branches
            ),
            {
                "key": "join",
                "type": "VALIDATOR",
                "depends_on": branches,
                "condition": " && ".join(f'steps.{branch}.outputs.verdict == "PASS"' for branch in branches),
                "inputs": intake,
                "config": valid,
                "retry": retry,
                **timeout,
            },
            {
                "key": "tell",
                "depends_on": ["join"],
                "inputs": {"number": {"ref": "/inputs/number"}, **verdicts},
                **message,
            },
            {
                "key": "check",
                "type": "VALIDATOR",
                "depends_on": ["tell"],
                "inputs": intake,
                "config": {"validator": "cel", "rules": [{"expression": "size(document.values) > 0"}]},
                "retry": retry,
                **timeout,
            },
            {"key": "close", "depends_on": ["check"], "inputs": {"number": {"ref": "/inputs/number"}}, **message},
        ],
    }


def told(number: int) -> dict[str, dict[str, Any]]:
    """What the two messages of a run say, by step."""
    return {
        "tell": {"number": number, **{f"branch{at}": "PASS" for at in range(BRANCHES)}},
        "close": {"number": number},
    }


class Refused(Exception):
    """The application answered a submission with something that sending it again does not mend."""


@dataclass(kw_only=True)
class Client:
    """A customer of the application, who sends again until there is an answer."""

    front_door: str
    key: str
    # How long a key is kept that another request, which died, may hold.
    key_seconds: float = KEY_SECONDS
    seconds: float = 900.0
    retries: int = 0
    _local: threading.local = field(default_factory=threading.local)

    def get(self, path: str) -> Any:
        return self._until_answered("GET", path, None, "").json()

    def post(self, path: str, body: Any, *, key: str | None = None) -> Any:
        return self._until_answered("POST", path, body, key or uuid.uuid4().hex).json()

    def submit(self, path: str, body: Any, key: str) -> tuple[Any, str]:
        """The answer, and the key under which it was given: another one, when a request that died kept the first."""
        answer = self._until_answered("POST", path, body, key)
        return answer.json(), answer.request.headers["Idempotency-Key"]

    def _until_answered(self, method: str, path: str, body: Any, key: str) -> httpx.Response:
        began = held_since = time.monotonic()
        while time.monotonic() - began < self.seconds:
            try:
                answer = self._http().request(method, path, json=body, headers={"Idempotency-Key": key})
            except httpx.TransportError:
                self._wait(0.3)
                continue
            if answer.is_success:
                return answer
            if answer.status_code == httpx.codes.CONFLICT and answer.headers.get("retry-after"):
                # The request before this one died at work, and nothing of it was committed. Nothing was acknowledged.
                if time.monotonic() - held_since > self.key_seconds:
                    key, held_since = uuid.uuid4().hex, time.monotonic()
            elif answer.status_code != httpx.codes.TOO_MANY_REQUESTS and answer.status_code < 500:
                raise Refused(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
            self._wait(min(5.0, float(answer.headers.get("retry-after", "0.5"))))
        raise TimeoutError(f"{method} {path}: no answer within {self.seconds:.0f} s")

    def _wait(self, seconds: float) -> None:
        self.retries += 1
        time.sleep(seconds)

    def _http(self) -> httpx.Client:
        if not hasattr(self._local, "http"):
            self._local.http = httpx.Client(
                base_url=self.front_door,
                headers={"Authorization": f"Bearer {self.key}"},
                timeout=60,
                trust_env=False,
            )
        http: httpx.Client = self._local.http
        return http


@dataclass(kw_only=True)
class Accepted:
    """What was acknowledged: the number of each submission, by the id that it was given."""

    validations: dict[str, int] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    # The idempotency key of each number of a validation.
    keys: dict[int, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, kind: dict[str, int], id_: str, number: int) -> None:
        with self._lock:
            if id_ in kind:
                raise Refused(f"{id_} was given to submissions {kind[id_]} and {number}")
            kind[id_] = number


def submit(
    client: Client,
    accepted: Accepted,
    *,
    validations: int,
    runs: int,
    workflow_id: str,
    seconds: float,
    stop: Callable[[], bool],
) -> Iterator[int]:
    """Send everything within about `seconds`, in waves; yields how much was acknowledged so far. Raises: Refused."""

    def validation(number: int) -> None:
        key = f"chaos-{uuid.uuid4().hex}"
        answer, accepted.keys[number] = client.submit("/api/validations?mode=async", submission(number), key)
        accepted.note(accepted.validations, answer["id"], number)

    def run(number: int) -> None:
        inputs = {"number": number, "document": {"values": [number, 1]}}
        answer = client.post(f"/api/workflows/{workflow_id}/runs", {"inputs": inputs})
        accepted.note(accepted.runs, answer["id"], number)

    def wave(at: int, count: int) -> float:
        return (at * WAVES // count) / WAVES

    began = time.monotonic()

    def send(kind: Callable[[int], None], number: int, at: float) -> None:
        while (wait := began + at - time.monotonic()) > 0:
            if stop():
                return
            time.sleep(min(wait, 0.5))
        kind(number)

    # Two pools: runs are limited per minute, and validations do not wait for them.
    with ThreadPoolExecutor(SENDERS) as senders, ThreadPoolExecutor(2) as starters:
        sent = [senders.submit(send, validation, at, seconds * wave(at, validations)) for at in range(validations)]
        sent += [starters.submit(send, run, at, seconds * wave(at, runs)) for at in range(runs)]
        for done, one in enumerate(sent):
            one.result()
            yield done + 1
