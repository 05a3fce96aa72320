"""How trials and searches end otherwise than with results: failures, deaths of drivers, commands; on both databases."""

from __future__ import annotations

from collections import Counter

import pytest

from db import claims, evaluations, events, searches
from db.engine import reading, writing
from tests.workers.test_run import SMALL
from workers.agenda import Next
from workers.orders import Failure, Order, Result
from workers.stopping import Stop


def test_a_trial_without_a_number_fails_with_its_reason_and_the_search_goes_on(lab):
    def answer(order: Order) -> Result | Failure:
        if order.number == 4:
            return Failure("nan_loss", "The loss became NaN in epoch 2.")
        return Result({"top1": 0.5, "top5": 0.9, "loss": 1.0}, order.epochs, 1.0, {})

    search_id = lab.submit(**SMALL, budget={"trials": 5})
    run = lab.start(lab.claim())
    lab.work(run, answer)
    search = lab.finish(run)
    failed = [row for row in lab.trials(search_id) if row.status == "failed"]
    assert [row.number for row in failed] == [4]
    assert failed[0].error["kind"] == "nan_loss"
    assert failed[0].top1 is None
    assert search.status == "succeeded"
    with reading(lab.engine) as session:
        assert evaluations.find(session, failed[0].evaluation_key) is None


def test_a_killed_trial_is_started_again_up_to_the_limit(lab):
    search_id = lab.submit(**SMALL, budget={"trials": 2})
    run = lab.start(lab.claim())
    lab.work(run, lambda order: Failure("killed", "gone") if order.number == 1 else lab_result())
    search = lab.finish(run)
    first = lab.trials(search_id)[0]
    assert sum(order.number == 1 for order in lab.orders) == 3
    assert (first.status, first.retries, first.error["kind"]) == ("failed", 2, "killed")
    assert search.status == "succeeded"


def test_a_search_in_which_everything_fails_fails_early_with_the_reason(lab):
    search_id = lab.submit(**SMALL, budget={"trials": 50})
    run = lab.start(lab.claim())
    lab.work(run, lambda order: Failure("error", "CUDA driver too old"))
    search = lab.finish(run)
    assert search.status == "failed"
    assert "CUDA driver too old" in search.error["message"]
    assert len(lab.trials(search_id)) == 5


def test_a_missing_data_set_fails_the_search_once(lab):
    search_id = lab.submit(**SMALL, budget={"trials": 50})
    run = lab.start(lab.claim())
    lab.work(run, lambda order: Failure("dataset", "tiny: train/ is gone"))
    search = lab.finish(run)
    assert search.status == "failed"
    assert "train/ is gone" in search.error["message"]
    assert len(lab.trials(search_id)) == 1


def test_a_search_that_ends_leaves_no_trial_running(lab):
    search_id = lab.submit(**SMALL, budget={"trials": 20})
    run = lab.start(lab.claim())
    lab.work(run, most=3)
    assert isinstance(run.next(), Order)
    run.ledger.flush()
    with writing(lab.engine) as session:
        assert claims.release(session, search_id, 1, "queued", died=True)
        searches.set_command(session, search_id, "cancel")
    rows = lab.trials(search_id)
    assert lab.search(search_id).status == "cancelled"
    assert Counter(row.status for row in rows) == {"succeeded": 3, "cancelled": 1}
    assert rows[-1].finished_at is not None


def test_pauses_and_hand_backs_are_no_deaths_and_progress_forgives_them(lab):
    search_id = lab.submit(**SMALL, budget={"trials": 20})
    deaths = []
    for status, died in (("queued", False), ("queued", True), ("queued", True), ("queued", False)):
        search = lab.claim()
        deaths.append(search.deaths)
        with writing(lab.engine) as session:
            claims.release(session, search_id, search.attempt, status, died=died)
    run = lab.start(lab.claim())
    lab.work(run, most=2)
    run.ledger.flush()
    assert deaths == [0, 0, 1, 2]
    assert lab.search(search_id).deaths == 0


def test_cancel_keeps_results_and_marks_what_was_running(lab):
    search_id = lab.submit(**SMALL, budget={"trials": 20})
    run = lab.start(lab.claim())
    lab.work(run, most=4)
    assert isinstance(run.next(), Order)
    run.halt(Stop.CANCEL)
    assert run.next() is Next.DONE
    run.cancel_live()
    search = lab.finish(run)
    assert search.status == "cancelled"
    assert Counter(row.status for row in lab.trials(search_id)) == {"succeeded": 4, "cancelled": 1}


