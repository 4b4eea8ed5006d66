"""`make chaos` in small: what was acknowledged is done once, though the worker, the database and the region are killed.

The counts are in `tests.chaos`. Here is what has to come of them.
"""

from collections.abc import Iterator

import pytest

from tests.chaos.region import StruckRegion, struck_region
from tests.chaos.report import Verdict
from tests.chaos.run import Chaos, run
from tests.chaos.strikes import Script

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("chaos"), pytest.mark.timeout(600)]

SCRIPT = Script(worker_kills=1, database_restarts=1, region_kills=1, duration_seconds=20, seed=2)
# A key that a dead request holds would be waited for much longer than everything else here takes together.
CHAOS = Chaos(validations=60, runs=6, script=SCRIPT, settle_seconds=240, hurry=True, key_seconds=5)


@pytest.fixture
def region() -> Iterator[StruckRegion]:
    with struck_region() as region:
        yield region


def test_what_was_acknowledged_is_done_once_whatever_is_killed(region: StruckRegion) -> None:
    report = run(region, CHAOS, print)

    broken = [check for check in report.checks if check.verdict is not Verdict.HELD]
    assert broken == []
    assert len(report.checks) == 26
    assert report.exit_code == 0
