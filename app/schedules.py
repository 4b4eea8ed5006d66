"""What Cloud Scheduler calls, one row each. Read by the application, and by the program that creates the jobs.

No Django here. A row's handler is in `app.internal.schedules`, under the same name; a test compares the two.
"""

import re
from dataclasses import dataclass
from typing import Final

# Cloud Scheduler, reference of jobs (v1), read 2026-11: attemptDeadline of HTTP targets, retryConfig.retryCount.
MIN_ATTEMPT_DEADLINE_SECONDS: Final = 15
MAX_ATTEMPT_DEADLINE_SECONDS: Final = 1800
MAX_RETRY_COUNT: Final = 5
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,80}")
# minute, hour, day of month, month, day of week: numbers, lists, ranges, steps.
_CRON_FIELD: Final = re.compile(r"(\*|\d+(-\d+)?)(/\d+)?(,(\*|\d+(-\d+)?)(/\d+)?)*")
_CRON_RANGES: Final = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


@dataclass(frozen=True, kw_only=True)
class ScheduleSpec:
    """`cron` is in UTC, or in the region's own time zone when it `is_regional`."""

    name: str
    cron: str
    is_regional: bool = False
    attempt_deadline_seconds: int = 180
    retry_count: int = 3

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"schedule {self.name!r}: a name is lower-case letters, digits and hyphens")
        fields = self.cron.split(" ")
        if len(fields) != len(_CRON_RANGES):
            raise ValueError(f"schedule {self.name}: cron is {self.cron!r}; it has five fields, one space between them")
        for field, (lowest, highest) in zip(fields, _CRON_RANGES, strict=True):
            numbers = [int(n) for n in re.findall(r"(?<!/)\b\d+", field)]
            if not _CRON_FIELD.fullmatch(field) or not all(lowest <= n <= highest for n in numbers):
                raise ValueError(f"schedule {self.name}: {field!r} in {self.cron!r} is not {lowest} to {highest}")
        for name, found, low, high in (
            (
                "attempt_deadline_seconds",
                self.attempt_deadline_seconds,
                MIN_ATTEMPT_DEADLINE_SECONDS,
                MAX_ATTEMPT_DEADLINE_SECONDS,
            ),
            ("retry_count", self.retry_count, 0, MAX_RETRY_COUNT),
        ):
            if not low <= found <= high:
                raise ValueError(f"schedule {self.name}: {name} is {found}; Cloud Scheduler takes {low} to {high}")

    @property
    def path(self) -> str:
        return f"/internal/scheduled/{self.name}"


SCHEDULES: Final = (
    ScheduleSpec(name="re-enqueue-pending", cron="* * * * *", attempt_deadline_seconds=55, retry_count=0),
    ScheduleSpec(name="reap-stuck-runs", cron="*/5 * * * *"),
    ScheduleSpec(name="sweep-dead-letters", cron="*/10 * * * *"),
    ScheduleSpec(name="purge-expired-submissions", cron="7 * * * *", attempt_deadline_seconds=600),
    ScheduleSpec(name="purge-expired-outputs", cron="*/5 * * * *"),
    # At night where the customers are.
    ScheduleSpec(name="clear-sessions", cron="0 2 * * *", is_regional=True, attempt_deadline_seconds=600),
    ScheduleSpec(name="purge-idempotency-keys", cron="0 3 * * *", is_regional=True, attempt_deadline_seconds=600),
    ScheduleSpec(name="purge-callback-receipts", cron="0 4 * * 0", is_regional=True, attempt_deadline_seconds=600),
)
