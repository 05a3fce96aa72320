"""Schedules that fire: policies, missed fires, clocks, what becomes of templates; on both databases."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, select, update
from structlog.testing import capture_logs

from db import catalog, claims, events, schedules, searches, trials
from db.catalog import PublishedDataset
from db.engine import reading, writing
from db.ids import uuid7
from db.models import Delivery, Evaluation, Fire, Schedule, Search
from search.architecture import Architecture, Backbone, Module
from search.describe import describe
from search.plan import SearchPlan, make_plan
from search.schedule import Rhythm
from search.sites import Site
from search.timetable import Timetable
from tests.workers.conftest import ENTRY
from workers import fire_plans, scheduling
from workers.fire_plans import FirePlans, Known
from workers.scheduling import Scheduler

TEMPLATE: dict[str, Any] = {
    "name": "nightly {{ fire_at }}",
    "dataset": {"name": "tiny"},
    "backbone": {"name": "resnet8", "width": 16},
    "budget": {"trials": 4},
}
CONDITIONS = {"dataset_fingerprint": "old", "conditions": {}, "epochs": 1, "seed": 0}


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class House:
    """A database with a schedule, a scheduler, and a clock of the database that the test sets."""

    def __init__(self, engine: Engine, patch: pytest.MonkeyPatch) -> None:
        self.engine = engine
        self._patch = patch
        self.publish(ENTRY.fingerprint)

    def publish(self, fingerprint: str) -> None:
        document = ENTRY.model_dump(mode="json") | {"fingerprint": fingerprint}
        with writing(self.engine) as session:
            catalog.publish_datasets(session, [PublishedDataset("tiny", fingerprint, document)], published_by="tests")

    def schedule(self, start: str, **options: Any) -> str:
        """A schedule that was made at `start` (UTC)."""
        key = uuid7()
        options = {"cron": "0 * * * *", "zone": "UTC", "template": TEMPLATE, "name": key} | options
        known = ("jitter_seconds", "start_at", "end_at")
        rhythm = Rhythm(
            Timetable.parse(options["cron"], options["zone"]), key, **{k: options[k] for k in known if k in options}
        )
        planned = rhythm.next(utc(start))
        due = None if planned is None else rhythm.due(planned)
        with writing(self.engine) as session:
            schedules.create(session, id=key, next_fire_at=due, planned_at=planned, **options)
        return key

    def at(self, now: str) -> None:
        """Looks at the schedules once, at this time by the database's clock."""
        self.at_moment(utc(now))

    def at_moment(self, moment: datetime) -> None:
        with self._clock(moment):
            Scheduler(self.engine).tick(60.0)

    @contextlib.contextmanager
    def _clock(self, moment: datetime) -> Iterator[None]:
        with self._patch.context() as patch:
            patch.setattr(schedules, "DatabaseTime", lambda: moment)
            patch.setattr(scheduling, "database_now", lambda _: moment)
            yield

    def fires(self, key: str) -> list[tuple[str, str]]:
        with reading(self.engine) as session:
            rows = session.scalars(select(Fire).where(Fire.schedule_id == key).order_by(Fire.fire_at))
            return [(f"{row.fire_at:%m-%d %H:%M}", row.status) for row in rows]

    def reasons(self, key: str) -> list[str | None]:
        with reading(self.engine) as session:
            return list(session.scalars(select(Fire.reason).where(Fire.schedule_id == key).order_by(Fire.fire_at)))

    def searches(self, key: str) -> list[Search]:
        with reading(self.engine) as session:
            return list(session.scalars(select(Search).where(Search.schedule_id == key).order_by(Search.fire_at)))

    def get(self, key: str) -> Schedule:
        with reading(self.engine) as session:
            return schedules.get(session, key)

    def end(self, search_id: str, status: str = "succeeded") -> None:
        with writing(self.engine) as session:
            found = claims.claim_next(session, "driver", 600.0)
            assert found is not None
            assert found.id == search_id
            assert claims.release(session, found.id, found.attempt, status)

    def train(
        self,
        search_id: str,
        results: list[tuple[Architecture, float, int]],
        fingerprint: str,
        conditions: dict[str, Any] | None = None,
    ) -> None:
        """Runs the search to its end with these results: (architecture, top1, MACs)."""
        with writing(self.engine) as session:
            found = claims.claim_next(session, "driver", 600.0)
            assert found is not None
            assert found.id == search_id
            for number, (architecture, top1, macs) in enumerate(results):
                label, document = describe(architecture), architecture.to_json()
                trials.put_architecture(session, architecture.key, backbone="resnet8", document=document, label=label)
                row = trials.add(
                    session, search_id, found.attempt, phase="explore", architecture_key=architecture.key, seed=0,
                    role="explore", epochs_planned=1, label=label, params=100, macs=macs,
                )  # fmt: skip
                metrics = {"top1": top1}
                trials.finish(session, row.id, found.attempt, status="succeeded", metrics=metrics, epochs=1)
                key = f"{search_id}{number}".ljust(64, "0")[:64]
                session.add(
                    Evaluation(key=key, architecture_key=architecture.key, status="finished", results={},
                               **{**CONDITIONS, "dataset_fingerprint": fingerprint, "conditions": conditions or {}})
                )  # fmt: skip
                session.flush()
                row.evaluation_key = key
                session.merge(row)
            assert claims.release(session, found.id, found.attempt, "succeeded")


