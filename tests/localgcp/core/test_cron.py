"""When schedules fire: cron's five fields, App Engine's English, and what summer time does to both."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from localgcp.cron import BadSchedule, parse

UTC_ZONE = ZoneInfo("UTC")
SYDNEY = ZoneInfo("Australia/Sydney")


def moments(schedule: str, after: datetime, count: int, zone: ZoneInfo = UTC_ZONE) -> list[str]:
    """The next `count` moments, as wall-clock times of the zone with their offsets."""
    found = []
    for _ in range(count):
        after = parse(schedule).next(after, zone)
        found.append(after.astimezone(zone).strftime("%a %m-%d %H:%M%z"))
    return found


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("* * * * *", ["Mon 11-23 10:08+0000", "Mon 11-23 10:09+0000"]),
        ("*/15 * * * *", ["Mon 11-23 10:15+0000", "Mon 11-23 10:30+0000"]),
        ("5/20 * * * *", ["Mon 11-23 10:25+0000", "Mon 11-23 10:45+0000"]),
        ("1-5,50-59/5 10 * * *", ["Mon 11-23 10:50+0000", "Mon 11-23 10:55+0000"]),
        ("59-59 0-23/12 * * *", ["Mon 11-23 12:59+0000", "Tue 11-24 00:59+0000"]),
        ("0 9 * * MON-fri", ["Tue 11-24 09:00+0000", "Wed 11-25 09:00+0000"]),
        ("0 0 * * 7", ["Sun 11-29 00:00+0000", "Sun 12-06 00:00+0000"]),
        ("0 0 * * 5-7", ["Fri 11-27 00:00+0000", "Sat 11-28 00:00+0000"]),
        ("0 0 1 JAN,mar *", ["Fri 01-01 00:00+0000", "Mon 03-01 00:00+0000"]),
        # A day of the month and a day of the week: either will do.
        ("0 0 1 * 3", ["Wed 11-25 00:00+0000", "Tue 12-01 00:00+0000"]),
        # A step of all days restricts them without standing for "either".
        ("0 0 */2 * 3", ["Wed 11-25 00:00+0000", "Wed 12-09 00:00+0000"]),
        ("0 0 29 2 *", ["Tue 02-29 00:00+0000", "Sun 02-29 00:00+0000"]),
        ("every 5 minutes", ["Mon 11-23 10:12+0000", "Mon 11-23 10:17+0000"]),
        ("every 2 hours synchronized", ["Mon 11-23 12:00+0000", "Mon 11-23 14:00+0000"]),
        ("every 30 mins from 09:50 to 11:00", ["Mon 11-23 10:20+0000", "Mon 11-23 10:50+0000"]),
        ("every 60 minutes from 23:00 to 01:00", ["Mon 11-23 23:00+0000", "Tue 11-24 00:00+0000"]),
        ("every day 00:00", ["Tue 11-24 00:00+0000", "Wed 11-25 00:00+0000"]),
        ("every monday,wed 9:00", ["Wed 11-25 09:00+0000", "Mon 11-30 09:00+0000"]),
        ("1st,third monday of month 17:00", ["Mon 12-07 17:00+0000", "Mon 12-21 17:00+0000"]),
        ("2nd tue of mar,september 17:00", ["Tue 03-09 17:00+0000", "Tue 09-14 17:00+0000"]),
        ("1,15 of jan,july 0:00", ["Fri 01-01 00:00+0000", "Fri 01-15 00:00+0000"]),
    ],
)
def test_a_schedule_fires_when_it_says(schedule: str, expected: list[str]) -> None:
    assert moments(schedule, datetime(2026, 11, 23, 10, 7, tzinfo=UTC), 2) == expected


@pytest.mark.parametrize(
    "schedule",
    [
        *("", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8"),
        *("*/0 * * * *", "5-1 * * * *", "1, * * * *", "-1 * * * *", "L * * * *", "* * L * *", "* * * * 1#2"),
        *("R R * * *", "* * ? * *", "@daily", "0 0 31 2 *", "0 0 * foo *", "0 0 * * mond-tue", "\u0663 * * * *"),
        *("every day", "every 0 minutes", "every 25 hours", "every 7 minutes synchronized", "monday 09:00"),
        *("every 5 minutes from 10:00", "6th monday of month 9:00", "every monday 24:00", "every mars of month 9:00"),
    ],
)
def test_what_is_no_schedule_is_refused(schedule: str) -> None:
    with pytest.raises(BadSchedule):
        parse(schedule)


def test_a_time_that_summer_time_skips_does_not_fire() -> None:
    # Sydney's clocks go from 02:00 to 03:00 on 4 October 2026.
    assert moments("30 2 * * *", datetime(2026, 10, 2, tzinfo=UTC), 3, SYDNEY) == [
        "Sat 10-03 02:30+1000",
        "Mon 10-05 02:30+1100",
        "Tue 10-06 02:30+1100",
    ]


def test_a_time_that_occurs_twice_fires_once() -> None:
    # And from 03:00 back to 02:00 on 5 April 2026.
    assert moments("30 2 * * *", datetime(2026, 4, 3, 20, tzinfo=UTC), 3, SYDNEY) == [
        "Sun 04-05 02:30+1100",
        "Mon 04-06 02:30+1000",
        "Tue 04-07 02:30+1000",
    ]


@pytest.mark.parametrize("zone", ["Australia/Sydney", "Australia/Lord_Howe", "America/New_York", "Europe/London"])
def test_what_fires_in_every_hour_does_not_miss_one(zone: str) -> None:
    schedule, moment = parse("*/30 * * * *"), datetime(2026, 1, 1, tzinfo=UTC)
    found = [moment]
    while moment.year == 2026:
        moment = schedule.next(moment, ZoneInfo(zone))
        found.append(moment)

    assert {after - before for before, after in pairwise(found)} == {timedelta(minutes=30)}
