"""Templates and schedules with something wrong: what is noted, who is told, and that no other is held up."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import select, update
from structlog.testing import capture_logs

from db import catalog, searches
from db.engine import reading, writing
from db.models import Delivery, Schedule, Search
from tests.workers.conftest import ENTRY
from tests.workers.scheduling.conftest import TEMPLATE, House, utc
from workers.fire_plans import FirePlans, Known


def test_a_template_that_is_not_valid_any_more_fails_its_fire_and_not_its_schedule(house: House) -> None:
    key = house.schedule("2026-03-01T00:30")
    with writing(house.engine) as session:
        catalog.publish_datasets(session, [], published_by="tests")
    house.at("2026-03-01T01:00")
    house.at("2026-03-01T01:59:56")
    house.publish(ENTRY.fingerprint)
    house.at("2026-03-01T02:00")
    assert [status for _, status in house.fires(key)] == ["failed", "fired"]
    assert "dataset.name" in (house.reasons(key)[0] or "")


def test_a_fire_waits_for_a_data_set_that_is_away_for_a_while(house: House) -> None:
    key = house.schedule("2026-03-01T00:30", catch_up_seconds=600)
    with writing(house.engine) as session:
        catalog.publish_datasets(session, [], published_by="tests")
    house.at("2026-03-01T01:00")
    house.at("2026-03-01T01:05")
    assert house.fires(key) == []
    house.publish(ENTRY.fingerprint)
    house.at("2026-03-01T01:05:06")
    assert house.fires(key) == [("03-01 01:00", "fired")]
    assert house.get(key).next_fire_at == utc("2026-03-01T02:00")


def test_a_data_set_that_never_comes_fails_the_fire_when_it_could_not_be_caught_up_any_more(house: House) -> None:
    key = house.schedule("2026-03-01T00:30", catch_up_seconds=600)
    with writing(house.engine) as session:
        catalog.publish_datasets(session, [], published_by="tests")
    house.at("2026-03-01T01:00")
    house.at("2026-03-01T01:09:59")
    assert house.fires(key) == []
    house.at("2026-03-01T01:10:05")
    assert house.fires(key) == [("03-01 01:00", "failed")]
    assert "dataset.name" in (house.reasons(key)[0] or "")


def test_a_fire_waits_until_a_data_set_that_has_grown_is_read(house: House) -> None:
    key = house.schedule("2026-03-01T00:30")
    unread = {"name": "tiny", "title": "Tiny", "reason": "4.2 GB are not read yet.", "unread": True}
    with writing(house.engine) as session:
        catalog.publish_node(session, "n1", {"host": "a", "unavailable_datasets": [unread]})
    house.at("2026-03-01T01:30")
    assert house.fires(key) == []
    with writing(house.engine) as session:
        catalog.publish_node(session, "n1", {"host": "a", "unavailable_datasets": []})
    house.publish("e" * 64)
    house.at("2026-03-01T01:30:06")
    assert house.fires(key) == [("03-01 01:00", "fired")]


@pytest.mark.parametrize(
    "template",
    [
        {**TEMPLATE, "name": "{{ cycler.__init__.__globals__.os.system('x') }}"},
        {**TEMPLATE, "name": "{% for x in y %}{% endfor %}"},
        {**TEMPLATE, "strategy": {"points": "everything"}},
        {**TEMPLATE, "strategy": 5},
        {**TEMPLATE, "name": None},
        {},
    ],
)
def test_a_broken_template_is_noted_and_nothing_in_it_is_run(house: House, template: dict[str, Any]) -> None:
    key = house.schedule("2026-03-01T00:30", template=template)
    house.at("2026-03-01T01:00")
    assert house.fires(key) == [("03-01 01:00", "failed")]
    assert house.get(key).next_fire_at == utc("2026-03-01T02:00")


def test_a_mistake_with_one_schedule_holds_up_no_other(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [house.schedule("2026-03-01T00:30") for _ in range(2)]
    search_of = FirePlans.search_of

    def broken(plans: FirePlans, session: Any, found: Schedule, fire_at: datetime, **more: Any) -> Any:
        if found.id == keys[0]:
            raise RuntimeError("unforeseen")
        return search_of(plans, session, found, fire_at, **more)

    monkeypatch.setattr(FirePlans, "search_of", broken)
    house.at("2026-03-01T01:00")
    assert [house.fires(key) for key in keys] == [[("03-01 01:00", "failed")], [("03-01 01:00", "fired")]]
    assert house.get(keys[0]).next_fire_at == utc("2026-03-01T02:00")


def test_a_statement_that_fails_for_one_schedule_holds_up_no_other(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [house.schedule("2026-03-01T00:30") for _ in range(3)]
    search_of = FirePlans.search_of

    def broken(plans: FirePlans, session: Any, found: Schedule, fire_at: datetime, **more: Any) -> Any:
        made = search_of(plans, session, found, fire_at, **more)
        return made | {"priority": 77} if found.id == keys[1] else made  # the table's check refuses it

    monkeypatch.setattr(FirePlans, "search_of", broken)
    with capture_logs() as logs:
        house.at("2026-03-01T01:00")
    assert "schedule.statement_failed" in [line["event"] for line in logs]
    assert [[status for _, status in house.fires(key)] for key in keys] == [["fired"], ["failed"], ["fired"]]
    assert all(house.get(key).next_fire_at == utc("2026-03-01T02:00") for key in keys)


def test_a_mistake_of_the_scheduler_itself_is_logged_and_not_the_dispatchers_end(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = house.schedule("2026-03-01T00:30")
    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(Known, "read", lambda session: 1 / 0)
        house.at("2026-03-01T01:00")
    assert [line["event"] for line in logs] == ["schedule.tick_failed"]
    house.at("2026-03-01T01:00")
    assert house.fires(key) == [("03-01 01:00", "fired")]


def test_who_asked_for_failures_is_told_of_a_fire_that_fails(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    notify = [
        {"channel": "email", "target": "team@lab.example", "events": ["failed"]},
        {"channel": "email", "target": "boss@lab.example", "events": ["finished"]},
    ]
    template = {**TEMPLATE, "dataset": {"name": "gone"}}
    key = house.schedule("2026-03-01T00:30", template=template, notify=notify)
    broken = house.schedule("2026-03-01T00:30", notify=notify)
    unknown = house.schedule("2026-03-01T00:30", notify=notify)
    with writing(house.engine) as session:
        session.execute(update(Schedule).where(Schedule.id == unknown).values(zone="Mars/Olympus"))
    search_of = FirePlans.search_of

    def unforeseen(plans: FirePlans, session: Any, found: Schedule, fire_at: datetime, **more: Any) -> Any:
        if found.id == broken:
            raise RuntimeError("unforeseen")
        return search_of(plans, session, found, fire_at, **more)

    monkeypatch.setattr(FirePlans, "search_of", unforeseen)
    with capture_logs():
        house.at("2026-03-01T01:00")
        house.at("2026-03-01T01:59:56")  # it is not waited for any longer
    with reading(house.engine) as session:
        rows = list(session.scalars(select(Delivery)))
    assert {row.target for row in rows} == {"team@lab.example"}
    told = {row.schedule_id: row for row in rows}
    assert set(told) == {key, broken, unknown}
    assert "gone" in told[key].payload["error"]["message"]
    assert told[key].event == "failed"
    assert not house.get(unknown).enabled


def test_a_search_that_ends_while_it_is_replaced_costs_no_fire(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    key = house.schedule("2026-03-01T00:30", overlap="replace")
    house.at("2026-03-01T01:00")
    before = house.searches(key)[0].id
    command = searches.set_command

    def late(session: Any, search_id: str, word: str) -> Any:
        ended = {"status": "succeeded", "finished_at": utc("2026-03-01T02:00")}
        session.execute(update(Search).where(Search.id == search_id).values(**ended))
        return command(session, search_id, word)

    monkeypatch.setattr(searches, "set_command", late)
    house.at("2026-03-01T02:00")
    assert [status for _, status in house.fires(key)] == ["fired", "fired"]
    assert [search.status for search in house.searches(key)] == ["succeeded", "queued"]
    assert house.searches(key)[0].id == before
