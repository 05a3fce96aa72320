"""What a search does with its results, on both databases; the cluster is a formula, everything else is real."""

from __future__ import annotations

from collections import Counter

import pytest

from db import claims
from db.engine import writing
from db.errors import Fenced
from search.pareto import Bounds
from workers.agenda import Next
from workers.orders import Failure, Order, Result

SMALL = {"space": {"modules": ["none", "se", "cbam"], "reduction": [4, 8], "pattern": ["every"]}}


def test_a_search_trains_the_baseline_first_then_controls_then_explores(lab):
    search_id = lab.submit(**SMALL, budget={"trials": 5})
    run = lab.start(lab.claim())
    lab.work(run)
    search = lab.finish(run)
    rows = lab.trials(search_id)
    assert [row.role for row in rows] == ["baseline", "control", "control"] + ["explore"] * 5
    assert rows[0].label == "no attention"
    assert [row.number for row in rows] == list(range(1, 9))
    assert search.status == "succeeded"
    assert {row.status for row in rows} == {"succeeded"}
    assert search.best_trial_id == max(rows, key=lambda row: row.top1).id


def test_no_architecture_is_trained_twice(lab):
    search_id = lab.submit(**SMALL, budget={"trials": 200})
    run = lab.start(lab.claim())
    lab.work(run)
    rows = lab.trials(search_id)
    # 5 choices for each of 3 stages; the baseline is one of them, the paper's SE and CBAM (r = 16) are not
    assert len(rows) == 5**3 + 2
    assert max(Counter(row.architecture_key for row in rows).values()) == 1


def test_the_hypervolume_is_that_of_the_finished_trials(lab):
    search_id = lab.submit(**SMALL, budget={"trials": 6})
    run = lab.start(lab.claim())
    lab.work(run)
    search = lab.finish(run)
    bounds = Bounds.from_json(search.bounds["objectives"])
    assert search.hypervolume == pytest.approx(
        bounds.hypervolume([(row.top1, row.macs) for row in lab.trials(search_id)])
    )


def test_a_restart_repeats_only_what_was_not_finished_and_goes_on_as_if_nothing_had_happened(lab):
    whole_id = lab.submit(**SMALL, budget={"trials": 12}, strategy={"seed": 3})
    run = lab.start(lab.claim())
    lab.work(run)
    lab.finish(run)
    whole = [row.architecture_key for row in lab.trials(whole_id)]

    # another seed of training, so that nothing is reused: the architectures asked for must be the same all the same
    search_id = lab.submit(**SMALL, budget={"trials": 12}, strategy={"seed": 3}, training={"epochs": 3})
    first = lab.start(lab.claim())
    lab.work(first, most=7)
    unfinished = first.next()
    assert isinstance(unfinished, Order)
    first.ledger.flush()
    with writing(lab.engine) as session:
        claims.release(session, search_id, 1, "queued")

    lab.orders.clear()
    second = lab.start(lab.claim())
    lab.work(second)
    search = lab.finish(second)
    rows = lab.trials(search_id)
    assert lab.orders[0].architecture.key == unfinished.architecture.key
    assert lab.orders[0].trial_id == unfinished.trial_id
    assert len(lab.orders) == 3 + 12 - 7
    assert [row.architecture_key for row in rows] == whole
    assert search.status == "succeeded"


def test_a_driver_that_lost_its_search_writes_nothing_more(lab):
    search_id = lab.submit(**SMALL, budget={"trials": 4})
    zombie = lab.start(lab.claim())
    order = zombie.next()
    with writing(lab.engine) as session:
        assert claims.release(session, search_id, 1, "queued")
    heir = lab.start(lab.claim())
    with pytest.raises(Fenced):  # noqa: PT012 - the writing thread may notice before or after
        zombie.succeeded(order.trial_id, Result({"top1": 0.123}, 1, 1.0, {}))
        zombie.ledger.flush()
    with pytest.raises(Fenced):
        zombie.next()
    lab.work(heir)
    assert lab.finish(heir).status == "succeeded"
    assert 0.123 not in [row.top1 for row in lab.trials(search_id)]


def test_results_are_shared_between_searches(lab):
    lab.submit(**SMALL, budget={"trials": 6})
    first = lab.start(lab.claim())
    lab.work(first)
    lab.finish(first)
    trained = len(lab.orders)

    again_id = lab.submit(**SMALL, budget={"trials": 6})
    second = lab.start(lab.claim())
    lab.work(second)
    search = lab.finish(second)
    rows = lab.trials(again_id)
    assert len(lab.orders) == trained
    assert {row.status for row in rows} == {"reused"}
    assert all(row.reused_from and row.top1 for row in rows)
    assert search.status == "succeeded"


@pytest.mark.parametrize("difference", [{"training": {"epochs": 2}}, {"strategy": {"seed": 1}}])
def test_other_conditions_are_other_results(lab, difference):
    lab.submit(**SMALL, budget={"trials": 1})
    first = lab.start(lab.claim())
    lab.work(first)
    lab.finish(first)
    other_id = lab.submit(**SMALL, budget={"trials": 1}, **difference)
    second = lab.start(lab.claim())
    lab.work(second)
    assert "reused" not in {row.status for row in lab.trials(other_id)}


