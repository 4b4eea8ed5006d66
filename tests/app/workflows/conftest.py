"""Workflows with a real Postgres, and a queue that a test delivers from as it likes."""

import pytest

from app.organizations.models import ApiKey, ApiKeyText, Organization
from app.regions import DataRegion
from app.tasking.memory import InMemoryTasks
from tests.app.workflows.queue import Queue


@pytest.fixture
def queue(transactional_db: None, queues: InMemoryTasks) -> Queue:
    """Transactions commit, so that what they enqueue is enqueued."""
    return Queue(queues)


@pytest.fixture
def key(transactional_db: None) -> ApiKey:
    organization = Organization.objects.create(slug="demo", name="Demo", data_region="AU")
    text = ApiKeyText.generate(DataRegion.AU)
    return ApiKey.objects.create(organization=organization, prefix=text.prefix, sha256=text.sha256)
