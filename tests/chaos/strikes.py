"""The fault script: what strikes, and when. The same seed gives the same order."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tests.chaos import ledger
from tests.chaos.region import WORKER, StruckRegion, until

# While the script runs, always: every task twice, and one request in ten to the worker refused.
STANDING: Final = (
    {"kind": "deliver-twice", "target": "*", "seconds": 0.2},
    {"kind": "unavailable", "target": f"run/{WORKER}", "rate": 0.1},
)
# And some leases end while their workers live; see the ledger.
LAPSED: Final = "lapsed lease"

# A strike that finds nobody at work strikes all the same.
AT_WORK_SECONDS: Final = 3.0
# After the region was killed, no worker runs before the first task is delivered.
WORKER_SECONDS: Final = 30.0


def is_at_work(region: StruckRegion) -> bool:
    """Wait a moment for a worker that holds a lease: killing an idle one shows little."""
    deadline = time.monotonic() + AT_WORK_SECONDS
    with region.database() as connection:
        while time.monotonic() < deadline:
            if connection.execute(ledger.AT_WORK).fetchone() is not None:
                return True
            time.sleep(0.01)
    return False


@dataclass(frozen=True, kw_only=True)
class Script:
    worker_kills: int
    database_restarts: int
    region_kills: int
    duration_seconds: float
    seed: int

    def strikes(self) -> list[tuple[float, str]]:
        """Moments, in seconds from the beginning, and what happens then; evenly far apart, in random order."""
        kinds = (
            ["kill a worker"] * self.worker_kills
            + ["restart the database"] * self.database_restarts
            + ["kill the region"] * self.region_kills
        )
        random.Random(self.seed).shuffle(kinds)
        gap = self.duration_seconds / (len(kinds) + 1)
        return [(gap * (at + 1), kind) for at, kind in enumerate(kinds)]


@dataclass(kw_only=True)
class Strikes:
    """Runs a script in a thread of its own."""

    region: StruckRegion
    script: Script
    say: Callable[[str], None]
    done: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    error: BaseException | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def begin(self) -> None:
        self._stand()
        ledger.let_leases_lapse(self.region)
        self._thread = threading.Thread(target=self._run, name="strikes")
        self._thread.start()

    @property
    def is_over(self) -> bool:
        return self._thread is not None and not self._thread.is_alive()

    def end(self) -> None:
        """Wait for the last strike, and clear every fault. Raises what the script failed with."""
        if self._thread is not None:
            self._thread.join(self.script.duration_seconds + 300)
        if self.error is not None:
            raise self.error
        self._count_hits()
        self.region.heal()
        self.hits[LAPSED] = ledger.keep_leases(self.region)

    def give_up(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(120)

    def _run(self) -> None:
        began = time.monotonic()
        try:
            for at, kind in self.script.strikes():
                if self._stop.wait(max(0.0, began + at - time.monotonic())):
                    return
                self._strike(kind)
            self._stop.wait(max(0.0, began + self.script.duration_seconds - time.monotonic()))
        except BaseException as error:
            self.error = error

    def _strike(self, kind: str) -> None:
        detail: Any = ""
        match kind:
            case "kill a worker":
                is_at_work(self.region)
                try:
                    detail = until("a worker to kill", self.region.kill_worker, WORKER_SECONDS)
                except TimeoutError:
                    kind = "no worker to kill"
            case "restart the database":
                self.region.restart_database()
            case "kill the region":
                # Faults are in its memory.
                self._count_hits()
                self.region.kill_region()
                self.region.start_again()
                self._stand()
        self.done[kind] += 1
        self.say(f"{kind}{f' (process {detail})' if detail else ''}")

    def _stand(self) -> None:
        for fault in STANDING:
            self.region.strike(**fault)

    def _count_hits(self) -> None:
        for fault in self.region.faults():
            self.hits[fault["kind"]] += fault["hits"]