@pytest.fixture
def house(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> House:
    return House(engine, monkeypatch)


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


def test_start_and_end(house: House) -> None:
    start, end = utc("2026-03-01T03:00"), utc("2026-03-01T04:00")
    key = house.schedule("2026-03-01T00:30", start_at=start, end_at=end, overlap="allow")
    for hour in range(1, 8):
        house.at(f"2026-03-01T{hour:02}:00")
    assert house.fires(key) == [("03-01 03:00", "fired"), ("03-01 04:00", "fired")]
    assert house.get(key).next_fire_at is None
    assert house.get(key).enabled


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


def test_a_template_that_is_not_valid_any_more_fails_its_fire_and_not_its_schedule(house: House) -> None:
    key = house.schedule("2026-03-01T00:30")
    with writing(house.engine) as session:
        catalog.publish_datasets(session, [], published_by="tests")
    house.at("2026-03-01T01:00")
    house.publish(ENTRY.fingerprint)
    house.at("2026-03-01T02:00")
    assert [status for _, status in house.fires(key)] == ["failed", "fired"]
    assert "dataset.name" in (house.reasons(key)[0] or "")


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


def test_a_disabled_schedule_stays_still(house: House) -> None:
    key = house.schedule("2026-03-01T00:30")
    with writing(house.engine) as session:
        schedules.edit(session, key, enabled=False, next_fire_at=None, planned_at=None)
    house.at("2026-03-01T05:00")
    assert house.fires(key) == []


def _architectures(house: House) -> list[Architecture]:
    backbone = Backbone.make("resnet8", width=16)
    return [
        Architecture.make(backbone, {Site(stage, 1, "residual"): [Module.make(kind, reduction=4)]})
        for stage, kind in ((1, "se"), (2, "se"), (3, "cbam"))
    ]


def test_previous_points_are_the_front_of_the_search_before(house: House) -> None:
    key = house.schedule("2026-03-01T00:30", template={**TEMPLATE, "strategy": {"points": "previous"}})
    house.at("2026-03-01T01:00")
    first = house.searches(key)[0]
    assert first.spec["strategy"]["previous"] == []
    cheap, dominated, dear = _architectures(house)
    house.train(first.id, [(cheap, 0.6, 100), (dominated, 0.5, 150), (dear, 0.8, 200)], ENTRY.fingerprint)
    house.at("2026-03-01T02:00")
    points = house.searches(key)[1].spec["strategy"]["previous"]
    assert points == [dear.to_json()["placements"], cheap.to_json()["placements"]]


def test_grown_data_bring_the_previous_front_along_unasked(house: House) -> None:
    key = house.schedule("2026-03-01T00:30")
    house.at("2026-03-01T01:00")
    cheap, dominated, _ = _architectures(house)
    results = [(cheap, 0.6, 100), (dominated, 0.5, 150)]
    trained_on = ENTRY.resolve().fingerprint
    house.train(house.searches(key)[0].id, results, trained_on)
    house.at("2026-03-01T02:00")
    assert house.searches(key)[1].spec["strategy"]["previous"] == []
    house.train(house.searches(key)[1].id, results, trained_on)
    house.publish("e" * 64)
    house.at("2026-03-01T03:00")
    assert house.searches(key)[2].spec["strategy"]["previous"] == [cheap.to_json()["placements"]]


def test_changed_training_brings_the_whole_previous_front_along_whatever_the_budget(house: House) -> None:
    key = house.schedule("2026-03-01T00:30", template={**TEMPLATE, "budget": {"trials": 1}})
    house.at("2026-03-01T01:00")
    cheap, _, dear = _architectures(house)
    results = [(cheap, 0.6, 100), (dear, 0.8, 200)]
    trained_on = ENTRY.resolve().fingerprint
    training = house.searches(key)[0].spec["training"]
    house.train(house.searches(key)[0].id, results, trained_on, {"recipe": _recipe_of(training), "weights": None})
    house.at("2026-03-01T02:00")
    alike = house.searches(key)[1]
    assert (alike.spec["strategy"]["previous"], alike.spec["budget"]["trials"]) == ([], 1)
    house.train(alike.id, results, trained_on, {"recipe": _recipe_of(training) | {"epochs": 99}, "weights": None})
    house.at("2026-03-01T03:00")
    other = house.searches(key)[2]
    assert len(other.spec["strategy"]["previous"]) == other.spec["budget"]["trials"] == 2


def _recipe_of(training: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in training.items() if name != "recipe"}


def test_what_a_changed_space_does_not_hold_is_left_out(house: House) -> None:
    key = house.schedule("2026-03-01T00:30", template={**TEMPLATE, "strategy": {"points": "previous"}})
    house.at("2026-03-01T01:00")
    cheap, _, dear = _architectures(house)
    house.train(house.searches(key)[0].id, [(cheap, 0.6, 100), (dear, 0.8, 200)], ENTRY.fingerprint)
    changed = {**TEMPLATE, "strategy": {"points": "previous"}, "space": {"modules": ["none", "se"]}}
    with writing(house.engine) as session:
        session.execute(update(Schedule).where(Schedule.id == key).values(template=changed))
    house.at("2026-03-01T02:00")
    assert house.searches(key)[1].spec["strategy"]["previous"] == [cheap.to_json()["placements"]]


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


def test_searches_of_no_schedule_are_never_touched(house: House) -> None:
    with writing(house.engine) as session:
        other = searches.create(session, name="mine", spec={}, spec_version=1).id
    key = house.schedule("2026-03-01T00:30", overlap="replace")
    house.at("2026-03-01T01:00")
    house.at("2026-03-01T02:00")
    with reading(house.engine) as session:
        assert searches.get(session, other).status == "queued"
    assert Counter(search.status for search in house.searches(key)) == {"cancelled": 1, "queued": 1}
