import itertools
import os
from collections.abc import Iterator

import pytest

from tests.localgcp.fixtures import Region, served, temporary_data_dir

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def region() -> Iterator[Region]:
    """One region for the session. Take `project` beside it, and nothing another test does is in the way."""
    with temporary_data_dir() as data_dir, served(data_dir) as region:
        yield region


@pytest.fixture
def project() -> str:
    return f"test-{os.getpid()}-{next(_numbers)}"
