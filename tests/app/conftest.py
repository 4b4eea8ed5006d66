"""Django with a real Postgres, one per worker of xdist.

Django reads the environment once per process, on import. So its directories are chosen here, on import, and filled by
fixtures when a test first asks for the database.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import django
import pytest

from tests.app.environment import environment
from tests.app.postgres import Postgres
from tests.app.tokens import Issuer, issuing

POSTGRES = Postgres.reserve()
_ISSUING = issuing()
ISSUER = _ISSUING.__enter__()
atexit.register(_ISSUING.__exit__, None, None, None)
MEDIA = Path(tempfile.mkdtemp(prefix="vb-media-", dir="/tmp"))
atexit.register(shutil.rmtree, MEDIA, ignore_errors=True)
atexit.register(POSTGRES.destroy)

# Replaced as a whole: a developer's shell must not decide what the tests mean.
for name in [name for name in os.environ if name.startswith(("VALIDIBOT_", "WEB_"))]:
    del os.environ[name]
os.environ.update(environment(POSTGRES.directory, MEDIA) | {"GOOGLE_OAUTH2_CUSTOM_ENDPOINT": ISSUER.url})
django.setup()

from django.conf import settings  # noqa: E402
from django.test import Client  # noqa: E402

from app.organizations.models import ApiKey, ApiKeyText, Organization  # noqa: E402
from app.regions import DataRegion  # noqa: E402
from app.tasking.memory import InMemoryTasks  # noqa: E402
from app.validations.sandbox import pool  # noqa: E402
from tests.app.memory_queue import QUEUE  # noqa: E402
from tests.app.worker import Worker  # noqa: E402

# Mutated, not overridden: each thread has a backend of its own, which reads this when it first enqueues.
settings.TASKS["default"]["OPTIONS"]["client"] = "tests.app.memory_queue.client"


def pytest_xdist_setupnodes() -> None:
    """Each worker has a Postgres of its own, and must not read the settings with the address of this process's."""
    os.environ.pop("DJANGO_SETTINGS_MODULE", None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    POSTGRES.create()
    yield POSTGRES
    POSTGRES.destroy()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(postgres: Postgres) -> None:
    """pytest-django asks for this before it creates the test database."""


@pytest.fixture(autouse=True, scope="session")
def sandbox() -> Iterator[None]:
    yield
    pool().close()


@pytest.fixture(autouse=True)
def queues() -> InMemoryTasks:
    """Cloud Tasks, in memory: what was enqueued is in `queues.tasks`, and nothing is delivered by itself."""
    QUEUE.reset()
    return QUEUE


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    return ISSUER


@pytest.fixture
def worker(queues: InMemoryTasks) -> Worker:
    return Worker(queues)


@pytest.fixture
def organization(db: None) -> Organization:
    return Organization.objects.create(slug="demo", name="Demo", data_region="AU")


@pytest.fixture
def key_text() -> ApiKeyText:
    return ApiKeyText.generate(DataRegion.AU)


@pytest.fixture
def api_key(organization: Organization, key_text: ApiKeyText) -> ApiKey:
    return ApiKey.objects.create(organization=organization, prefix=key_text.prefix, sha256=key_text.sha256)


@pytest.fixture
def api(api_key: ApiKey, key_text: ApiKeyText) -> Client:
    """A client that comes through the load balancer, with the organisation's key."""
    return Client(
        headers={"host": "au.validibot.com", "x-forwarded-proto": "https", "authorization": f"Bearer {key_text.text}"}
    )


@pytest.fixture
def submit(api: Client) -> Callable[..., Any]:
    """Submit as JSON, to be validated at once whatever its size, and return the answer."""

    def submit(**fields: Any) -> Any:
        return api.post("/api/validations?mode=sync", fields, content_type="application/json")

    return submit
