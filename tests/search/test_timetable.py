"""Fires against a walk over every minute of two years, and what no expression may do."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from search.errors import SpecError
from search.timetable import Timetable, zones

ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu",
    "Africa/Cairo", "America/Santiago", "Africa/Casablanca", "Antarctica/Troll", "Europe/Dublin", "Asia/Tokyo",
    "Asia/Beirut", "Pacific/Chatham",
]  # fmt: skip
EXPRESSIONS = [
    "30 1 * * *", "30 2 * * *", "0 3 * * *", "0 0 * * *", "*/30 * * * *", "15 * * * *", "0 */6 * * *", "0 0 31 * *",
    "0 12 29 2 *", "0 2 * * SUN", "30 2 1 * MON", "0 1 13 * FRI", "*/20 1-3 * * *", "5,35 2 L * *",
    "45 23 * JAN,JUL 5L",
]  # fmt: skip
START, END = datetime(2027, 1, 1, tzinfo=UTC), datetime(2029, 1, 1, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1)
NAMES = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"))}
MONTHS = {"JAN": 1, "JUL": 7}


def values(field: str, low: int, high: int) -> set[int]:
    """The numbers of a field without L and #."""
    found: set[int] = set()
    for part in field.split(","):
        part, _, step = part.partition("/")
        if part == "*":
            first, last = low, high
        else:
            first, _, last_ = part.partition("-")
            first = NAMES.get(first, MONTHS.get(first, first))
            last = NAMES.get(last_, MONTHS.get(last_, last_ or first))
        found |= set(range(int(first), int(last) + 1, int(step or 1)))
    return found


def day_matches(day: datetime, dom: str, dow: str) -> bool:
    last = calendar.monthrange(day.year, day.month)[1]
    weekday = (day.weekday() + 1) % 7
    in_month = day.day == last if dom == "L" else day.day in values(dom, 1, 31)
    if dow.endswith("L"):
        in_week = weekday == int(dow[0]) and day.day + 7 > last
    else:
        in_week = weekday in values(dow, 0, 6)
    return in_month and in_week if "*" in (dom[0], dow[0]) else in_month or in_week


