"""Searches with early stopping, on both databases: what becomes of the trials, of the rungs and of other searches."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from db import claims, evaluations, events, retention, searches, trials
from db.engine import reading, writing
from tests.workers.conftest import Lab
from tests.workers.test_budget import Clock
from workers.agenda import Next
from workers.orders import Failure, Order, Result
from workers.run import SearchRun
from workers.stopping import Stop
from workers.storage.identity import StoreIdentity
from workers.storage.store import open_store
from workers.tune import CONDUCTS, Conduct, RunStopper, take_in

EPOCHS = 9
SE = {"kind": "se", "reduction": 8}
DEARER_AND_DEARER = [{f"{stage}.1.residual": SE for stage in range(1, last + 1)} for last in (1, 2, 3)] + [
    {f"{stage}.1.residual": {"kind": "cbam", "reduction": 4} for stage in (1, 2, 3)}
]
HALVING: dict[str, Any] = {
    "space": {"modules": ["none", "se", "cbam"], "reduction": [4, 8], "pattern": ["every"]},
    "training": {"epochs": EPOCHS},
    "strategy": {"name": "random", "early_stopping": "halving"},
    "budget": {"trials": 12},
}


def _quality(order: Order) -> float:
    """No order among the architectures that cost alone would tell."""
    return 0.5 + int(order.architecture.key[:4], 16) / 2**17


def _report(order: Order, epoch: int, top1: float | None = None) -> dict[str, Any]:
    top1 = _quality(order) * (1 - 0.5**epoch) if top1 is None else top1
    return {"epoch": epoch, "train_loss": 1.0, "val_loss": 1.0 - top1, "top1": top1, "top5": 0.9, "lr": 0.1,
            "seconds": 2.0, "balanced_accuracy": top1}  # fmt: skip


def _step(run: SearchRun, order: Order, epoch: int, **more: Any) -> bool:
    """What the trial's process reports after an epoch; whether it is to go on."""
    told = {"order_id": order.trial_id, "epoch": _report(order, epoch), "checkpoint": None, "notes": [], **more}
    if epoch == order.epochs:
        top1 = told["epoch"]["top1"]
        told["result"] = {"metrics": {"top1": top1, "top5": 0.9, "loss": 1 - top1}, "epochs": epoch, "seconds": 18.0,
                          "environment": {}}  # fmt: skip
    take_in(run, told)
    return order.trial_id in run.live


def _tell(run: SearchRun, order: Order, epoch: int, top1: float) -> bool:
    """An epoch of just this accuracy; whether the trial is to go on."""
    take_in(run, {"order_id": order.trial_id, "epoch": _report(order, epoch, top1), "checkpoint": None})
    return order.trial_id in run.live


def _drive(lab: Lab, run: SearchRun, most: int = 10_000) -> None:
    """Two slots whose trials train an epoch in turn, `most` epochs in all."""
    live: dict[str, tuple[Order, int]] = {}
    while True:
        while isinstance(order := run.next(), Order):
            lab.orders.append(order)
            run.began(order.trial_id)
            live[order.trial_id] = (order, order.epochs_done)
        if not live:
            assert order is Next.DONE
            return
        for trial_id, (order, done) in list(live.items()):
            if not most:
                return
            most -= 1
            live[trial_id] = (order, done + 1)
            if not _step(run, order, done + 1):
                del live[trial_id]


def _epochs(lab: Lab, trial_id: str) -> list[int]:
    with reading(lab.engine) as session:
        return [row.epoch for row in trials.epochs(session, trial_id)]


def _until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what was told is not written"
        time.sleep(0.02)


def _stopped_and_gone_on(lab: Lab, **spec: Any) -> tuple[str, SearchRun, Order, Order]:
    """A search whose second explore trial is dominated at the first rung, and both trials' orders. Of the next two
    each costs more than all before."""
    strategy = {**HALVING["strategy"], "points": DEARER_AND_DEARER}
    search_id = lab.submit(**{**HALVING, "controls": False, "strategy": strategy, **spec})
    run = lab.start(lab.claim())
    baseline, good = run.next(), run.next()
    run.succeeded(baseline.trial_id, Result({"top1": 0.5, "top5": 0.9, "loss": 0.5}, EPOCHS, 1.0, {}))
    bad = run.next()
    for order, top1 in ((good, 0.9), (bad, 0.2)):
        run.began(order.trial_id)
        _tell(run, order, 1, top1)
    return search_id, run, good, bad


