"""What it costs to look at many schedules: reads, statements, checks of templates."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event

from db import events
from db.engine import reading, writing
from search.plan import SearchPlan, make_plan
from tests.workers.scheduling.conftest import TEMPLATE, House, utc
from workers import fire_plans, scheduling
from workers.fire_plans import FirePlans, Known
from workers.scheduling import Scheduler


def test_one_template_is_checked_once_for_all_that_are_due(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted(*args: Any) -> SearchPlan:
        asked.append(args)
        return make_plan(*args)

    monkeypatch.setattr(fire_plans, "make_plan", counted)
    wide = {**TEMPLATE, "backbone": {"name": "resnet8", "width": 8}}
    keys = [
        house.schedule("2026-03-01T00:30", template=template, priority=priority, owner=f"o{priority}")
        for priority in (1, 2, 3)
        for template in (TEMPLATE, wide)
    ]
    house.at("2026-03-01T01:00")
    assert len(asked) == 2
    made = [house.searches(key)[0] for key in keys]
    assert [(search.priority, search.owner) for search in made] == [(p, f"o{p}") for p in (1, 1, 2, 2, 3, 3)]
    assert all((s.spec["priority"], s.spec["owner"]) == (s.priority, s.owner) for s in made)
    assert [search.spec["backbone"]["width"] for search in made] == [16, 8] * 3
    with reading(house.engine) as session:
        assert [each.kind for each in events.after(session, made[0].id, 0)] == ["search.created"]


def test_a_long_stop_of_many_schedules_is_written_in_few_statements_and_short_transactions(house: House) -> None:
    keys = [house.schedule("2026-02-01T00:00", cron="* * * * *") for _ in range(4)]
    asked = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        asked.append(statement)

    event.listen(house.engine, "before_cursor_execute", note)
    moment = utc("2026-03-01T00:00:10")
    with house._clock(moment):
        assert Scheduler(house.engine).tick(0.0) == 0
        plans = FirePlans(Known({}, {}, {}))
        with writing(house.engine) as session:
            assert scheduling.deal_with_some(session, plans, deadline=0.0) == 1  # its share is over after the first
        asked.clear()
        with writing(house.engine) as session:
            assert scheduling.deal_with_some(session, plans, deadline=float("inf")) == 3
    assert sum(statement.startswith("INSERT INTO fires") for statement in asked) == 1
    assert all(len(house.fires(key)) > scheduling.MOST_NOTED for key in keys)


def test_a_tick_with_nothing_due_is_one_read_of_one_index_range(house: House) -> None:
    house.schedule("2026-03-01T00:30", start_at=utc("2099-01-01T00:00"))
    asked: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        if "schedules" in statement:
            asked.append(statement)
            if house.engine.dialect.name == "sqlite":
                plan = list(connection.connection.cursor().execute(f"EXPLAIN QUERY PLAN {statement}", parameters))
                assert "ix_schedules_next_fire_at (next_fire_at<?)" in plan[0][3]

    event.listen(house.engine, "before_cursor_execute", note)
    assert Scheduler(house.engine).tick() == 0
    assert len(asked) == 1
