"""Settings for mypy's Django plugin, which imports them outside of any deployment."""

import os
from pathlib import Path

from tests.app.environment import environment

os.environ.update(environment(Path("/nowhere"), Path("/nowhere")))

from app.settings import *  # noqa: F403
