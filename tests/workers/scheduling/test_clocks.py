"""When schedules fire: clocks that change and jump, and jitter; on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest

from db import schedules
from db.engine import writing
from search.schedule import Rhythm
from search.timetable import Timetable
from tests.workers.scheduling.conftest import House, utc


@pytest.mark.parametrize(
    ("zone", "cron", "start", "end", "fires"),
    [
        ("Europe/Berlin", "30 2 * * *", "2026-03-28T00:00", "2026-03-30T12:00",
         ["03-28 01:30", "03-29 01:00", "03-30 00:30"]),
        ("Europe/Berlin", "30 2 * * *", "2026-10-24T00:00", "2026-10-26T12:00",
         ["10-24 00:30", "10-25 00:30", "10-26 01:30"]),
        ("America/New_York", "30 1 * * *", "2026-10-31T00:00", "2026-11-02T12:00",
         ["10-31 05:30", "11-01 05:30", "11-02 06:30"]),
    ],
)  # fmt: skip
def test_clock_changes_make_one_fire_a_day(
    house: House, zone: str, cron: str, start: str, end: str, fires: list[str]
) -> None:
    key = house.schedule(start, zone=zone, cron=cron, overlap="allow")
    moment = utc(start)
    while moment <= utc(end):
        house.at_moment(moment)
        moment += timedelta(minutes=30)
    assert house.fires(key) == [(fire, "fired") for fire in fires]
    assert len(house.searches(key)) == len(fires)


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(days=1)])
def test_a_clock_that_jumps_there_and_back_fires_nothing_twice(house: House, jump: timedelta) -> None:
    key = house.schedule("2026-03-01T00:30", overlap="allow")
    moment = utc("2026-03-01T00:55")
    for step in range(60):
        shift = {1: jump, 3: -jump}.get(step // 12, timedelta(0))
        house.at_moment(moment + timedelta(minutes=10 * step) + shift)
    times = [search.fire_at for search in house.searches(key)]
    assert len(times) == len(set(times))
    fires = house.fires(key)
    assert len(fires) == len({at for at, _ in fires})
    assert len(times) == sum(status == "fired" for _, status in fires)
    # ten hours pass by the clock that did not jump; a jump there and back costs no more than its own length
    lost = int(jump / timedelta(hours=1)) + 1
    assert len(times) >= max(3, 10 - lost)
    moment += timedelta(days=3)
    house.at_moment(moment)
    assert len(house.searches(key)) == len(times) + 1  # it goes on when the clock has caught up


def test_a_schedule_that_is_resumed_after_the_clock_went_back_repeats_no_fire(house: House) -> None:
    key = house.schedule("2026-03-01T00:30", overlap="allow")
    for hour in (1, 2, 3):
        house.at(f"2026-03-01T0{hour}:00")
    first = [(f"03-01 0{hour}:00", "fired") for hour in (1, 2, 3)]
    assert house.fires(key) == first
    with writing(house.engine) as session:  # paused, and resumed when the clock says 01:30 again
        again = utc("2026-03-01T02:00")
        schedules.edit(session, key, enabled=True, next_fire_at=again, planned_at=again)
    house.at("2026-03-01T02:00")
    house.at("2026-03-01T03:00")
    assert house.fires(key) == first
    assert len(house.searches(key)) == 3
    house.at("2026-03-01T04:00")
    assert house.fires(key) == [*first, ("03-01 04:00", "fired")]


def test_jitter_is_the_same_for_each_fire_and_spreads_schedules(house: House) -> None:
    keys = [house.schedule("2026-03-01T00:30", jitter_seconds=600) for _ in range(20)]
    due = [house.get(key).next_fire_at for key in keys]
    assert all(at is not None and utc("2026-03-01T01:00") <= at <= utc("2026-03-01T01:10") for at in due)
    assert len(set(due)) > 10
    house.at("2026-03-01T01:10")
    assert {house.fires(key)[0] for key in keys} == {("03-01 01:00", "fired")}
    rhythm = Rhythm(Timetable.parse("0 * * * *", "UTC"), keys[0], 600)
    assert rhythm.due(utc("2026-03-01T01:00")) == due[0]


@pytest.mark.parametrize(
    ("cron", "jitter", "hours", "count"), [("*/5 * * * *", 600, 3, 36), ("0 * * * *", 4 * 3600, 12, 12)]
)
def test_jitter_beyond_the_gap_between_fires_loses_none(
    house: House, cron: str, jitter: int, hours: int, count: int
) -> None:
    moment = utc("2026-03-01T00:00")
    end = moment + timedelta(hours=hours, seconds=-1)
    key = house.schedule(
        "2026-02-28T23:59", cron=cron, jitter_seconds=jitter, overlap="allow", catch_up_seconds=60, end_at=end
    )
    late = []
    while moment < end + timedelta(hours=1):
        before = len(house.fires(key))
        house.at_moment(moment)
        late += [moment - utc(f"2026-{at[:5]}T{at[6:]}") for at, _ in house.fires(key)[before:]]
        moment += timedelta(seconds=50)
    assert [status for _, status in house.fires(key)] == ["fired"] * count
    assert max(late) > timedelta(minutes=2)