def test_two_searches_that_want_the_same_result_train_it_once(lab):
    one, two = (lab.submit(**SMALL, budget={"trials": 4}) for _ in range(2))
    first, second = lab.start(lab.claim()), lab.start(lab.claim())
    pending = first.next()
    assert isinstance(pending, Order)
    other = second.next()  # not the baseline, which the first is training
    assert isinstance(other, Order)
    assert other.architecture.key != pending.architecture.key
    for run, order in ((first, pending), (second, other)):
        outcome = Result({"top1": 0.5, "top5": 0.9, "loss": 1.0}, 1, 1.0, {})
        run.succeeded(order.trial_id, outcome)
    first.ledger.flush()
    second.ledger.flush()
    statuses = Counter()
    for run in (lab.start_again(first), lab.start_again(second)):
        lab.work(run)
        assert lab.finish(run).status == "succeeded"
    for search_id in (one, two):
        statuses += Counter(row.status for row in lab.trials(search_id))
    assert statuses == {"succeeded": 7, "reused": 7}


def test_confirm_retrains_the_front_and_the_baseline_with_other_seeds(lab):
    spec = {"confirm": {"top": 1, "seeds": 2, "baseline_seeds": 3, "epochs": 4}, "budget": {"trials": 8}}
    search_id = lab.submit(**SMALL, **spec)
    run = lab.start(lab.claim())
    lab.work(run)
    lab.finish(run)
    rows = [row for row in lab.trials(search_id) if row.phase == "confirm"]
    seeds = {label: [r.seed for r in rows if r.label == label] for label in {r.label for r in rows}}
    assert seeds.pop("no attention") == [1, 2, 3]
    best = max((row for row in lab.trials(search_id) if row.phase != "confirm"), key=lambda row: (row.top1, -row.macs))
    assert seeds == {best.label: [1, 2]}
    assert all(row.test_top1 is not None and row.epochs_planned == 4 for row in rows)
    assert all(row.test_top1 is None for row in lab.trials(search_id) if row.phase != "confirm")


def test_a_space_that_its_controls_cover_is_answered_by_them(lab):
    space = {"modules": ["none", "se"], "reduction": [4], "pattern": ["every"], "same_for_all_stages": True}
    search_id = lab.submit(space=space, backbone={"name": "resnet8", "width": 4}, budget={"trials": 5})
    run = lab.start(lab.claim())
    lab.work(run)
    assert lab.finish(run).status == "succeeded"
    assert [row.role for row in lab.trials(search_id)] == ["baseline", "control"]


def test_confirmation_uses_every_slot_and_starts_killed_trials_again(lab):
    search_id = lab.submit(**SMALL, budget={"trials": 3}, confirm={"top": 1, "seeds": 2})
    run = lab.start(lab.claim())

    def result(order: Order) -> Result:
        return Result({"top1": 0.5 + 0.01 * len(order.architecture.placements)}, 1, 1.0, {})

    while (order := run.next()).phase != "confirm":
        run.succeeded(order.trial_id, result(order))
    live = [order, run.next()]
    assert run.next() is Next.WAIT
    run.succeeded(live[0].trial_id, result(live[0]))
    live = [live[1], run.next()]
    run.succeeded(live[1].trial_id, result(live[1]))
    last = run.next()
    run.succeeded(last.trial_id, result(last))
    assert run.next() is Next.WAIT  # nothing is left to start, but one still runs
    run.failed(live[0].trial_id, Failure("killed", "gone"))
    again = run.next()
    assert again.trial_id == live[0].trial_id
    run.succeeded(again.trial_id, result(again))
    assert run.next() is Next.DONE
    lab.finish(run)
    assert [row.status for row in lab.trials(search_id) if row.phase == "confirm"] == ["succeeded"] * 4


def test_the_quota_limits_what_runs_at_once(lab):
    lab.submit(**SMALL, budget={"trials": 20}, resources={"concurrent": 3})
    run = lab.start(lab.claim())
    run.set_quota(8)
    started = [run.next() for _ in range(4)]
    assert [isinstance(order, Order) for order in started] == [True, True, True, False]
    assert started[-1] is Next.WAIT


def test_constraints_are_kept_before_training(lab):
    spec = {**SMALL, "budget": {"trials": 30}}
    free_id = lab.submit(**spec, controls=False)
    run = lab.start(lab.claim())
    lab.work(run)
    lab.finish(run)
    limit = sorted(row.params for row in lab.trials(free_id))[10]
    bound_id = lab.submit(**spec, controls=False, constraints=[{"metric": "params", "at_most": limit}])
    run = lab.start(lab.claim())
    lab.work(run)
    lab.finish(run)
    explored = [row.params for row in lab.trials(bound_id) if row.phase == "explore"]
    assert explored
    assert max(explored) <= limit
