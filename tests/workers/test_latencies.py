"""Searches that are judged by latency: on one device only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from db.engine import reading
from db.models import Event
from search.errors import SpecError
from search.pareto import Bounds
from tests.workers.conftest import Lab
from tests.workers.test_trial_run import SGD, request_for, train
from workers.latencies import SPEEDS
from workers.orders import Order, Result
from workers.storage.identity import write_marker
from workers.storage.store import open_store

SPEC = {
    "objectives": [{"metric": "top1"}, {"metric": "latency_ms"}],
    "space": {"modules": ["none", "se"], "reduction": 4, "pattern": "every"},
    "strategy": {"name": "grid"},
    "budget": {"trials": 4},
}


def timed(devices: Callable[[int], str]) -> Callable[[Order], Result]:
    """More attention is better and slower; trial n runs on devices(n)."""
    count = 0

    def answer(order: Order) -> Result:
        nonlocal count
        count += 1
        more = len(order.architecture.placements)
        speeds = {name: 2.0 + 0.1 * more + index for index, name in enumerate(SPEEDS)}
        metrics = {"top1": 0.5 + 0.01 * more, "top5": 0.9, "loss": 1.0, **speeds}
        return Result(metrics, order.epochs, 1.0, {"device": devices(count)})

    return answer


def test_the_first_device_is_the_one_that_counts(lab: Lab) -> None:
    search_id = lab.submit(**SPEC)
    run = lab.start(lab.claim())
    assert lab.search(search_id).bounds is None  # what a latency is measured against is not known yet
    lab.work(run, timed(lambda count: "another GPU" if count == 3 else "a GPU"))
    finished = lab.finish(run)
    assert finished.status == "succeeded"
    rows = lab.trials(search_id)
    assert [row.latency_ms is None for row in rows] == [row.number == 3 for row in rows]
    assert all(row.top1 is not None for row in rows)
    assert rows[0].metrics["latency_64_ms"] == pytest.approx(4.0)
    assert rows[2].environment == {"device": "another GPU"}
    with reading(lab.engine) as session:
        events = session.scalars(select(Event).where(Event.kind == "latency.other_device")).all()
    (told,) = [event.data for event in events]
    assert told["trial_id"] == rows[2].id
    assert "another GPU" in told["message"]
    assert finished.bounds is not None
    bounds = Bounds.from_json(finished.bounds["objectives"])
    first = next(row.latency_ms for row in rows if row.number == 1)
    assert bounds.worst == (0.0, pytest.approx(4 * first))
    values = [(row.top1, row.latency_ms) for row in rows if row.latency_ms is not None]
    assert finished.hypervolume == pytest.approx(bounds.hypervolume(values))


def test_after_a_restart_the_device_is_the_same(lab: Lab) -> None:
    search_id = lab.submit(**SPEC)
    run = lab.start(lab.claim())
    lab.work(run, timed(lambda count: "a GPU"), most=2)
    run.ledger.flush()
    again = lab.start_again(run)
    lab.work(again, timed(lambda count: "another GPU"))
    assert lab.finish(again).status == "succeeded"
    assert [row.latency_ms is None for row in lab.trials(search_id)] == [False, False, *[True] * (len(lab.orders) - 2)]
    bounds = lab.search(search_id).bounds
    assert bounds is not None
    assert bounds["objectives"][1]["worst"] == pytest.approx(8.0)


def test_others_take_results_over_whole_and_judge_the_device_themselves(lab: Lab) -> None:
    for devices in (lambda count: "a GPU" if count == 1 else "another GPU", None):
        search_id = lab.submit(**SPEC)
        run = lab.start(lab.claim())
        if devices is None:
            lab.work(run, lambda order: pytest.fail("everything is known already"))
        else:
            lab.work(run, timed(devices))
        assert lab.finish(run).status == "succeeded"
        rows = lab.trials(search_id)
        assert [row.latency_ms is not None for row in rows] == [True] + [False] * (len(rows) - 1)
    without = lab.submit(**{**SPEC, "objectives": [{"metric": "top1"}, {"metric": "macs"}]})
    run = lab.start(lab.claim())
    lab.work(run, timed(lambda count: "a GPU"))  # results with latencies answer another question
    lab.finish(run)
    assert all(row.status == "succeeded" for row in lab.trials(without))


def test_trials_are_told_to_measure_it_only_where_it_is_asked_for(lab: Lab) -> None:
    from workers.evaluation import request_of

    for spec, wanted in ((SPEC, True), ({**SPEC, "objectives": [{"metric": "top1"}, {"metric": "macs"}]}, False)):
        lab.submit(**spec)
        run = lab.start(lab.claim())
        order = run.next()
        assert isinstance(order, Order)
        assert request_of(run.plan, order, 1).latency is wanted


def test_early_stopping_cannot_judge_by_it(lab: Lab) -> None:
    with pytest.raises(SpecError, match="latency_ms is measured when training has ended"):
        lab.submit(**{**SPEC, "strategy": {"name": "random", "early_stopping": "halving"}}, training={"epochs": 5})


def test_a_trial_that_is_asked_to_tells_how_fast_its_network_is(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    write_marker(store, "the-store")
    (told,) = train(store, request_for(SGD, epochs=1, latency=True))
    speeds = told["result"]["metrics"]
    assert 0 < speeds["latency_ms"] <= speeds["latency_p95_ms"]
    assert speeds["latency_ms"] < speeds["latency_64_ms"] <= speeds["latency_64_p95_ms"]
    assert told["result"]["environment"]["device"]
