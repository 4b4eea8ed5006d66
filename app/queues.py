"""The Cloud Tasks queues, one row each. Read by the application, and by the program that creates them. No Django here.

Each row has a dead-letter queue beside it: paused, so that what is parked in it waits until somebody decides.
"""

import re
from dataclasses import dataclass
from typing import Final

# Cloud Tasks, "Quotas and limits" and the reference of queues (v2), read 2026-11.
MAX_DISPATCHES_PER_SECOND: Final = 500
MAX_CONCURRENT_DISPATCHES: Final = 5000
MIN_DISPATCH_DEADLINE_SECONDS: Final = 15
MAX_DISPATCH_DEADLINE_SECONDS: Final = 1800
MAX_DOUBLINGS: Final = 16
# Google documents no ceiling; an hour between two attempts is as patient as anything here has to be.
MAX_BACKOFF_SECONDS: Final = 3600
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,80}")


@dataclass(frozen=True, kw_only=True)
class QueueSpec:
    """`max_attempts` counts the first one. `dispatch_deadline_seconds` is what a handler has for one attempt."""

    name: str
    max_dispatches_per_second: int
    max_concurrent_dispatches: int
    max_attempts: int
    dispatch_deadline_seconds: int
    min_backoff_seconds: int = 2
    max_backoff_seconds: int = 60
    max_doublings: int = 5

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"queue {self.name!r}: a name is lower-case letters, digits and hyphens, a letter first")
        for field, lowest, highest in (
            ("max_dispatches_per_second", 1, MAX_DISPATCHES_PER_SECOND),
            ("max_concurrent_dispatches", 1, MAX_CONCURRENT_DISPATCHES),
            # The last attempt is where a dead letter is written, so there has to be one.
            ("max_attempts", 1, 100),
            ("dispatch_deadline_seconds", MIN_DISPATCH_DEADLINE_SECONDS, MAX_DISPATCH_DEADLINE_SECONDS),
            ("min_backoff_seconds", 1, MAX_BACKOFF_SECONDS),
            ("max_backoff_seconds", 1, MAX_BACKOFF_SECONDS),
            ("max_doublings", 0, MAX_DOUBLINGS),
        ):
            found = getattr(self, field)
            if not lowest <= found <= highest:
                raise ValueError(f"queue {self.name}: {field} is {found}; Cloud Tasks takes {lowest} to {highest}")
        if self.min_backoff_seconds > self.max_backoff_seconds:
            raise ValueError(
                f"queue {self.name}: min_backoff_seconds is {self.min_backoff_seconds}, more than "
                f"max_backoff_seconds, {self.max_backoff_seconds}"
            )

    @property
    def dead_letter_name(self) -> str:
        return f"{self.name}-dead-letters"


VALIDATIONS: Final = QueueSpec(
    name="validations",
    max_dispatches_per_second=50,
    max_concurrent_dispatches=20,
    max_attempts=5,
    dispatch_deadline_seconds=600,
)
WORKFLOWS: Final = QueueSpec(
    name="workflows",
    max_dispatches_per_second=100,
    max_concurrent_dispatches=40,
    max_attempts=8,
    dispatch_deadline_seconds=300,
)
SIMULATIONS: Final = QueueSpec(
    name="simulations",
    max_dispatches_per_second=16,
    max_concurrent_dispatches=16,
    max_attempts=5,
    dispatch_deadline_seconds=1800,
)
WEBHOOKS: Final = QueueSpec(
    name="webhooks",
    max_dispatches_per_second=20,
    max_concurrent_dispatches=10,
    # 5, 10, 20 … 2560, 3600 seconds: somebody else's server may be away for two hours.
    max_attempts=12,
    min_backoff_seconds=5,
    max_backoff_seconds=3600,
    max_doublings=10,
    dispatch_deadline_seconds=30,
)

QUEUES: Final = (VALIDATIONS, WORKFLOWS, SIMULATIONS, WEBHOOKS)
QUEUE_BY_NAME: Final = {spec.name: spec for spec in QUEUES}
