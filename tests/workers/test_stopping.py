"""Pause, hand-back, cancel and time-outs: what becomes of the trials, on both databases, on a clock of the test's."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from db import claims, events, searches
from db.engine import reading, writing
from db.errors import Fenced
from tests.workers.test_budget import Clock
from workers.agenda import Next
from workers.attempts import LATE_SECONDS
from workers.budget import ActiveTime
from workers.orders import Failure, Order, Result
from workers.stopping import Limits, Stop

SMALL = {"space": {"modules": ["none", "se", "cbam"], "reduction": [4, 8], "pattern": ["every"]}}
LONG = {**SMALL, "training": {"epochs": 9}, "budget": {"trials": 20}}


def _two_live(lab, clock, **spec):
    search_id = lab.submit(**{**LONG, **spec})
    run = lab.start(lab.claim(), clock, Limits(epoch=100.0, drain=20.0))
    orders = [run.next(), run.next()]
    for order in orders:
        assert isinstance(order, Order)
        run.began(order.trial_id, "node-1")
    return search_id, run, orders


def _report(run, order, epoch, saved=True):
    run.epoch(order.trial_id, epoch, {"top1": 0.1, "val_loss": 1.0}, epoch if saved else None)


@pytest.mark.parametrize(
    ("stop", "status", "words"),
    [(Stop.PAUSE, "paused", "Paused"), (Stop.HAND_BACK, "queued", "Its driver was stopped")],
)
def test_trials_end_their_epoch_and_say_where_they_go_on(lab, stop, status, words):
    clock = Clock()
    search_id, run, (one, two) = _two_live(lab, clock)
    _report(run, one, 1)
    _report(run, one, 2)
    if stop is Stop.PAUSE:
        with writing(lab.engine) as session:
            searches.set_command(session, search_id, "pause")
    assert run.halt(stop)
    assert run.next() is Next.DONE
    assert not run.must_end  # both are in the middle of an epoch
    clock.now += 5.0
    _report(run, one, 3)
    run.drained(one.trial_id)
    assert not run.must_end
    clock.now += 14.9
    assert not run.must_end
    clock.now += 0.2
    assert run.must_end  # the other one takes too long
    run.failed(two.trial_id, Failure("killed", "by us"))
    run.cancel_live()
    assert lab.finish(run).status == status
    rows = lab.trials(search_id)
    assert [row.status for row in rows] == ["cancelled"] * 2
    assert [row.error["kind"] for row in rows] == ["paused"] * 2
    assert rows[0].error["message"] == f"{words} after epoch 3: it goes on from there."
    assert rows[1].error["message"] == f"{words} before an epoch was saved: it starts again."
    assert [row.busy_seconds for row in rows] == [pytest.approx(5.0), pytest.approx(20.1)]
    assert [row.node for row in rows] == [None, None]

    if stop is Stop.PAUSE:
        with writing(lab.engine) as session:
            searches.set_command(session, search_id, "resume")
    again = lab.start(lab.claim(), clock)
    assert [again.next().trial_id, again.next().trial_id] == [one.trial_id, two.trial_id]


def test_a_pause_is_over_as_soon_as_every_trial_has_ended_its_epoch(lab):
    clock = Clock()
    _, run, (one, two) = _two_live(lab, clock)
    run.halt(Stop.PAUSE)
    for order in (one, two):
        _report(run, order, 1)
        run.drained(order.trial_id)
    assert run.must_end
    assert not run.live


def test_a_checkpoint_that_could_not_be_written_is_not_promised(lab):
    clock = Clock()
    search_id, run, (one, _) = _two_live(lab, clock)
    _report(run, one, 1)
    _report(run, one, 2, saved=False)
    run.halt(Stop.PAUSE)
    run.drained(one.trial_id)
    run.cancel_live()
    lab.finish(run)
    assert "after epoch 1:" in lab.trials(search_id)[0].error["message"]


def test_a_trial_that_finishes_while_the_search_pauses_keeps_its_result_and_a_real_failure_its_reason(lab):
    clock = Clock()
    search_id, run, (one, two) = _two_live(lab, clock)
    run.halt(Stop.PAUSE)
    run.succeeded(one.trial_id, Result({"top1": 0.7}, 9, 1.0, {}))
    run.failed(two.trial_id, Failure("nan_loss", "The loss became NaN."))
    assert run.must_end
    run.cancel_live()
    lab.finish(run)
    assert [row.status for row in lab.trials(search_id)] == ["succeeded", "failed"]


def test_cancel_does_not_wait_and_wins_over_a_pause(lab):
    clock = Clock()
    search_id, run, _ = _two_live(lab, clock)
    assert run.halt(Stop.PAUSE)
    assert not run.must_end
    assert run.halt(Stop.CANCEL)
    assert run.must_end
    assert not run.halt(Stop.PAUSE)
    assert not run.halt(Stop.HAND_BACK)
    run.cancel_live()
    assert lab.finish(run).status == "cancelled"
    errors = [row.error for row in lab.trials(search_id)]
    assert errors == [{"kind": "cancelled", "message": "The search was cancelled.", "traceback": ""}] * 2


def test_a_search_that_fails_ends_the_trials_that_still_run(lab):
    clock = Clock()
    search_id, run, (one, _) = _two_live(lab, clock)
    run.failed(one.trial_id, Failure("dataset", "train/ is gone"))
    assert run.must_end
    assert run.next() is Next.DONE
    run.cancel_live()
    search = lab.finish(run)
    rows = lab.trials(search_id)
    assert search.status == "failed"
    assert [row.status for row in rows] == ["failed", "cancelled"]
    assert "train/ is gone" in rows[1].error["message"]


def test_a_silent_trial_is_overdue_once_and_others_are_not(lab):
    clock = Clock()
    _, run, (one, two) = _two_live(lab, clock)
    overdue = []
    for second in range(int(100 + LATE_SECONDS) + 3):
        clock.now += 1.0
        if second % 50 == 0:
            _report(run, two, second // 50 + 1)
        overdue += run.tick()
    assert overdue == [one.trial_id]
    assert one.trial_id in run.overdue


def test_each_class_of_failure_has_its_own_number_of_retries(lab):
    search_id = lab.submit(**SMALL, budget={"trials": 1}, controls=False)
    run = lab.start(lab.claim())
    kinds = iter(["killed", "timeout", "killed", "storage", "timeout"])
    lab.work(run, lambda order: Failure(next(kinds), "again") if order.number == 1 else Result({"top1": 0.5}, 1, 1, {}))
    lab.finish(run)
    first = lab.trials(search_id)[0]
    assert (first.status, first.error["kind"]) == ("failed", "timeout")
    assert (first.retries, first.retried) == (4, {"killed": 2, "timeout": 1, "storage": 1})
    with reading(lab.engine) as session:
        told = [e.data["error"]["kind"] for e in events.after(session, search_id, 0) if e.kind == "trial.retried"]
    assert told == ["killed", "timeout", "killed", "storage"]


def test_a_new_driver_knows_the_retries_of_the_one_before(lab):
    search_id = lab.submit(**SMALL, budget={"trials": 1}, controls=False)
    run = lab.start(lab.claim())
    for _ in range(2):
        order = run.next()
        run.failed(order.trial_id, Failure("killed", "gone"))
    run.halt(Stop.HAND_BACK)
    run.cancel_live()
    lab.finish(run)
    again = lab.start(lab.claim())
    order = again.next()
    assert order.failures == {"killed": 2}
    again.failed(order.trial_id, Failure("killed", "gone"))
    again.ledger.flush()
    assert lab.trials(search_id)[0].status == "failed"


def test_a_long_trial_on_nodes_that_go_again_and_again_comes_to_its_end(lab):
    search_id = lab.submit(**LONG | {"budget": {"trials": 1}}, controls=False)
    run = lab.start(lab.claim())
    for epoch in range(1, 6):  # killed after every epoch, and each driver sees two of that at most
        order = run.next()
        run.began(order.trial_id)
        _report(run, order, epoch)
        if epoch % 2:
            run.failed(order.trial_id, Failure("killed", "preempted"))
        else:
            run.halt(Stop.HAND_BACK)
            run.drained(order.trial_id)
            run.cancel_live()
            lab.finish(run)
            run = lab.start(lab.claim())
    for _ in range(2):  # two more that save nothing new
        order = run.next()
        run.began(order.trial_id)
        run.failed(order.trial_id, Failure("killed", "preempted"))
    run.ledger.flush()
    (row,) = lab.trials(search_id)
    assert (row.status, row.error["kind"], row.retried) == ("failed", "killed", {"killed": 4})


def test_each_death_that_got_further_is_the_first_of_its_row(lab):
    search_id = lab.submit(**LONG | {"budget": {"trials": 1}}, controls=False)
    run = lab.start(lab.claim())
    for saved in (3, 3, 4, 2, 5, 6, 7):  # once its newest checkpoint is damaged
        order = run.next()
        run.began(order.trial_id)
        run.noted(order.trial_id, [{"kind": "trial.resumed", "epoch": saved, "message": "Resumed."}])
        run.failed(order.trial_id, Failure("killed", "preempted"))
    order = run.next()
    run.succeeded(order.trial_id, Result({"top1": 0.5}, 9, 1.0, {}))
    run.ledger.flush()
    (row,) = lab.trials(search_id)
    assert (row.status, row.retried) == ("succeeded", {"killed": 7})


@pytest.mark.parametrize("kind", ["nan_loss", "out_of_memory", "error"])
def test_a_failure_that_would_come_again_is_final(lab, kind):
    search_id = lab.submit(**SMALL, budget={"trials": 2})
    run = lab.start(lab.claim())
    lab.work(run, lambda order: Failure(kind, "no") if order.number == 2 else Result({"top1": 0.5}, 1, 1.0, {}))
    lab.finish(run)
    assert Counter(order.number for order in lab.orders)[2] == 1
    assert lab.trials(search_id)[1].retries == 0


def test_neither_a_pause_nor_a_wait_for_a_slot_takes_anything_off_the_hours_and_work_does(lab):
    clock = Clock()
    search_id = lab.submit(**LONG | {"budget": {"trials": 20, "hours": 1.0}}, controls=False)
    active = ActiveTime(clock=clock)
    run = lab.start(lab.claim(), clock, active=active)
    first = run.next()
    clock.now += 86_400.0  # another search has all slots
    run.began(first.trial_id)
    clock.now += 3000.0
    run.halt(Stop.HAND_BACK)
    run.drained(first.trial_id)
    run.cancel_live()
    run.ledger.release(run.status, active_seconds=active.seconds)
    assert lab.search(search_id).active_seconds == 3000.0

    clock.now += 86_400.0
    again = lab.start(lab.claim(), clock)
    again.set_quota(3)
    taken_up = again.next()
    assert taken_up.trial_id == first.trial_id
    clock.now += 86_400.0
    again.began(taken_up.trial_id)
    clock.now += 599.0
    assert isinstance(again.next(), Order)
    clock.now += 1.0
    assert again.next() is Next.WAIT  # the two that run may finish, no other starts


def test_every_end_of_an_attempt_counts_for_gpu_hours_also_with_the_next_driver(lab):
    clock = Clock()
    spec = {"resources": {"gpus": 1.0}, "budget": {"trials": 20, "gpu_hours": 1.0}, "controls": False}
    lab.submit(**{**LONG, **spec})
    run = lab.start(lab.claim(), clock)
    ends = [
        lambda order: run.succeeded(order.trial_id, Result({"top1": 0.5}, 9, 1.0, {})),
        lambda order: run.failed(order.trial_id, Failure("nan_loss", "NaN")),
        lambda order: run.failed(order.trial_id, Failure("killed", "gone")),
    ]
    for end in ends:
        order = run.next()
        run.began(order.trial_id)
        clock.now += 900.0
        end(order)
    order = run.next()  # the killed one again
    run.began(order.trial_id)
    run.halt(Stop.HAND_BACK)
    clock.now += 800.0
    run.drained(order.trial_id)
    run.cancel_live()
    lab.finish(run)
    again = lab.start(lab.claim(), clock)
    order = again.next()
    assert order.failures == {"killed": 1}
    again.began(order.trial_id)
    assert isinstance(again.next(), Order)  # 3,500 of 3,600 GPU seconds are spent
    clock.now += 101.0
    again.succeeded(order.trial_id, Result({"top1": 0.5}, 9, 1.0, {}))
    assert again.next() is Next.WAIT  # the one that runs may finish, no other starts


def test_a_driver_that_cannot_write_any_more_notices_although_no_trial_reports(lab):
    clock = Clock()
    search_id, run, _ = _two_live(lab, clock)
    with writing(lab.engine) as session:
        claims.release(session, search_id, 1, "queued", died=True)
    run.ledger.progress(phase="explore")
    with pytest.raises(Fenced):  # noqa: PT012 - the writing thread takes a moment
        for _ in range(100):
            clock.now += 2.0
            run.tick()
            time.sleep(0.05)
