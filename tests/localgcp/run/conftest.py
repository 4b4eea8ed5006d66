from collections.abc import Callable

import pytest

from tests.localgcp.fixtures import Region
from tests.localgcp.run.images import push_image

LOCATION = "australia-southeast1"


@pytest.fixture
def image(region: Region, project: str) -> str:
    """The small server of `images.SERVER`, in a registry of its own project."""
    return push_image(region, project, LOCATION)


@pytest.fixture
def parent(project: str) -> str:
    return f"projects/{project}/locations/{LOCATION}"


@pytest.fixture
def push(region: Region, project: str) -> Callable[..., str]:
    return lambda **files: push_image(region, project, LOCATION, **files)