class Walk:
    """Every minute of the two years in UTC, and what the clock on the wall of a zone shows then.

    walls: minutes since 1970 by that clock.
    """

    def __init__(self, zone: str) -> None:
        place = ZoneInfo(zone)
        self.moments = [START + timedelta(minutes=m) for m in range(int((END - START).total_seconds() // 60))]
        shown = (moment.astimezone(place).replace(tzinfo=None) for moment in self.moments)
        self.walls = np.array([int((wall - EPOCH).total_seconds()) // 60 for wall in shown])

    def fires(self, cron: str) -> list[datetime]:
        """From the rules in words. A job at a given hour runs when the clock first shows or passes its time, any other
        whenever the clock shows it."""
        minute, hour, *_ = cron.split()
        if minute[0] == "*" or hour[0] == "*":
            return [self.moments[i] for i in np.flatnonzero(matching(self.walls, cron))]
        latest = np.maximum.accumulate(np.concatenate([[self.walls[0] - 1], self.walls]))
        first = latest[1:] > latest[:-1]
        fires = first & matching(self.walls, cron)
        for jump in np.flatnonzero(np.diff(latest) > 1):
            fires[jump] |= matching(np.arange(latest[jump] + 1, latest[jump + 1] + 1), cron).any()
        return [self.moments[i] for i in np.flatnonzero(fires)]


def matching(walls: np.ndarray, cron: str) -> np.ndarray:
    """Which minutes on the wall an expression names."""
    minute, hour, dom, month, dow = cron.split()
    days, where = np.unique(walls // 1440, return_inverse=True)
    dates = [EPOCH + timedelta(days=int(day)) for day in days]
    in_day = np.array([date.month in values(month, 1, 12) and day_matches(date, dom, dow) for date in dates])
    in_hour = np.isin(walls // 60 % 24, list(values(hour, 0, 23)))
    return in_day[where] & in_hour & np.isin(walls % 60, list(values(minute, 0, 59)))


QUICK = ("Europe/Berlin", "Australia/Lord_Howe")


@pytest.mark.parametrize("zone", [z if z in QUICK else pytest.param(z, marks=pytest.mark.slow) for z in ZONES])
def test_fires_are_those_of_a_walk_over_every_minute(zone: str) -> None:
    walk = Walk(zone)
    for cron in EXPRESSIONS:
        timetable = Timetable.parse(cron, zone)
        ours = list(timetable.after(START - timedelta(seconds=1), END - timedelta(minutes=1)))
        expected = walk.fires(cron)
        assert len(set(ours)) == len(ours)
        assert ours == expected, (cron, sorted(set(ours) ^ set(expected))[:6])


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "zone", "after", "fires"),
    [
        # the clock goes back at 01:00 UTC: 02:30 comes twice, and is taken once
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", ["2026-10-25T00:30", "2026-10-26T01:30"]),
        # asked in between, it does not come again
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:45", ["2026-10-26T01:30"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T01:15", ["2026-10-26T01:30"]),
        # the clock goes forward at 01:00 UTC: 02:30 does not come, and is made up for
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:30"]),
        ("15,45 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:15"]),
        ("30 1 * * *", "America/New_York", "2026-10-31T12:00", ["2026-11-01T05:30", "2026-11-02T06:30"]),
        # every half hour by the wall: both of the repeated hours
        ("*/30 1 * * *", "America/New_York", "2026-11-01T05:00",
         ["2026-11-01T05:30", "2026-11-01T06:00", "2026-11-01T06:30"]),
        ("0 0 29 2 *", "UTC", "2026-01-01T00:00", ["2028-02-29T00:00", "2032-02-29T00:00"]),
        # half an hour's change, which loses cronsim's own steps
        ("0 */6 * * *", "Australia/Lord_Howe", "2027-04-03T18:00", ["2027-04-03T19:30", "2027-04-04T01:30"]),
    ],
)  # fmt: skip
def test_clocks_that_change(cron: str, zone: str, after: str, fires: list[str]) -> None:
    found = islice(Timetable.parse(cron, zone).after(utc(after)), len(fires))
    assert list(found) == [utc(text) for text in fires]


def test_any_moment_asked_gives_the_same_fires() -> None:
    """The next fire after each minute of a changing weekend is the first of all fires that is later."""
    for cron in ("30 2 * * *", "*/20 * * * *", "15 1-3 * * *"):
        for start in ("2027-03-27T20:00", "2027-10-30T20:00"):
            timetable = Timetable.parse(cron, "Europe/Berlin")
            fires = list(timetable.after(utc(start) - timedelta(days=2), utc(start) + timedelta(days=2)))
            for minute in range(0, 720, 7):
                moment = utc(start) + timedelta(minutes=minute, seconds=13)
                assert timetable.next(moment) == next(fire for fire in fires if fire > moment)


@pytest.mark.parametrize(
    ("cron", "zone", "field"),
    [
        ("0 0 30 2 *", "UTC", "cron"),
        ("0 0 0 1 1 *", "UTC", "cron"),
        ("*/61 * * * *", "UTC", "cron"),
        ("60 * * * *", "UTC", "cron"),
        ("* * *", "UTC", "cron"),
        ("", "UTC", "cron"),
        ("0 0 * * *\n", "UTC", "cron"),
        ("0 0 * * MOON", "UTC", "cron"),
        ("٣ 0 * * *", "UTC", "cron"),
        ("0 " * 2500, "UTC", "cron"),
        ("@daily", "UTC", "cron"),
        ("0 0 * * *", "Mars/Phobos", "zone"),
        ("0 0 * * *", "Europe", "zone"),
        ("0 0 * * *", "localtime", "zone"),
        ("0 0 * * *", "../etc/passwd", "zone"),
        ("0 0 * * *", "", "zone"),
        ("0 0 * * *", "x" * 5000, "zone"),
    ],
)
def test_what_is_wrong_is_named(cron: str, zone: str, field: str) -> None:
    with pytest.raises(SpecError) as caught:
        Timetable.parse(cron, zone, "schedule.")
    (problem,) = caught.value.problems
    assert problem.field == f"schedule.{field}"
    assert len(problem.message) < 300


def test_spaces_and_small_letters_are_no_matter() -> None:
    assert Timetable.parse("  0   2 * * sun ", "Europe/Berlin").cron == "0 2 * * sun"
    assert "02:00" in Timetable.parse("0 2 * * sun", "Europe/Berlin").meaning


def test_every_zone_that_is_offered_works() -> None:
    for zone in zones():
        assert Timetable.parse("0 2 * * SUN", zone).next(START) is not None