def test_a_dominated_trial_stops_at_the_first_rung_and_says_why(lab: Lab) -> None:
    search_id, run, good, bad = _stopped_and_gone_on(lab)
    assert set(run.live) == {good.trial_id}
    assert isinstance(run.next(), Order)  # its slot is free at once
    run.ledger.flush()
    row = lab.row(bad.trial_id)
    assert (row.status, row.epochs, row.epochs_planned) == ("stopped", 1, EPOCHS)
    assert row.error == {
        "kind": "stopped",
        "message": "Stopped after epoch 1 of 9: non-dominated rank 2, place 2 of 2 at rung 1, where only what no other "
        "dominates goes on.",
        "traceback": "",
    }
    assert (row.top1, row.loss, row.metrics, row.seconds) == (0.2, 0.8, {"balanced_accuracy": 0.2}, 2.0)
    assert row.finished_at is not None
    assert _epochs(lab, bad.trial_id) == [1]
    with reading(lab.engine) as session:
        assert evaluations.find(session, row.evaluation_key) is None
        told = [e.data for e in events.after(session, search_id, 0) if e.data.get("status") == "stopped"]
        state = retention.states(session, [bad.trial_id])[bad.trial_id]
    assert [data["trial_id"] for data in told] == [bad.trial_id]
    assert not state.has_result  # its checkpoint goes when those of unfinished trials do


