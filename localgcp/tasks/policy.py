"""The numbers of a queue: defaults, limits, backoff and rate.

Source of the limits and of the backoff: Cloud Tasks v2 reference, `RateLimits`, `RetryConfig`, `Task`, `HttpRequest`;
quotas page for the size of a task and the schedule horizon.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localgcp.clock import seconds
from localgcp.errors import InvalidArgument

DEFAULT_RATE_LIMITS = {"maxDispatchesPerSecond": 500, "maxBurstSize": 100, "maxConcurrentDispatches": 1000}
DEFAULT_RETRY_CONFIG = {
    "maxAttempts": 100,
    "maxRetryDuration": "0s",
    "minBackoff": "0.100s",
    "maxBackoff": "3600s",
    "maxDoublings": 16,
}
MAX_DISPATCHES_PER_SECOND = 500
MAX_CONCURRENT_DISPATCHES = 5000
MAX_TASK_BYTES = 1024 * 1024
MAX_SCHEDULE_SECONDS = 30 * 24 * 3600
# A task that nobody takes off its hands is deleted after this time, whatever its retry limits.
MAX_RETENTION_SECONDS = 31 * 24 * 3600
NAME_RESERVED_SECONDS = 24 * 3600
DEFAULT_DISPATCH_DEADLINE_SECONDS = 600.0
MIN_DISPATCH_DEADLINE_SECONDS = 15.0
MAX_DISPATCH_DEADLINE_SECONDS = 1800.0


@dataclass(frozen=True, kw_only=True)
class Retry:
    max_attempts: int
    max_retry_seconds: float
    min_backoff_seconds: float
    max_backoff_seconds: float
    max_doublings: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Retry":
        merged = {**DEFAULT_RETRY_CONFIG, **config}
        return cls(
            max_attempts=int(merged["maxAttempts"]),
            max_retry_seconds=seconds(merged["maxRetryDuration"]),
            min_backoff_seconds=seconds(merged["minBackoff"]),
            max_backoff_seconds=seconds(merged["maxBackoff"]),
            max_doublings=int(merged["maxDoublings"]),
        )

    def backoff_seconds(self, failures: int) -> float:
        """The wait after the `failures`-th failed attempt (from 1), counted from that attempt's end.

        It doubles `max_doublings` times, then grows by the last doubled interval, and stays below the maximum.
        """
        doublings = min(failures - 1, self.max_doublings)
        interval = self.min_backoff_seconds * math.pow(2, doublings) * max(1, failures - self.max_doublings)
        return min(interval, self.max_backoff_seconds)

    def is_exhausted(self, attempts: int, seconds_since_first_attempt: float) -> bool:
        """Both limits must be reached; -1 attempts and 0 seconds mean no limit, up to the retention of a task."""
        if seconds_since_first_attempt >= MAX_RETENTION_SECONDS:
            return True
        if self.max_attempts == -1 and self.max_retry_seconds == 0:
            return False
        out_of_attempts = self.max_attempts == -1 or attempts >= self.max_attempts
        return out_of_attempts and seconds_since_first_attempt >= self.max_retry_seconds


def burst_size(rate: float) -> int:
    """How many dispatches a full bucket holds: a fifth of a second's worth.

    Google does not publish how it derives `maxBurstSize`; a 500/s queue answers 100, and this is proportional to that.
    """
    return max(1, min(100, math.ceil(rate / 5)))


class TokenBucket:
    """Lets `rate` dispatches through per second, and `burst` at once after a pause. Times are monotonic seconds."""

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = float(burst)
        self._at = now

    def configure(self, rate: float, burst: int) -> None:
        self.rate, self.burst = rate, burst

    def take(self, now: float) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self.rate


def checked_rate_limits(limits: Mapping[str, Any]) -> dict[str, Any]:
    """The rate limits with defaults filled in. Raises InvalidArgument naming the limit that is exceeded."""
    merged = _merged(DEFAULT_RATE_LIMITS, limits)
    rate, concurrent = float(merged["maxDispatchesPerSecond"]), int(merged["maxConcurrentDispatches"])
    for name, value, highest in (
        ("maxDispatchesPerSecond", rate, MAX_DISPATCHES_PER_SECOND),
        ("maxConcurrentDispatches", concurrent, MAX_CONCURRENT_DISPATCHES),
    ):
        if value < 0:
            raise InvalidArgument(f"RateLimits.{name} cannot be negative.")
        if not value <= highest:
            raise InvalidArgument(f"RateLimits.{name} must be less than or equal to {highest}.")
    return {
        "maxDispatchesPerSecond": merged["maxDispatchesPerSecond"],
        "maxBurstSize": burst_size(rate),
        "maxConcurrentDispatches": concurrent,
    }


def checked_retry_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The retry configuration with defaults filled in. Raises InvalidArgument."""
    merged = _merged(DEFAULT_RETRY_CONFIG, config)
    retry = Retry.of(merged)
    if retry.max_attempts < -1:
        raise InvalidArgument("RetryConfig.maxAttempts must be greater or equal to -1.")
    for name in ("minBackoff", "maxBackoff", "maxRetryDuration"):
        if seconds(merged[name]) < 0:
            raise InvalidArgument(f"RetryConfig.{name} cannot be negative.")
    if retry.min_backoff_seconds > retry.max_backoff_seconds:
        raise InvalidArgument("RetryConfig.minBackoff must be less than or equal to RetryConfig.maxBackoff.")
    if retry.max_doublings < 0:
        raise InvalidArgument("RetryConfig.maxDoublings cannot be negative.")
    return {name: merged[name] for name in DEFAULT_RETRY_CONFIG}


def _merged(defaults: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """A number that is 0 was not set: the protos of both messages cannot tell the two apart."""
    return {**defaults, **{name: value for name, value in said.items() if value != 0}}
