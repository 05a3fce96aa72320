"""Schedules that fire: overlap, missed fires, start and end; on both databases."""

from __future__ import annotations

from collections import Counter

import pytest

from db import schedules, searches
from db.engine import reading, writing
from tests.workers.scheduling.conftest import House, utc
from workers import scheduling


def test_a_fire_is_a_search_with_its_time_in_its_name(house: House) -> None:
    key = house.schedule("2026-03-01T00:30", zone="Europe/Berlin", cron="0 2 * * *", priority=7, owner="mira")
    house.at("2026-03-01T00:59")
    assert house.searches(key) == []
    house.at("2026-03-01T01:00")
    house.at("2026-03-01T01:00")
    (search,) = house.searches(key)
    assert (search.name, search.status, search.priority) == ("nightly 2026-03-01T02:00+01:00", "queued", 7)
    assert search.owner == "mira"
    assert search.fire_at == utc("2026-03-01T01:00")
    assert house.fires(key) == [("03-01 01:00", "fired")]
    assert house.get(key).next_fire_at == utc("2026-03-02T01:00")
    assert house.get(key).version == 1


@pytest.mark.parametrize(
    ("overlap", "fires", "statuses"),
    [
        ("skip", ["fired", "skipped"], ["queued"]),
        ("allow", ["fired", "fired"], ["queued", "queued"]),
        ("replace", ["fired", "fired"], ["cancelled", "queued"]),
        ("queue", ["fired"], ["queued"]),
    ],
)
def test_overlap(house: House, overlap: str, fires: list[str], statuses: list[str]) -> None:
    key = house.schedule("2026-03-01T00:30", overlap=overlap)
    house.at("2026-03-01T01:00")
    house.at("2026-03-01T02:00")
    assert [status for _, status in house.fires(key)] == fires
    assert [search.status for search in house.searches(key)] == statuses


def test_a_queued_fire_starts_when_the_search_before_has_ended_and_the_newest_is_the_one_that_waits(
    house: House,
) -> None:
    key = house.schedule("2026-03-01T00:30", overlap="queue")
    house.at("2026-03-01T01:00")
    for minute in range(0, 60, 5):
        house.at(f"2026-03-01T02:{minute:02}")
    house.at("2026-03-01T03:00")
    house.at("2026-03-01T03:40")
    assert house.fires(key) == [("03-01 01:00", "fired"), ("03-01 02:00", "skipped")]
    house.end(house.searches(key)[0].id)
    house.at("2026-03-01T03:40:06")  # as often as it looks: the wait is no lateness
    assert house.fires(key)[-1] == ("03-01 03:00", "fired")
    assert house.get(key).next_fire_at == utc("2026-03-01T04:00")


def test_after_a_stop_of_a_day_the_latest_fire_runs_and_the_others_are_missed(house: House) -> None:
    key = house.schedule("2026-03-01T00:30", catch_up_seconds=3600)
    house.at("2026-03-02T01:59")
    found = house.fires(key)
    assert [status for _, status in found] == ["missed"] * 24 + ["fired"]
    assert found[-1] == ("03-02 01:00", "fired")
    assert len(house.searches(key)) == 1
    late = house.schedule("2026-03-01T00:30", catch_up_seconds=600)
    house.at("2026-03-02T01:59")
    assert house.fires(late)[-1] == ("03-02 01:00", "missed")
    assert house.searches(late) == []
    assert "600 s" in (house.reasons(late)[-1] or "")


def test_after_a_very_long_stop_no_more_is_noted_than_is_worth_it(house: House) -> None:
    key = house.schedule("2025-03-01T00:00", cron="* * * * *")
    house.at("2026-03-01T00:00:10")
    found = house.fires(key)
    assert len(found) == scheduling.MOST_NOTED + 2
    assert found[-1] == ("03-01 00:00", "fired")
    assert house.get(key).next_fire_at == utc("2026-03-01T00:01")


def test_without_catching_up_a_fire_may_still_be_some_seconds_late(house: House) -> None:
    key = house.schedule("2026-03-01T00:30", catch_up_seconds=0)
    house.at("2026-03-01T01:00:20")
    house.at("2026-03-01T02:00:40")
    assert house.fires(key) == [("03-01 01:00", "fired"), ("03-01 02:00", "missed")]


def test_start_and_end(house: House) -> None:
    start, end = utc("2026-03-01T03:00"), utc("2026-03-01T04:00")
    key = house.schedule("2026-03-01T00:30", start_at=start, end_at=end, overlap="allow")
    for hour in range(1, 8):
        house.at(f"2026-03-01T{hour:02}:00")
    assert house.fires(key) == [("03-01 03:00", "fired"), ("03-01 04:00", "fired")]
    assert house.get(key).next_fire_at is None
    assert house.get(key).enabled


def test_a_disabled_schedule_stays_still(house: House) -> None:
    key = house.schedule("2026-03-01T00:30")
    with writing(house.engine) as session:
        schedules.edit(session, key, enabled=False, next_fire_at=None, planned_at=None)
    house.at("2026-03-01T05:00")
    assert house.fires(key) == []


def test_searches_of_no_schedule_are_never_touched(house: House) -> None:
    with writing(house.engine) as session:
        other = searches.create(session, name="mine", spec={}, spec_version=1).id
    key = house.schedule("2026-03-01T00:30", overlap="replace")
    house.at("2026-03-01T01:00")
    house.at("2026-03-01T02:00")
    with reading(house.engine) as session:
        assert searches.get(session, other).status == "queued"
    assert Counter(search.status for search in house.searches(key)) == {"cancelled": 1, "queued": 1}
