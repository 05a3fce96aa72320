"""What a schedule's search takes over of the one before, when it starts; and that it confirms it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import update

from db import catalog, schedules, searches
from db.catalog import PublishedDataset
from db.engine import now, reading, writing
from db.measured import Earlier
from db.models import Evaluation, Search
from search.cost import CostTable
from search.datasets import DatasetEntry
from search.plan import make_plan
from search.space_cost import SpaceCosts
from search.spec import SearchSpec
from tests.workers.conftest import ENTRY, Lab
from workers.costs import SqlCostStore
from workers.ledger import Ledger
from workers.run import SearchRun

TEMPLATE: dict[str, Any] = {
    "name": "t", "dataset": {"name": "tiny"}, "backbone": {"name": "resnet8", "width": 16},
    "space": {"modules": ["none", "se", "cbam"], "reduction": [4, 8], "pattern": ["every"]},
    "controls": False, "budget": {"trials": 4}, "confirm": {"top": 2, "seeds": 2, "epochs": 5},
}  # fmt: skip


class Repeated:
    """Searches of one schedule, each started on the data of its moment."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        with writing(lab.engine) as session:
            self.schedule = schedules.create(
                session, name="weekly", cron="0 2 * * 0", zone="UTC", template=TEMPLATE, next_fire_at=None
            ).id

    def fire(self, entry: DatasetEntry, seed: int) -> str:
        """A search that is fired while the data are as `entry` says; nothing of the one before is in its request."""
        plan = make_plan(SearchSpec.parse({**TEMPLATE, "strategy": {"seed": seed}}), {"tiny": entry})
        with writing(self.lab.engine) as session:
            published = PublishedDataset("tiny", entry.fingerprint, entry.model_dump(mode="json"))
            catalog.publish_datasets(session, [published], published_by="tests")
            return searches.create(
                session, name="t", spec=plan.resolved(), spec_version=1, schedule_id=self.schedule, fire_at=now(session)
            ).id

    def start(self, entry: DatasetEntry) -> SearchRun:
        """As its driver starts the next search."""
        search = self.lab.claim()
        ledger = Ledger(self.lab.engine, search.id, search.attempt, evaluation_lease=60.0)
        self.lab.ledgers.append(ledger)
        plan = ledger.follow(make_plan(SearchSpec.parse_stored(search.spec), {"tiny": entry}))
        table = CostTable(plan.backbone, plan.task, SqlCostStore(self.lab.engine))
        return SearchRun(plan, SpaceCosts(plan.space, table), table, ledger)

    def confirmed(self, search_id: str, *, own: bool) -> set[str]:
        with reading(self.lab.engine) as session:
            rows = Earlier(session, search_id).everything(["top1"])
        return {row.key for row in rows if row.phase == "confirm" and row.brought != own}


def test_a_search_that_starts_on_grown_data_tries_the_front_before_and_confirms_it_again(lab: Lab) -> None:
    repeated = Repeated(lab)
    first = repeated.fire(ENTRY, seed=1)
    run = repeated.start(ENTRY)
    lab.work(run)
    assert lab.finish(run).status == "succeeded"
    second = repeated.fire(ENTRY, seed=2)  # fired, and then the data grow before a slot is free
    grown = ENTRY.model_copy(update={"fingerprint": "e" * 64})
    run = repeated.start(grown)
    assert run.plan.previous
    stored = lab.search(second).spec
    assert stored["strategy"]["previous"]
    assert len(stored["confirm"]["previous"]) == 2
    again = make_plan(SearchSpec.parse_stored(stored), {"tiny": grown})  # as a driver after this one reads it
    assert (again.previous, again.reconfirmed) == (run.plan.previous, run.plan.reconfirmed)
    lab.work(run)
    assert lab.finish(run).status == "succeeded"
    before = repeated.confirmed(first, own=True)
    assert len(before) == 3  # with the baseline
    assert before <= repeated.confirmed(second, own=True) | repeated.confirmed(second, own=False)


def test_on_the_same_data_nothing_is_taken_over_unasked(lab: Lab) -> None:
    repeated = Repeated(lab)
    repeated.fire(ENTRY, seed=1)
    run = repeated.start(ENTRY)
    lab.work(run)
    lab.finish(run)
    second = repeated.fire(ENTRY, seed=2)
    run = repeated.start(ENTRY)
    assert (run.plan.previous, run.plan.reconfirmed) == ((), ())
    assert lab.search(second).spec["confirm"]["previous"] == []


def test_what_has_begun_is_followed_as_it_began(lab: Lab) -> None:
    repeated = Repeated(lab)
    repeated.fire(ENTRY, seed=1)
    run = repeated.start(ENTRY)
    lab.work(run)
    lab.finish(run)
    second = repeated.fire(ENTRY, seed=2)
    run = repeated.start(ENTRY)
    lab.work(run, most=2)
    run.ledger.flush()
    with writing(lab.engine) as session:
        session.execute(update(Search).where(Search.id == second).values(status="queued"))
    run = repeated.start(ENTRY.model_copy(update={"fingerprint": "e" * 64}))
    assert run.plan.previous == ()


def test_a_search_that_was_trained_on_several_states_of_its_data_was_trained_on_other_data(lab: Lab) -> None:
    repeated = Repeated(lab)
    first = repeated.fire(ENTRY, seed=1)
    run = repeated.start(ENTRY)
    lab.work(run)
    lab.finish(run)
    with writing(lab.engine) as session:
        key = lab.trials(first)[0].evaluation_key
        session.execute(update(Evaluation).where(Evaluation.key == key).values(dataset_fingerprint="older"))
    repeated.fire(ENTRY, seed=2)
    assert repeated.start(ENTRY).plan.previous
