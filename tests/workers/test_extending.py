"""Finished searches taken up again: larger budgets, failed trials retried, confirmation of what is new on the front."""

from __future__ import annotations

import pytest

from db import searches
from db.engine import reading, writing
from workers.orders import Failure, Order, Result
from workers.stopping import Stop

SMALL = {"space": {"modules": ["none", "se", "cbam"], "reduction": [4, 8], "pattern": ["every"]}}


def _extend(lab, search_id, trials, **also):
    with writing(lab.engine) as session:
        spec = searches.get(session, search_id).spec
        budget = {**spec["budget"], "trials": trials}
        searches.reopen(session, search_id, spec={**spec, "budget": budget}, spec_version=1, **also)


def _proposed(lab, search_id):
    return [row.architecture_key for row in lab.trials(search_id) if row.phase != "confirm"]


@pytest.mark.parametrize("strategy", ["nsga2", "random", "grid"])
def test_a_search_extended_later_is_the_one_that_was_larger_from_the_start(lab, strategy):
    confirm = {"top": 1, "seeds": 2}  # its trials have numbers too, which must not move the strategy's draws
    whole_id = lab.submit(**SMALL, budget={"trials": 16}, strategy={"name": strategy, "seed": 3}, confirm=confirm)
    run = lab.start(lab.claim())
    lab.work(run)
    lab.finish(run)

    other = {"training": {"epochs": 3}}  # so that nothing is reused
    search_id = lab.submit(
        **SMALL, budget={"trials": 7}, strategy={"name": strategy, "seed": 3}, confirm=confirm, **other
    )
    run = lab.start(lab.claim())
    lab.work(run)
    assert lab.finish(run).status == "succeeded"
    first = _proposed(lab, search_id)
    _extend(lab, search_id, 16)
    again = lab.start(lab.claim())
    lab.work(again)
    assert lab.finish(again).status == "succeeded"
    assert _proposed(lab, search_id)[: len(first)] == first
    assert _proposed(lab, search_id) == _proposed(lab, whole_id)


def test_an_extended_search_confirms_what_is_new_on_its_front_and_nothing_twice(lab):
    def better_later(order: Order) -> Result:
        metrics = {"top1": 0.3 + 0.01 * min(order.number, 50), "top5": 0.9, "loss": 1.0}
        return Result({**metrics, "test_top1": 0.5} if order.phase == "confirm" else metrics, order.epochs, 1.0, {})

    search_id = lab.submit(**SMALL, budget={"trials": 3}, confirm={"top": 1, "seeds": 2})
    run = lab.start(lab.claim())
    lab.work(run, better_later)
    lab.finish(run)
    before = {row.id: row.finished_at for row in lab.trials(search_id)}
    confirmed = [row.architecture_key for row in lab.trials(search_id) if row.phase == "confirm"]
    assert len(confirmed) == 4  # two seeds of the baseline, two of the best
    _extend(lab, search_id, 6)
    lab.orders.clear()
    again = lab.start(lab.claim())
    lab.work(again, better_later)
    search = lab.finish(again)
    rows = lab.trials(search_id)
    new = [order for order in lab.orders if order.phase == "confirm"]
    best = max((row for row in rows if row.phase != "confirm"), key=lambda row: row.top1)
    assert {order.architecture.key for order in new} == {best.architecture_key}
    assert best.architecture_key not in confirmed
    assert sorted(order.seed for order in new) == [1, 2]
    assert {row.id: row.finished_at for row in rows if row.id in before} == before
    assert search.status == "succeeded"


def test_failed_trials_retried_keep_their_numbers_and_take_no_budget(lab):
    search_id = lab.submit(**SMALL, budget={"trials": 5})
    run = lab.start(lab.claim())
    lab.work(run, lambda order: Failure("error", "a bug") if order.number in (4, 6) else _good())
    lab.finish(run)
    before = [(row.number, row.architecture_key) for row in lab.trials(search_id)]
    with writing(lab.engine) as session:
        searches.reopen(session, search_id, retry_failed=True)
    lab.orders.clear()
    again = lab.start(lab.claim())
    lab.work(again)
    assert lab.finish(again).status == "succeeded"
    assert [order.number for order in lab.orders] == [4, 6]
    rows = lab.trials(search_id)
    assert [(row.number, row.architecture_key) for row in rows] == before
    assert {row.status for row in rows} == {"succeeded"}


def test_a_search_that_failed_altogether_succeeds_when_its_reason_is_gone(lab):
    search_id = lab.submit(**SMALL, budget={"trials": 4})
    run = lab.start(lab.claim())
    lab.work(run, lambda order: Failure("dataset", "train/ is gone"))
    assert lab.finish(run).status == "failed"
    with writing(lab.engine) as session:
        searches.reopen(session, search_id, retry_failed=True)
    again = lab.start(lab.claim())
    lab.work(again)
    search = lab.finish(again)
    assert (search.status, search.error) == ("succeeded", None)
    assert len(lab.trials(search_id)) == 3 + 4


def test_a_cancelled_search_that_is_extended_goes_on_with_what_was_cancelled(lab):
    search_id = lab.submit(**SMALL, budget={"trials": 4})
    run = lab.start(lab.claim())
    lab.work(run, most=4)
    cut = run.next()
    run.halt(Stop.CANCEL)
    run.cancel_live()
    assert lab.finish(run).status == "cancelled"
    _extend(lab, search_id, 6)
    lab.orders.clear()
    again = lab.start(lab.claim())
    lab.work(again)
    assert lab.finish(again).status == "succeeded"
    assert lab.orders[0].trial_id == cut.trial_id
    with reading(lab.engine) as session:
        assert searches.counts(session, [search_id])[search_id] == {"succeeded": 3 + 6}


def _good() -> Result:
    return Result({"top1": 0.5, "top5": 0.9, "loss": 1.0}, 1, 1.0, {})
