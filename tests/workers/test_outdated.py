"""Data that were imported between the plan of a search and its first trial."""

from __future__ import annotations

from db import catalog
from db.catalog import PublishedDataset
from db.engine import writing
from db.measured import data_fingerprint
from search.cost import CostTable
from search.datasets import DatasetEntry
from search.plan import make_plan
from search.space_cost import SpaceCosts
from search.spec import SearchSpec
from tests.workers.conftest import ENTRY, Lab, accuracy
from workers.costs import SqlCostStore
from workers.ledger import Ledger
from workers.orders import Failure
from workers.outdated import published_anew
from workers.run import SearchRun
from workers.stopping import Stop

GROWN = ENTRY.model_copy(update={"fingerprint": "e" * 64})
STALE = Failure("changed_data", "tiny: the data has changed since this search was submitted")


def _publish(lab: Lab, entry: DatasetEntry) -> None:
    with writing(lab.engine) as session:
        published = PublishedDataset("tiny", entry.fingerprint, entry.model_dump(mode="json"))
        catalog.publish_datasets(session, [published], published_by="tests")


def _start(lab: Lab, entry: DatasetEntry) -> SearchRun:
    search = lab.claim()
    plan = make_plan(SearchSpec.parse_stored(search.spec), {"tiny": entry})
    table = CostTable(plan.backbone, plan.task, SqlCostStore(lab.engine))
    ledger = Ledger(lab.engine, search.id, search.attempt, evaluation_lease=60.0)
    lab.ledgers.append(ledger)
    return SearchRun(plan, SpaceCosts(plan.space, table), table, ledger)


def test_a_search_planned_with_data_of_before_an_import_is_planned_anew(lab: Lab) -> None:
    search_id = lab.submit(budget={"trials": 3})
    run = _start(lab, ENTRY)
    lab.work(run, lambda order: STALE, most=1)
    run.cancel_live()
    assert run.outdated
    assert not published_anew(run, patience=0.0)  # nobody has published what has been imported
    _publish(lab, GROWN)
    assert published_anew(run)
    assert lab.finish(run).status == "queued"
    run = _start(lab, GROWN)
    lab.work(run, accuracy)
    assert lab.finish(run).status == "succeeded"
    rows = lab.trials(search_id)
    assert {row.status for row in rows} == {"succeeded"}
    assert rows[0].role == "baseline"
    with writing(lab.engine) as session:
        assert data_fingerprint(session, search_id) == GROWN.resolve().fingerprint


def test_data_that_nobody_publishes_fail_the_search_and_a_cancel_ends_it(lab: Lab) -> None:
    lab.submit(budget={"trials": 3})
    run = _start(lab, ENTRY)
    lab.work(run, lambda order: STALE, most=1)
    run.give_up(Failure("dataset", "Not published."))
    search = lab.finish(run)
    assert (search.status, (search.error or {}).get("kind")) == ("failed", "dataset")
    lab.submit(budget={"trials": 3})
    run = _start(lab, ENTRY)
    lab.work(run, lambda order: STALE, most=1)
    run.halt(Stop.CANCEL)
    assert published_anew(run)
    run.give_up(Failure("dataset", "Not published."))
    assert run.status == "cancelled"


def test_data_that_change_under_a_search_with_results_are_a_failure_of_the_trial(lab: Lab) -> None:
    search_id = lab.submit(budget={"trials": 3})
    run = _start(lab, ENTRY)
    lab.work(run, most=2)
    lab.work(run, lambda order: STALE)
    assert not run.outdated
    assert lab.finish(run).status == "failed"
    assert {row.error["kind"] for row in lab.trials(search_id) if row.status == "failed"} == {"dataset"}