def test_tune_is_told_to_end_what_is_stopped_and_nothing_else(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search_id, run, good, _ = _stopped_and_gone_on(lab)
    third = run.next()
    run.began(third.trial_id)
    conduct = Conduct(run, open_store(str(tmp_path)), StoreIdentity(str(tmp_path), "the-store"))
    monkeypatch.setitem(CONDUCTS, search_id, conduct)
    stopper = RunStopper(search_id)
    for order, epoch, top1, ends in ((good, 2, 0.1, False), (third, 1, 0.3, True)):
        report = _report(order, epoch, top1)
        told = {"order_id": order.trial_id, "epoch": report, "checkpoint": None, "notes": [], "done": False}
        assert stopper("tune's own id", told) is ends
    assert run.fault is None
    assert not stopper.stop_all()


def test_a_whole_search_stops_some_and_succeeds(lab: Lab) -> None:
    search_id = lab.submit(**HALVING)
    run = lab.start(lab.claim())
    _drive(lab, run)
    search = lab.finish(run)
    rows = lab.trials(search_id)
    explored = [row for row in rows if row.phase == "explore"]
    statuses = Counter(row.status for row in explored)
    assert search.status == "succeeded"
    assert len(explored) == 12  # a trial that is stopped counts for the budget
    assert statuses["stopped"] >= 3
    assert statuses["succeeded"] >= 1
    assert sum(statuses.values()) == statuses["stopped"] + statuses["succeeded"]
    assert {row.epochs for row in explored if row.status == "stopped"} <= {1, 3}
    assert {row.status for row in rows if row.phase == "controls"} == {"succeeded"}
    for row in explored:
        assert _epochs(lab, row.id) == list(range(1, row.epochs + 1))
    best = max((row for row in rows if row.status == "succeeded"), key=lambda row: row.top1)
    assert search.best_trial_id == best.id
    assert len({row.architecture_key for row in rows}) == len(rows)
    with reading(lab.engine) as session:
        assert searches.counts(session, [search_id])[search_id]["stopped"] == statuses["stopped"]


def test_controls_and_confirmations_are_trained_to_their_end_however_bad_they_are(lab: Lab) -> None:
    search_id = lab.submit(**HALVING, confirm={"top": 2, "seeds": 2})
    run = lab.start(lab.claim())
    while isinstance(order := run.next(), Order):
        run.began(order.trial_id)
        top1 = 0.9 if order.phase == "explore" else 0.01
        for epoch in range(1, EPOCHS):
            take_in(run, {"order_id": order.trial_id, "epoch": _report(order, epoch, top1), "checkpoint": None})
        if order.trial_id in run.live:
            run.succeeded(order.trial_id, Result({"top1": top1, "top5": 0.9, "loss": 0.1}, EPOCHS, 1.0, {}))
    lab.finish(run)
    rows = [row for row in lab.trials(search_id) if row.phase != "explore"]
    assert {row.phase for row in rows} == {"controls", "confirm"}
    assert {row.status for row in rows} == {"succeeded"}


@pytest.mark.parametrize("restarted", [False, True])
def test_what_an_earlier_search_has_left_to_compare_with_is_trained_to_its_end(lab: Lab, restarted: bool) -> None:
    """The first costs less than the second, the second less than the third: each is dominated when it is worse."""
    first, second, third, _ = DEARER_AND_DEARER
    strategy = {**HALVING["strategy"], "points": [first, second], "previous": [second, third]}
    search_id = lab.submit(**{**HALVING, "controls": False, "strategy": strategy, "budget": {"trials": 4}})
    run = lab.start(lab.claim())
    run.succeeded(run.next().trial_id, Result({"top1": 0.5, "top5": 0.9, "loss": 0.5}, EPOCHS, 1.0, {}))
    good, spared = run.next(), run.next()
    for order, top1 in ((good, 0.5), (spared, 0.01)):
        run.began(order.trial_id)
        assert _tell(run, order, 1, top1)
    if restarted:
        run.ledger.flush()
        with writing(lab.engine) as session:
            claims.release(session, search_id, 1, "queued", died=True)
        run = lab.start(lab.claim())
        assert [run.next().trial_id, run.next().trial_id] == [good.trial_id, spared.trial_id]
        run.began(good.trial_id)
        run.began(spared.trial_id)
    for epoch in range(2, EPOCHS):
        assert _tell(run, spared, epoch, 0.01)
    run.succeeded(spared.trial_id, Result({"top1": 0.01, "top5": 0.9, "loss": 0.9}, EPOCHS, 1.0, {}))
    other = run.next()
    run.began(other.trial_id)
    assert _tell(run, other, 1, 0.005)
    run.ledger.flush()
    rows = {row.id: row for row in lab.trials(search_id)}
    proposals = [rows[order.trial_id].proposal for order in (good, spared, other)]
    assert [proposal["by"] for proposal in proposals if proposal] == ["points", "previous", "previous"]


def test_others_are_judged_against_what_is_never_stopped(lab: Lab) -> None:
    cheap, _, _, dear = DEARER_AND_DEARER
    strategy = {**HALVING["strategy"], "points": [dear], "previous": [cheap]}
    lab.submit(**{**HALVING, "controls": False, "strategy": strategy})
    run = lab.start(lab.claim())
    run.succeeded(run.next().trial_id, Result({"top1": 0.5, "top5": 0.9, "loss": 0.5}, EPOCHS, 1.0, {}))
    judged, spared = run.next(), run.next()
    for order in (judged, spared):
        run.began(order.trial_id)
    assert _tell(run, spared, 1, 0.9)
    assert not _tell(run, judged, 1, 0.2)


@pytest.mark.parametrize("cut", [0, 21, 50])
def test_a_driver_that_dies_at_any_moment_changes_no_decision(lab: Lab, cut: int) -> None:
    """With one slot at a time nothing depends on the moment, so two lives decide as one does."""
    one_slot = {**HALVING, "resources": {"concurrent": 1}}
    whole_id = lab.submit(**one_slot)
    run = lab.start(lab.claim())
    _drive(lab, run)
    lab.finish(run)
    whole = [(row.architecture_key, row.status, row.epochs) for row in lab.trials(whole_id)]

    search_id = lab.submit(**{**one_slot, "training": {"epochs": EPOCHS, "lr": 0.05}})  # so that nothing is reused
    first = lab.start(lab.claim())
    _drive(lab, first, most=27 + cut)  # three controls come before
    first.ledger.flush()
    stopped = {row.id for row in lab.trials(search_id) if row.status == "stopped"}
    with writing(lab.engine) as session:
        claims.release(session, search_id, 1, "queued", died=True)
    lab.orders.clear()
    second = lab.start(lab.claim())
    _drive(lab, second)
    assert lab.finish(second).status == "succeeded"
    assert [(row.architecture_key, row.status, row.epochs) for row in lab.trials(search_id)] == whole
    assert not stopped & {order.trial_id for order in lab.orders}


def test_a_trial_that_has_passed_a_rung_is_not_judged_there_again_and_one_that_was_not_is(lab: Lab) -> None:
    search_id, run, good, _ = _stopped_and_gone_on(lab)
    third = run.next()
    run.began(third.trial_id)
    run.ledger.flush()
    with writing(lab.engine) as session:
        claims.release(session, search_id, 1, "queued", died=True)
    again = lab.start(lab.claim())
    assert [again.next().trial_id, again.next().trial_id] == [good.trial_id, third.trial_id]
    for order in (good, third):
        again.began(order.trial_id)
    assert _tell(again, good, 1, 0.01)  # trained from the start again and worse this time
    assert _tell(again, good, 1, 0.9)
    # epoch 1 is in its checkpoint, but the driver had died before it heard of it
    report = {"restored": [_report(third, 1, 0.01)], "epoch": _report(third, 2, 0.02), "checkpoint": None}
    take_in(again, {"order_id": third.trial_id, **report})
    again.ledger.flush()
    assert lab.row(third.trial_id).status == "stopped"
    assert _epochs(lab, third.trial_id) == [1]


def test_a_result_that_was_there_already_is_kept_whatever_its_epochs_were(lab: Lab) -> None:
    """Its process had come to the end, and the driver died before it heard of it."""
    _, run, _, _ = _stopped_and_gone_on(lab)
    order = run.next()
    run.began(order.trial_id)
    restored = [_report(order, epoch, 0.01) for epoch in range(1, EPOCHS)]
    _step(run, order, EPOCHS, restored=restored)
    run.ledger.flush()
    assert lab.row(order.trial_id).status == "succeeded"


def test_a_larger_budget_later_and_a_retry_leave_stopped_trials_stopped(lab: Lab) -> None:
    search_id, run, good, bad = _stopped_and_gone_on(lab, budget={"trials": 2})
    run.failed(good.trial_id, Failure("error", "a bug"))
    search = lab.finish(run)
    assert (search.status, search.error["message"]) == ("failed", "No explored trial came to its end: a bug")
    with writing(lab.engine) as session:
        spec = searches.get(session, search_id).spec
        searches.reopen(session, search_id, spec={**spec, "budget": {"trials": 5}}, spec_version=1, retry_failed=True)
    again = lab.start(lab.claim())
    _drive(lab, again)
    assert lab.finish(again).status == "succeeded"
    assert lab.row(bad.trial_id).status == "stopped"
    assert lab.orders[0].trial_id == good.trial_id
    assert bad.trial_id not in {order.trial_id for order in lab.orders}
    rows = [row for row in lab.trials(search_id) if row.phase == "explore"]
    assert len(rows) == len({row.architecture_key for row in rows}) == 5


@pytest.mark.parametrize("restarted", [False, True])
def test_a_trial_that_fails_later_keeps_no_other_from_going_on(lab: Lab, restarted: bool) -> None:
    search_id, run, good, _ = _stopped_and_gone_on(lab)
    run.failed(good.trial_id, Failure("nan_loss", "The loss became NaN in epoch 2."))
    if restarted:
        run.ledger.flush()
        with writing(lab.engine) as session:
            claims.release(session, search_id, 1, "queued", died=True)
        run = lab.start(lab.claim())
    third, fourth = run.next(), run.next()
    run.began(third.trial_id)
    run.began(fourth.trial_id)
    assert _tell(run, third, 1, 0.3)  # dearer than the one that failed, and worse than it was
    assert not _tell(run, fourth, 1, 0.25)


def test_a_search_that_waits_for_a_result_trains_it_when_the_other_stops_it(lab: Lab) -> None:
    points = {"name": "random", "points": DEARER_AND_DEARER}
    spec = {**HALVING, "controls": False, "budget": {"trials": 2}}
    search_id = lab.submit(**{**spec, "strategy": {**points, "early_stopping": "halving"}})
    plain_id = lab.submit(**{**spec, "strategy": points})
    run, plain = lab.start(lab.claim()), lab.start(lab.claim())
    baseline, good = run.next(), run.next()
    run.succeeded(baseline.trial_id, Result({"top1": 0.5, "top5": 0.9, "loss": 0.5}, EPOCHS, 1.0, {}))
    _until(lambda: lab.row(baseline.trial_id).status == "succeeded")
    bad = run.next()
    assert plain.next() is Next.WAIT
    for order, top1 in ((good, 0.9), (bad, 0.2)):
        run.began(order.trial_id)
        _tell(run, order, 1, top1)
    run.succeeded(good.trial_id, Result({"top1": 0.9, "top5": 0.9, "loss": 0.1}, EPOCHS, 1.0, {}))
    assert lab.finish(run).status == "succeeded"
    lab.orders.clear()
    lab.work(plain)
    assert lab.finish(plain).status == "succeeded"
    assert [order.evaluation_key for order in lab.orders] == [bad.evaluation_key]
    by_key = {row.evaluation_key: row for row in lab.trials(plain_id)}
    assert (by_key[bad.evaluation_key].status, by_key[bad.evaluation_key].epochs) == ("succeeded", EPOCHS)
    assert by_key[good.evaluation_key].status == "reused"
    assert Counter(row.status for row in lab.trials(search_id)) == {"succeeded": 2, "stopped": 1}


def test_results_taken_over_are_complete_and_never_stopped(lab: Lab) -> None:
    plain_id = lab.submit(**{**HALVING, "strategy": {"name": "random"}})
    run = lab.start(lab.claim())
    lab.work(run)
    lab.finish(run)
    search_id = lab.submit(**HALVING)
    again = lab.start(lab.claim())
    _drive(lab, again)
    assert lab.finish(again).status == "succeeded"
    assert {row.status for row in lab.trials(search_id)} == {"reused"}
    assert len(lab.trials(search_id)) == len(lab.trials(plain_id))


def test_a_trial_judged_while_the_search_pauses_is_stopped_and_stays_so(lab: Lab) -> None:
    search_id, run, good, bad = _stopped_and_gone_on(lab)
    third = run.next()
    run.began(third.trial_id)
    run.halt(Stop.PAUSE)
    assert not _tell(run, third, 1, 0.1)
    run.cancel_live()
    with writing(lab.engine) as session:
        searches.set_command(session, search_id, "pause")
    assert lab.finish(run).status == "paused"
    assert [lab.row(order.trial_id).status for order in (good, bad, third)] == ["cancelled", "stopped", "stopped"]
    with writing(lab.engine) as session:
        searches.set_command(session, search_id, "resume")
    again = lab.start(lab.claim())
    taken_up, fresh = again.next(), again.next()
    assert taken_up.trial_id == good.trial_id
    assert fresh.trial_id not in {bad.trial_id, third.trial_id}


def test_the_time_left_takes_into_account_how_long_trials_live(lab: Lab) -> None:
    clock = Clock()
    estimates = {}
    for name, rate in ((None, 0.05), ("halving", 0.06)):  # another rate, so that nothing is reused
        strategy = {"name": "random", "points": DEARER_AND_DEARER, "early_stopping": name}
        training = {"epochs": EPOCHS, "lr": rate}
        lab.submit(
            **{**HALVING, "controls": False, "strategy": strategy, "training": training, "budget": {"trials": 8}}
        )
        run = lab.start(lab.claim(), clock)
        for number in range(1 + 4):  # the baseline, then half of the budget, each dearer and worse than those before
            order = run.next()
            run.began(order.trial_id)
            top1 = 0.9 - 0.1 * number
            for epoch in range(1, EPOCHS + 1):
                if order.trial_id in run.live:
                    clock.now += 10.0
                    _tell(run, order, epoch, top1)
            if order.trial_id in run.live:
                run.succeeded(order.trial_id, Result({"top1": top1, "top5": 0.9, "loss": 0.1}, EPOCHS, 1.0, {}))
        clock.now += 2.0
        run.tick()
        run.ledger.flush()
        stopped = [row.epochs for row in lab.trials(run.ledger.search_id) if row.status == "stopped"]
        estimates[name] = (run.seconds_left, stopped)
    rounds = 4 / 2  # four more trials on two slots
    assert estimates[None] == (pytest.approx(rounds * 10.0 * EPOCHS), [])
    # one of four has gone on beyond the first rung, and the next may be another
    assert estimates["halving"] == (pytest.approx(rounds * 10.0 * (1 + 2 / 5 * (EPOCHS - 1))), [1, 1, 1])
