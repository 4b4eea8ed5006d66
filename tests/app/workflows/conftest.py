"""Workflows with a real Postgres, and a queue that a test delivers from as it likes."""

from collections.abc import Iterator

import pytest
from asgiref.local import Local
from django.test import override_settings
from django_tasks import task_backends

from app.organizations.models import ApiKey, ApiKeyText, Organization
from app.regions import DataRegion
from tests.app.workflows.queue import QUEUES, Queue


@pytest.fixture
def queue(transactional_db: None) -> Iterator[Queue]:
    """The Cloud Tasks backend with a queue in memory. Transactions commit, so that what they enqueue is enqueued."""
    backend = {
        "BACKEND": "app.tasking.backends.CloudTasksBackend",
        "QUEUES": QUEUES,
        "OPTIONS": {
            "client": "tests.app.workflows.queue.client",
            "url": "https://worker.test",
            "service_account": "tasks@validibot-test.iam.gserviceaccount.com",
        },
    }
    with override_settings(TASKS={"default": backend}):
        _forget_backends()
        yield Queue.fresh()
    _forget_backends()


def _forget_backends() -> None:
    # django-tasks reads its settings once per process, and keeps a backend per thread.
    task_backends.__dict__.pop("settings", None)
    task_backends._settings = None  # type: ignore[attr-defined]
    task_backends._connections = Local(task_backends.thread_critical)  # type: ignore[attr-defined]


@pytest.fixture
def key(transactional_db: None) -> ApiKey:
    organization = Organization.objects.create(slug="demo", name="Demo", data_region="AU")
    text = ApiKeyText.generate(DataRegion.AU)
    return ApiKey.objects.create(organization=organization, prefix=text.prefix, sha256=text.sha256)
