import itertools
import os
from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.localgcp.fixtures import Region, served, temporary_data_dir

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def region() -> Iterator[Region]:
    """One region for the session. Take `project` beside it, and nothing another test does is in the way."""
    with temporary_data_dir() as data_dir, served(data_dir) as region:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(region.core.clock, "advance", _refuse_to_advance)
            yield region


def _refuse_to_advance(by: timedelta) -> None:
    raise AssertionError("every test of the session shares this region's time: take the fixture `moved`")


@pytest.fixture
def moved() -> Iterator[Region]:
    """A region of the test's own, whose clock it may move."""
    with temporary_data_dir() as data_dir, served(data_dir) as region:
        yield region


@pytest.fixture
def project() -> str:
    return f"test-{os.getpid()}-{next(_numbers)}"
