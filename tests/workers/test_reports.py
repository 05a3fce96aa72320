"""What plug-ins put into reports: it fails their trial or is cleaned, and the driver goes on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from db import events, trials
from db.engine import reading
from workers.orders import Order
from workers.reports import ReportError, checked, clean_note
from workers.tune import take_in

SPEC = {"space": {"modules": ["none", "se"], "reduction": [4], "pattern": ["every"]}, "budget": {"trials": 2},
        "training": {"epochs": 3}, "controls": False}  # fmt: skip
EPOCH = {"epoch": 1, "train_loss": 1.0, "val_loss": 0.5, "top1": 0.5, "top5": 0.9, "lr": 0.1, "seconds": 1.0}
RESULT = {"metrics": {"top1": 0.6, "top5": 0.9, "loss": 0.4}, "epochs": 3, "seconds": 3.0, "environment": {}}


class Strange:
    def __repr__(self) -> str:
        return "strange \x00 \ud800"


DEEP: Any = []
for _ in range(100):
    DEEP = [DEEP]

BAD: dict[str, dict[str, Any]] = {
    "metric of words": {"result": {**RESULT, "metrics": {"top1": "high"}}},
    "metric that is an object": {"result": {**RESULT, "metrics": {"top1": 0.5, "mine": Strange()}}},
    "metric that is true": {"result": {**RESULT, "metrics": {"top1": True}}},
    "several numbers in one": {"result": {**RESULT, "metrics": {"top1": torch.tensor([0.1, 0.2])}}},
    "name with NUL": {"result": {**RESULT, "metrics": {"top1": 0.5, "a\x00b": 1.0}}},
    "name that is no text": {"result": {**RESULT, "metrics": {"top1": 0.5, 7: 1.0}}},
    "over-long name": {"result": {**RESULT, "metrics": {"top1": 0.5, "x" * 5000: 1.0}}},
    "no metrics": {"result": {**RESULT, "metrics": None}},
    "environment that is an object": {"result": {**RESULT, "environment": {"gpu": Strange()}}},
    "integer of 64 bits": {"result": {**RESULT, "environment": {"serial": 2**63}}},
    "environment without a bottom": {"result": {**RESULT, "environment": {"a": DEEP}}},
    "epoch of words": {"epoch": {**EPOCH, "top1": "0.5"}},
    "epoch zero": {"epoch": {**EPOCH, "epoch": 0}},
    "epoch of 40 bits": {"epoch": {**EPOCH, "epoch": 2**40}},
    "half an epoch": {"epoch": {**EPOCH, "epoch": 1.5}},
    "checkpoint of words": {"epoch": EPOCH, "checkpoint": {"epoch": "one", "bytes": 1}},
    "notes that are words": {"epoch": EPOCH, "notes": "hello"},
}


def _running(lab):
    search_id = lab.submit(**SPEC)
    run = lab.start(lab.claim())
    order = run.next()
    assert isinstance(order, Order)
    run.began(order.trial_id)
    return search_id, run, order


@pytest.mark.parametrize("what", BAD)
def test_a_report_that_cannot_be_kept_is_refused_with_what_is_wrong(what):
    with pytest.raises(ReportError) as refused:
        checked({"order_id": "a", **BAD[what]})
    str(refused.value).encode("utf-8")
    assert "\x00" not in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("what", ["metric of words", "metric that is an object", "name with NUL", "epoch of 40 bits"])
def test_such_a_report_fails_its_trial_and_the_search_goes_on(lab, what):
    search_id, run, order = _running(lab)
    take_in(run, {"order_id": order.trial_id, "done": "result" in BAD[what], "notes": [], **BAD[what]})
    lab.work(run)
    search = lab.finish(run)
    failed, *others = lab.trials(search_id)
    assert (failed.status, failed.error["kind"]) == ("failed", "error")
    assert "cannot be kept" in failed.error["message"]
    assert {row.status for row in others} == {"succeeded"}
    assert search.status == "succeeded"


def test_scalars_of_numpy_and_torch_are_numbers(lab):
    search_id, run, order = _running(lab)
    metrics = {"top1": torch.tensor(0.5), "top5": np.float32(0.75), "loss": np.float64(0.25), "hits": np.int64(3)}
    epoch = {**EPOCH, "epoch": np.int64(1), "top1": torch.tensor(0.5)}
    report = {"epoch": epoch, "checkpoint": {"epoch": np.int64(1), "bytes": 9}, "notes": []}
    take_in(run, {"order_id": order.trial_id, "done": False, **report})
    result = {**RESULT, "metrics": metrics, "environment": {"memory": np.int64(5), "share": math.inf}}
    take_in(run, {"order_id": order.trial_id, "done": True, "result": result, "notes": []})
    run.ledger.flush()
    (row,) = lab.trials(search_id)
    assert (row.status, row.top1, row.top5, row.loss, row.metrics["hits"]) == ("succeeded", 0.5, 0.75, 0.25, 3.0)
    assert row.environment == {"memory": 5, "share": None}
    with reading(lab.engine) as session:
        assert trials.epochs(session, order.trial_id)[0].top1 == 0.5


def test_a_result_that_is_not_finite_is_still_a_diverged_one(lab):
    search_id, run, order = _running(lab)
    result = {**RESULT, "metrics": {"top1": torch.tensor(math.nan)}}
    take_in(run, {"order_id": order.trial_id, "done": True, "result": result, "notes": []})
    run.ledger.flush()
    assert lab.trials(search_id)[0].error["kind"] == "nan_loss"


def test_notes_are_kept_in_words_that_a_database_takes(lab):
    search_id, run, order = _running(lab)
    notes = [
        {
            "kind": "checkpoint.failed",
            "message": "disk\x00 full \ud800" + "!" * 9000,
            "state": Strange(),
            "nan": math.nan,
        },
        {"kind": "x" * 300, "message": 5, "deep": DEEP, ("a", 1): 2**70},
    ]
    take_in(run, {"order_id": order.trial_id, "done": False, "notes": notes})
    run.ledger.flush()
    with reading(lab.engine) as session:
        told = {event.kind: event.data for event in events.after(session, search_id, 0)}
    failed = told["checkpoint.failed"]
    assert failed["message"].startswith("disk\ufffd full ?!!!")
    assert len(failed["message"]) == 500
    assert (failed["state"], failed["nan"]) == ("strange \ufffd ?", None)
    assert told["trial.note"]["trial_id"] == order.trial_id
    assert told["trial.note"]["message"] == "5"


def test_a_note_without_words_is_a_note():
    assert clean_note({}) == {"kind": "trial.note", "message": ""}
