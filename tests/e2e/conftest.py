from collections.abc import Iterator

import pytest

from tests.e2e.region import Up, made_up


@pytest.fixture(scope="session")
def up() -> Iterator[Up]:
    """One region for the session: tests of the group `e2e` run in one process, and leave it as they found it."""
    with made_up() as region:
        yield region
