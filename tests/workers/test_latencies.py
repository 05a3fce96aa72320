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
from workers.orders import Failure, Order, Result
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


def test_old_latencies_neither_decide_on_the_device_nor_are_taken_over_when_the_hardware_has_changed(lab: Lab) -> None:
    found = {}
    for name, device in (("before", "old GPU"), ("after", "new GPU"), ("again", "new GPU")):
        found[name] = lab.submit(**SPEC)
        run = lab.start(lab.claim())
        lab.work(run, timed(lambda count, device=device: device))  # type: ignore[misc]
        assert lab.finish(run).status == "succeeded"
    rows = {name: lab.trials(search_id) for name, search_id in found.items()}
    assert {row.status for row in rows["before"] + rows["after"]} == {"succeeded"}
    assert {(row.environment or {})["device"] for row in rows["after"]} == {"new GPU"}
    assert all(row.latency_ms is not None for row in rows["after"] + rows["again"])
    # the third finds out by its first trial that the device is still the same, and takes the second's results over
    others = len(rows["again"]) - 1
    assert [row.status for row in rows["again"]] == ["succeeded"] + ["reused"] * others
    assert [row.reused_from for row in rows["again"][1:]] == [row.id for row in rows["after"][1:]]


def test_results_that_were_measured_on_several_devices_are_taken_over_where_they_compare(lab: Lab) -> None:
    lab.submit(**SPEC)
    run = lab.start(lab.claim())
    lab.work(run, timed(lambda count: "a GPU" if count % 2 else "another GPU"))
    lab.finish(run)
    second = lab.submit(**SPEC)
    run = lab.start(lab.claim())
    lab.work(run, timed(lambda count: "another GPU"))
    assert lab.finish(run).status == "succeeded"
    rows = lab.trials(second)
    assert [row.status == "reused" for row in rows] == [row.number % 2 == 0 for row in rows]
    assert all(row.latency_ms is not None for row in rows)


def test_one_result_that_two_searches_want_anew_is_trained_once(lab: Lab) -> None:
    for device in ("old GPU", "new GPU"):
        lab.submit(**SPEC)
        first = lab.start(lab.claim())
        if device == "old GPU":
            lab.work(first, timed(lambda count: "old GPU"))
            lab.finish(first)
    mine = first.next()
    assert isinstance(mine, Order)
    lab.submit(**SPEC)
    second = lab.start(lab.claim())
    theirs = second.next()
    assert isinstance(theirs, Order)
    assert theirs.evaluation_key != mine.evaluation_key
    first.failed(mine.trial_id, Failure("error", "no"))  # so that the other may try
    first.ledger.flush()
    answer = timed(lambda count: "new GPU")
    second.began(theirs.trial_id)
    second.succeeded(theirs.trial_id, answer(theirs))
    lab.work(second, answer)
    assert lab.finish(second).status == "succeeded"
    assert {row.status for row in lab.trials(second.ledger.search_id)} == {"succeeded"}


def test_results_with_latencies_are_of_no_use_where_none_are_asked_for(lab: Lab) -> None:
    lab.submit(**SPEC)
    run = lab.start(lab.claim())
    lab.work(run, timed(lambda count: "a GPU"))
    lab.finish(run)
    without = lab.submit(**{**SPEC, "objectives": [{"metric": "top1"}, {"metric": "macs"}]})
    run = lab.start(lab.claim())
    lab.work(run, timed(lambda count: "a GPU"))
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
