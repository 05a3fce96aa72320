"""What trial processes report, as the run takes it in: the words are those of `workers.trial_run.TrialRun.step`."""

from __future__ import annotations

from typing import Any

import pytest

from db import artifacts, events, trials
from db.engine import reading
from workers.orders import Order
from workers.stopping import Stop
from workers.tune import take_in

LONG = {
    "space": {"modules": ["none", "se", "cbam"], "reduction": [4, 8], "pattern": ["every"]},
    "training": {"epochs": 3},
    "budget": {"trials": 3},
}
RESULT = {"metrics": {"top1": 0.6, "top5": 0.9, "loss": 0.4}, "epochs": 3, "seconds": 3.0, "environment": {}}
WEIGHTS = {"path": "searches/s/t/weights.safetensors", "bytes": 1234, "sha256": "a" * 64}


def _epoch(number: int) -> dict[str, Any]:
    return {"epoch": number, "train_loss": 1.0, "val_loss": 0.5, "top1": 0.1 * number, "top5": 0.5, "lr": 0.1,
            "seconds": 1.0}  # fmt: skip


def _running(lab):
    search_id = lab.submit(**LONG)
    run = lab.start(lab.claim())
    order = run.next()
    assert isinstance(order, Order)
    run.began(order.trial_id)
    return search_id, run, order


def _told(lab, search_id, kind):
    with reading(lab.engine) as session:
        return [event.data for event in events.after(session, search_id, 0) if event.kind == kind]


def test_a_trial_that_was_resumed_tells_the_epochs_and_the_reasons_that_nobody_knows_yet(lab):
    search_id, run, order = _running(lab)
    notes = [
        {"kind": "checkpoint.corrupt", "message": "epoch-000002: cut short", "epoch": 1},
        {"kind": "trial.resumed", "message": "The trial goes on from epoch 1.", "epoch": 1},
    ]
    report = {"restored": [_epoch(1)], "epoch": _epoch(2), "checkpoint": {"epoch": 2, "bytes": 9}, "notes": notes}
    take_in(run, {"order_id": order.trial_id, "done": False, **report})
    run.ledger.flush()
    with reading(lab.engine) as session:
        assert [row.epoch for row in trials.epochs(session, order.trial_id)] == [1, 2]
    for note in notes:
        assert _told(lab, search_id, note["kind"]) == [{**note, "trial_id": order.trial_id}]


def test_weights_become_an_artifact_of_their_trial(lab):
    search_id, run, order = _running(lab)
    last = {"epoch": _epoch(3), "checkpoint": None, "notes": [], "result": RESULT, "weights": WEIGHTS}
    take_in(run, {"order_id": order.trial_id, "done": True, **last})
    take_in(run, {"order_id": order.trial_id, "done": True, **last})  # too late: it has ended
    run.ledger.flush()
    assert lab.trials(search_id)[0].status == "succeeded"
    with reading(lab.engine) as session:
        (kept,) = artifacts.of_trial(session, order.trial_id)
    assert (kept.kind, kept.path, kept.bytes, kept.sha256) == ("weights", *WEIGHTS.values())


def test_a_report_while_the_search_pauses_ends_the_trial_at_its_last_checkpoint(lab):
    search_id, run, order = _running(lab)
    run.halt(Stop.PAUSE)
    report = {"epoch": _epoch(1), "checkpoint": {"epoch": 1, "bytes": 9}, "notes": []}
    take_in(run, {"order_id": order.trial_id, "done": True, **report})
    assert run.must_end
    run.ledger.flush()
    assert "after epoch 1" in lab.trials(search_id)[0].error["message"]


@pytest.mark.parametrize("stopping", [False, True])
def test_a_failure_is_taken_in_also_while_the_search_pauses(lab, stopping):
    search_id, run, order = _running(lab)
    if stopping:
        run.halt(Stop.PAUSE)
    failure = {"kind": "nan_loss", "message": "The loss became NaN in epoch 2.", "traceback": "…"}
    take_in(run, {"order_id": order.trial_id, "done": True, "failure": failure})
    run.ledger.flush()
    row = lab.trials(search_id)[0]
    assert (row.status, row.error) == ("failed", failure)
