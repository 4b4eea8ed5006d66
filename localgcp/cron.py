"""Schedules of Cloud Scheduler: five fields of cron, or App Engine's English, in a time zone.

A schedule is read as wall-clock times. A time that a change to summer time skips does not fire. One that occurs twice
fires once, unless the schedule fires in every hour: then both hours are its own.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import Protocol
from zoneinfo import ZoneInfo

# fmt: off
MONTH_NAMES = [
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
]
# fmt: on
WEEKDAY_NAMES = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"]
WHOLE_NAMES = (*MONTH_NAMES, *WEEKDAY_NAMES)
MONTHS = {name[:3]: number for number, name in enumerate(MONTH_NAMES, start=1)}
WEEKDAYS = {name[:3]: number for number, name in enumerate(WEEKDAY_NAMES)}
ORDINALS = {"1st": 1, "2nd": 2, "3rd": 3, "4th": 4, "5th": 5} | {
    name: number for number, name in enumerate(["first", "second", "third", "fourth", "fifth"], start=1)
}
# 29 February of 2096 is followed by that of 2104.
HORIZON_DAYS = 366 * 8 + 2
MINUTES_OF_A_DAY = 24 * 60
_TIME = r"(\d{1,2}):(\d\d)"
_INTERVAL = re.compile(rf"every (\d+) (minutes?|mins?|hours?)(?: (synchronized)| from {_TIME} to {_TIME})?")
_DAYS = re.compile(rf"(?:(every|[a-z0-9,]+) )?([a-z0-9,]+)(?: of ([a-z,]+))? {_TIME}")


class BadSchedule(ValueError):
    """The text is no schedule. The message says why."""


class Schedule(Protocol):
    def next(self, after: datetime, zone: ZoneInfo) -> datetime:
        """The first moment behind `after`, in UTC."""


@dataclass(frozen=True, kw_only=True)
class Calendar:
    """Fires on some days, at the same wall-clock times on each: minutes since midnight, in order."""

    fires_on: Callable[[date], bool]
    times: tuple[int, ...]

    def next(self, after: datetime, zone: ZoneInfo) -> datetime:
        """Raises BadSchedule when no such day comes."""
        first = after.astimezone(zone).date()
        for day in (first + timedelta(days=ahead) for ahead in range(HORIZON_DAYS)):
            if self.fires_on(day):
                found = next((moment for moment in self._moments(day, zone) if moment > after), None)
                if found is not None:
                    return found
        raise BadSchedule("there is no such day")

    def _moments(self, day: date, zone: ZoneInfo) -> Iterator[datetime]:
        in_every_hour = len({time // 60 for time in self.times}) == 24
        # Hour by hour: an hour that occurs twice is over both times before the next one begins.
        for _, times in groupby(self.times, key=lambda time: time // 60):
            walls = [datetime(day.year, day.month, day.day, time // 60, time % 60) for time in times]
            folds = (0, 1) if in_every_hour else (0,)
            moments = {wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for wall in walls for fold in folds}
            # A skipped time comes back as another one.
            yield from sorted(moment for moment in moments if moment.astimezone(zone).replace(tzinfo=None) in walls)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Fires again so long after the last time."""

    minutes: int

    def next(self, after: datetime, zone: ZoneInfo) -> datetime:
        return after.astimezone(UTC) + timedelta(minutes=self.minutes)


def parse(text: str) -> Schedule:
    """Raises BadSchedule."""
    words = text.lower().split()
    if not words:
        raise BadSchedule("it is empty")
    schedule = _cron(words) if len(words) == 5 and re.match(r"[\d*]", words[0]) and ":" not in text else _english(words)
    if isinstance(schedule, Calendar):
        schedule.next(datetime(2000, 1, 1, tzinfo=UTC), ZoneInfo("UTC"))
    return schedule


def _cron(fields: list[str]) -> Calendar:
    minutes = _field(fields[0], 0, 59, {})
    hours = _field(fields[1], 0, 23, {})
    days = _field(fields[2], 1, 31, {})
    months = _field(fields[3], 1, 12, MONTHS)
    weekdays = {weekday % 7 for weekday in _field(fields[4], 0, 7, WEEKDAYS)}
    # When both are restricted, either will do; a field that begins with a star restricts nothing by itself.
    either = not fields[2].startswith("*") and not fields[4].startswith("*")

    def fires_on(day: date) -> bool:
        by_day, by_weekday = day.day in days, day.isoweekday() % 7 in weekdays
        return day.month in months and (by_day or by_weekday if either else by_day and by_weekday)

    return Calendar(fires_on=fires_on, times=tuple(sorted(hour * 60 + minute for hour in hours for minute in minutes)))


