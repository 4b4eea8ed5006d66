"""docs/reference/workflows.md: what it says is so, and everything that has a name is in it."""

import json
import re
from pathlib import Path
from typing import Any

from django.utils import timezone

from app.callbacks.signing import Keyring, Signature
from app.workflows import actions, attempts, work
from app.workflows.definitions import ErrorCode
from tests.app.environment import CALLBACK_KEYS
from tests.app.workflows.queue import Queue
from tests.app.workflows.test_workflow_api import Api, web

ROOT = Path(__file__).resolve().parents[3]
REFERENCE = (ROOT / "docs/reference/workflows.md").read_text()

__all__ = ["web"]


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", REFERENCE, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_definition_in_the_reference_runs(web: Api, queue: Queue) -> None:
    url = web.send("/api/workflows", json.loads(block("json")))["Location"]
    answers = []
    for total in (5, 5000):
        started = web.send(f"{url}/runs", {"inputs": {"order": {"id": "o7", "total": total}}})
        queue.until_empty()
        answers.append(web.get(started["Location"]).json())

    assert [answer["state"] for answer in answers] == ["SUCCESS", "FAILED"]
    assert [[step["state"] for step in answer["steps"]] for answer in answers] == [
        ["SUCCESS", "SKIPPED", "SUCCESS"],
        ["SUCCESS", "FAILED", "SKIPPED"],
    ]


def test_the_signature_in_the_reference_is_accepted() -> None:
    keys = Keyring.parse(CALLBACK_KEYS)
    names: dict[str, Any] = {}
    exec(block("python run"), names)  # noqa: S102  # our own page

    headers = names["headers"]("k1", keys.keys["k1"], "/callbacks/simulation/7", b"{}")

    Signature.of(headers).verify(keys, "POST", "/callbacks/simulation/7", b"{}", timezone.now())


def test_every_error_of_a_definition_is_in_the_reference() -> None:
    table = REFERENCE.split("| name | |")[1].split("## A run")[0]

    assert re.findall(r"^\| `([a-z-]+)`", table, re.MULTILINE) == [code.value for code in ErrorCode]


def test_every_code_of_a_steps_problem_is_in_the_reference() -> None:
    sources = [Path(module.__file__ or "").read_text() for module in (actions, attempts, work)]
    codes = {code for source in sources for code in re.findall(r'code="([a-z-]+)"', source)}
    internal = {"internal-error", "unknown-endpoint", "bad-slack-address", "no-credential-key"}

    assert {code for code in codes - internal if f"`{code}`" not in REFERENCE} == set()
    assert len(codes) >= 10