def test_a_stopped_search_leaves_no_trial_running_that_waited_to_be_started_again(lab):
    search_id = lab.submit(**SMALL, budget={"trials": 20})
    run = lab.start(lab.claim())
    killed, live = run.next(), run.next()
    assert isinstance(killed, Order)
    assert isinstance(live, Order)
    run.failed(killed.trial_id, Failure("killed", "gone"))
    run.halt(Stop.CANCEL)
    run.cancel_live()
    assert lab.finish(run).status == "cancelled"
    assert [row.status for row in lab.trials(search_id)] == ["cancelled", "cancelled"]


def test_a_result_that_is_not_finite_is_a_failure_and_loses_no_other(lab):
    search_id = lab.submit(**SMALL, budget={"trials": 1})
    run = lab.start(lab.claim())
    order = run.next()
    run.ledger.epoch(order.trial_id, 1, {"val_loss": float("nan"), "top1": 0.1})
    run.succeeded(order.trial_id, Result({"top1": 0.5, "test_loss": float("inf")}, 1, 1.0, {}))
    lab.work(run, lambda order: Failure("error", "a \x00 and a \ud800") if order.number == 2 else lab_result())
    assert lab.finish(run).status == "succeeded"
    rows = lab.trials(search_id)
    assert [row.status for row in rows] == ["failed", "failed", "succeeded", "succeeded"]
    assert rows[0].error["kind"] == "nan_loss"
    assert rows[0].top1 is None


def test_a_write_that_is_refused_ends_the_run_instead_of_losing_results(lab):
    lab.submit(**SMALL, budget={"trials": 1})
    run = lab.start(lab.claim())
    order = run.next()
    with pytest.raises(ValueError, match="does not fit"):  # noqa: PT012 - the writing thread may notice before or after
        run.succeeded(order.trial_id, Result({"top1": 0.5}, 2**70, 1.0, {}))
        run.ledger.release("succeeded")


def test_a_restart_tells_no_earlier_hypervolume_again_and_keeps_the_reason_of_failures(lab):
    search_id = lab.submit(**SMALL, budget={"trials": 4})
    run = lab.start(lab.claim())
    lab.work(run, lambda order: lab_result() if order.phase == "controls" else Failure("error", "a bug"))
    run.ledger.flush()
    with writing(lab.engine) as session:
        claims.release(session, search_id, 1, "queued")
        before = events.last_seq(session, search_id)
    again = lab.start(lab.claim())
    lab.work(again)
    assert "a bug" in lab.finish(again).error["message"]
    with reading(lab.engine) as session:
        told = [event.kind for event in events.after(session, search_id, before)]
    assert told == ["search.status", "search.status"]


def lab_result() -> Result:
    return Result({"top1": 0.5, "top5": 0.9, "loss": 1.0}, 1, 1.0, {})


def _die(lab, run, search_id):
    """The driver is killed; the next one claims the search."""
    run.ledger.flush()
    attempt = lab.search(search_id).attempt
    with writing(lab.engine) as session:
        assert claims.release(session, search_id, attempt, "queued", died=True)
    return lab.start(lab.claim())


def test_deaths_with_new_checkpoints_in_between_are_no_reason_to_give_a_search_up(lab):
    search_id = lab.submit(**SMALL, budget={"trials": 1}, training={"epochs": 9})
    run = lab.start(lab.claim())
    for epoch in range(1, 4):  # each driver brings the first trial one epoch further
        order = run.next()
        run.began(order.trial_id)
        assert order.epochs_done == epoch - 1
        run.epoch(order.trial_id, epoch, {"top1": 0.5}, saved=epoch)
        run = _die(lab, run, search_id)
        assert lab.search(search_id).deaths == 1


@pytest.mark.parametrize("saved", [None, 1])
def test_drivers_that_get_no_further_than_the_last_one_die_for_nothing(lab, saved):
    search_id = lab.submit(**SMALL, budget={"trials": 1}, training={"epochs": 9})
    run = lab.start(lab.claim())
    for deaths in range(4):
        order = run.next()
        run.began(order.trial_id)
        run.epoch(order.trial_id, 1, {"top1": 0.5}, saved=saved)  # from the start: its checkpoints are of no use
        run = _die(lab, run, search_id)
        # with a checkpoint, the first epoch ever is progress, and the same one again is none
        assert lab.search(search_id).deaths == deaths + 1