def _field(text: str, lowest: int, highest: int, names: Mapping[str, int]) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        if slash and not (step.isdecimal() and int(step) > 0):
            raise BadSchedule(f'"{part}" has no step')
        first, dash, last = span.partition("-")
        if span == "*":
            low, high = lowest, highest
        else:
            low = _number(first, lowest, highest, names)
            high = _number(last, lowest, highest, names) if dash else highest if slash else low
        if low > high:
            raise BadSchedule(f'"{part}" ends before it begins')
        found.update(range(low, high + 1, int(step) if slash else 1))
    return found


def _number(text: str, lowest: int, highest: int, names: Mapping[str, int]) -> int:
    number = names.get(text, int(text) if text.isascii() and text.isdecimal() else -1)
    if not lowest <= number <= highest:
        raise BadSchedule(f'"{text}" is not {lowest} to {highest}')
    return number


def _english(words: list[str]) -> Schedule:
    text = " ".join(words)
    if match := _INTERVAL.fullmatch(text):
        return _interval(match)
    if match := _DAYS.fullmatch(text):
        return _days(match)
    raise BadSchedule("it is neither five fields of cron nor App Engine's English")


def _interval(match: re.Match[str]) -> Schedule:
    minutes = int(match[1]) * (60 if match[2].startswith("hour") else 1)
    if not 0 < minutes <= MINUTES_OF_A_DAY:
        raise BadSchedule("an interval is from a minute to a day")
    if match[3]:
        if MINUTES_OF_A_DAY % minutes:
            raise BadSchedule("a synchronized interval divides a day evenly")
        return Calendar(fires_on=lambda day: True, times=tuple(range(0, MINUTES_OF_A_DAY, minutes)))
    if match[4] is None:
        return Interval(minutes=minutes)
    start, end = _time(match[4], match[5]), _time(match[6], match[7])
    if start > end:
        end += MINUTES_OF_A_DAY
    times = {time % MINUTES_OF_A_DAY for time in range(start, end + 1, minutes)}
    return Calendar(fires_on=lambda day: True, times=tuple(sorted(times)))


def _days(match: re.Match[str]) -> Calendar:
    """`every mon,wed 9:00`, `1st,third monday of month 17:00`, `1,15 of jan,july 0:00`."""
    which, days, of = match[1] or "", match[2].split(","), match[3] or "month"
    months = set(MONTHS.values()) if of == "month" else {_named(word, MONTHS) for word in of.split(",")}
    time = _time(match[4], match[5])
    if days[0].isdecimal() and not which:
        numbers = {_number(day, 1, 31, {}) for day in days}
        return Calendar(fires_on=lambda day: day.month in months and day.day in numbers, times=(time,))
    weekdays = set(WEEKDAYS.values()) if days == ["day"] else {_named(day, WEEKDAYS) for day in days}
    if which == "every":
        weeks = set(ORDINALS.values())
    else:
        weeks = {ORDINALS.get(word, 0) for word in which.split(",")}
        if 0 in weeks or match[3] is None:
            raise BadSchedule('days are "every …", or "1st,third … of month"')

    def fires_on(day: date) -> bool:
        return day.month in months and day.isoweekday() % 7 in weekdays and (day.day - 1) // 7 + 1 in weeks

    return Calendar(fires_on=fires_on, times=(time,))


def _named(word: str, names: Mapping[str, int]) -> int:
    """`tue`, `tues`, `tuesday`: three letters, or more of the whole name."""
    found = names.get(word[:3])
    if found is None or not any(name.startswith(word) for name in WHOLE_NAMES):
        raise BadSchedule(f'"{word}" is not the name of a {"month" if names is MONTHS else "day"}')
    return found


def _time(hour: str, minute: str) -> int:
    return _number(hour, 0, 23, {}) * 60 + _number(minute, 0, 59, {})
