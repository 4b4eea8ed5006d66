"""docs/celery-map.md: its examples run, in their order, in one namespace."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from app.internal.delivery import Attempt, deliver
from app.organizations.models import ApiKey, Organization
from app.queues import QUEUE_BY_NAME
from app.tasking.backends import _TASKS
from app.tasking.memory import InMemoryTasks
from app.tasks import TASKS
from tests.docs.blocks import blocks_of

_ROUTES = _TASKS["default"]
PAGE = Path(__file__).resolve().parents[3] / "docs" / "celery-map.md"


def deliver_all(queues: InMemoryTasks) -> list[int]:
    """Deliver until nothing is left: what is to be delivered again is, at once and as the next attempt."""
    statuses: list[int] = []
    attempts: dict[str, int] = {}
    while taken := [task for task in queues.take() if not task.queue.endswith("-dead-letters")]:
        for made in taken:
            route, id_ = made.url.rsplit("/", 2)[1:]
            attempts[made.name] = attempts.get(made.name, 0) + 1
            attempt = Attempt(queue=QUEUE_BY_NAME[made.queue], task_name=made.name, number=attempts[made.name])
            statuses.append(deliver(_ROUTES[route], id_, attempt).status_code)
            if statuses[-1] >= 300:
                queues.tasks.append(made)
    return statuses


@pytest.mark.django_db(transaction=True)
def test_the_examples_run(queues: InMemoryTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = [block for block in blocks_of(PAGE) if block.mark == "app"]
    module: Any = ModuleType("celery_map")
    monkeypatch.setitem(sys.modules, "celery_map", module)
    for route in set(_ROUTES) - {task.route for task in TASKS}:
        monkeypatch.delitem(_ROUTES, route)
    module.queues = queues
    module.deliver_all = lambda: deliver_all(queues)
    module.organization = Organization.objects.create(slug="demo", name="Demo", data_region="AU")
    module.api_key = ApiKey.objects.create(organization=module.organization, sha256="0" * 64)

    for block in examples:
        source = "\n" * block.line + block.text
        exec(compile(source, str(PAGE), "exec"), module.__dict__)  # noqa: S102  # the page's own examples

    assert len(examples) == 12
