"""The region's time, which tests can move forward; and how clients and answers write moments and durations."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)

_DURATION = re.compile(r"-?\d+(\.\d{1,9})?s", re.ASCII)
#: About ten thousand years either way, as google.protobuf.Duration has it.
_LONGEST_SECONDS = 315_576_000_000


class Clock:
    """`now()` is the machine's time plus what `advance` added. Never goes back."""

    def __init__(self) -> None:
        self._offset = timedelta()
        self._watchers: list[Callable[[], None]] = []

    def now(self) -> datetime:
        return datetime.now(UTC) + self._offset

    def advance(self, by: timedelta) -> None:
        """Move time forward at once. Raises ValueError for a negative step."""
        if by < timedelta():
            raise ValueError(f"time moves forward only, got {by}")
        self._offset += by
        for watcher in self._watchers:
            watcher()

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` (from any thread) whenever time is moved, so that a wait for a moment can be cut short."""
        self._watchers.append(watcher)


def timestamp(moment: datetime) -> str:
    """`2026-08-15T00:00:00.000000Z`: RFC 3339 in UTC with microseconds, as Google writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def moment(text: str) -> datetime:
    """What a client wrote, in UTC; of nine digits of a second Python keeps six.

    Raises ValueError for what is not RFC 3339, or not in the years 1 to 9999.
    """
    if _RFC3339.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no RFC 3339 timestamp")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except OverflowError as error:
        raise ValueError(str(error)) from None


def seconds(duration: str) -> float:
    """`1.5s` -> 1.5. Raises ValueError for what is no duration."""
    if _DURATION.fullmatch(duration) is None or abs(found := float(duration[:-1])) > _LONGEST_SECONDS:
        raise ValueError(f"{duration!r} is no duration")
    return found
