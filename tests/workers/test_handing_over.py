"""A search whose share becomes smaller gives slots up at the ends of epochs, not of trials."""

from __future__ import annotations

import time
from typing import Any

from tests.workers.conftest import Lab, accuracy
from workers.orders import Order, Result
from workers.run import SearchRun
from workers.tune import take_in


def report(order: Order, epoch: int, saved: bool = True) -> dict[str, Any]:
    numbers = {"epoch": epoch, "train_loss": 1.0, "val_loss": 1.0, "top1": 0.5, "top5": 0.9, "lr": 0.1, "seconds": 1.0}
    return {"order_id": order.trial_id, "epoch": numbers, "checkpoint": {"epoch": epoch, "bytes": 9} if saved else None}


def started(run: SearchRun) -> Order:
    order = run.next()
    assert isinstance(order, Order)
    run.began(order.trial_id, "a node")
    return order


def test_a_slot_goes_at_the_end_of_an_epoch_and_the_trial_goes_on_later(lab: Lab) -> None:
    search_id = lab.submit(training={"epochs": 5}, budget={"trials": 4})
    run = lab.start(lab.claim())
    first, second = started(run), started(run)
    take_in(run, report(first, 1))
    assert set(run.live) == {first.trial_id, second.trial_id}
    run.set_quota(1)
    take_in(run, report(second, 1, saved=False))
    assert second.trial_id in run.live, "its work would be lost"
    take_in(run, report(first, 2))
    assert set(run.live) == {second.trial_id}
    take_in(run, report(second, 2))
    assert set(run.live) == {second.trial_id}, "the share is kept to"
    deadline = time.monotonic() + 20
    while (row := next(row for row in lab.trials(search_id) if row.id == first.trial_id)).node is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert row.status == "running"
    run.set_quota(2)
    again = started(run)
    assert (again.trial_id, again.epochs_done, again.retries) == (first.trial_id, 2, 0)
    for order in (again, second):
        result = accuracy(order)
        assert isinstance(result, Result)
        run.succeeded(order.trial_id, result)
    lab.work(run)
    assert lab.finish(run).status == "succeeded"
    assert {row.status for row in lab.trials(search_id)} == {"succeeded"}
