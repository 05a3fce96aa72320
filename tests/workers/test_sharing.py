"""Searches at the same moment that want the same results, on both databases: each result is trained once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from db import claims, evaluations, searches
from db.engine import reading, retrying, writing
from workers.agenda import Next
from workers.orders import Failure, Order, Result
from workers.run import SearchRun
from workers.stopping import Stop

SMALL = {"space": {"modules": ["none", "se", "cbam"], "reduction": [4, 8], "pattern": ["every"]}}


def _result(order: Order) -> Result:
    metrics = {"top1": 0.5 + 0.01 * len(order.architecture.placements), "top5": 0.9, "loss": 1.0}
    return Result(metrics, order.epochs, 1.0, {})


def _drive(run: SearchRun, trained: list[str], lock: threading.Lock) -> None:
    """What a driver does, with two trials at a time that take a moment."""
    live: list[Order] = []
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        order = run.next()
        if order is Next.DONE:
            return
        if isinstance(order, Order):
            with lock:
                trained.append(order.evaluation_key)
            live.append(order)
            continue
        if live:
            time.sleep(0.01)
            done = live.pop(0)
            run.succeeded(done.trial_id, _result(done))
        else:
            time.sleep(0.05)
    raise TimeoutError("a search waits for ever")


def test_searches_that_run_at_once_train_each_result_once(lab):
    ids = [lab.submit(**SMALL, budget={"trials": 10}, strategy={"name": "random"}) for _ in range(3)]
    runs = [lab.start(lab.claim()) for _ in ids]
    trained: list[str] = []
    lock = threading.Lock()
    with ThreadPoolExecutor(len(runs)) as pool:
        for future in [pool.submit(_drive, run, trained, lock) for run in runs]:
            future.result(timeout=150)
    for run in runs:
        assert lab.finish(run).status == "succeeded"
    assert max(Counter(trained).values()) == 1
    keys = [{row.architecture_key for row in lab.trials(search_id)} for search_id in ids]
    assert keys[0] == keys[1] == keys[2]  # one seed: all three asked for the same
    statuses = Counter(row.status for search_id in ids for row in lab.trials(search_id))
    assert statuses == {"succeeded": 13, "reused": 26}
    assert len(trained) == 13


def _waiting_pair(lab, **spec):
    """A search that trains the baseline, and one that has nothing to do but wait for it."""
    for _ in range(2):
        lab.submit(**SMALL, budget={"trials": 1}, controls=False, **spec)
    first, second = lab.start(lab.claim()), lab.start(lab.claim())
    wanted = first.next()
    first.began(wanted.trial_id)
    own = second.next()
    while isinstance(own, Order):
        second.succeeded(own.trial_id, _result(own))
        own = second.next()
    assert own is Next.WAIT
    assert not second.live
    return first, second, wanted


def _next_soon(run: SearchRun, seconds: float = 10.0) -> Order:
    deadline = time.monotonic() + seconds
    while (order := run.next()) is Next.WAIT:
        assert time.monotonic() < deadline, "the search waits for ever"
        time.sleep(0.05)
    assert isinstance(order, Order)
    return order


@pytest.mark.parametrize("stop", [Stop.CANCEL, Stop.PAUSE, Stop.HAND_BACK])
def test_the_end_of_the_other_search_lets_the_waiting_one_train(lab, stop):
    first, second, wanted = _waiting_pair(lab)
    first.halt(stop)
    first.cancel_live()
    lab.finish(first)
    order = _next_soon(second)
    assert order.evaluation_key == wanted.evaluation_key
    second.succeeded(order.trial_id, _result(order))
    lab.work(second)
    assert lab.finish(second).status == "succeeded"


def test_a_failure_of_the_other_search_lets_the_waiting_one_try(lab):
    first, second, wanted = _waiting_pair(lab)
    first.failed(wanted.trial_id, Failure("error", "a bug"))
    assert _next_soon(second).evaluation_key == wanted.evaluation_key


def test_a_retry_keeps_the_claim(lab):
    first, second, wanted = _waiting_pair(lab)
    first.failed(wanted.trial_id, Failure("killed", "gone"))
    first.ledger.flush()
    time.sleep(0.6)
    assert second.next() is Next.WAIT


def test_a_search_that_died_gives_its_claims_up_after_their_lease_and_keeps_them_when_taken_over(lab):
    first, second, wanted = _waiting_pair(lab)
    search_id = first.ledger.search_id
    with writing(lab.engine) as session:
        claims.release(session, search_id, 1, "queued", died=True)
        evaluations.claim(
            session, wanted.evaluation_key, search_id=search_id, lease_seconds=1.0,
            architecture_key=wanted.architecture.key, dataset_fingerprint="f", conditions={}, epochs=1, seed=0,
        )  # fmt: skip
    time.sleep(0.6)
    assert second.next() is Next.WAIT  # nobody knows yet that it has died
    order = _next_soon(second)
    assert order.evaluation_key == wanted.evaluation_key
    second.succeeded(order.trial_id, _result(order))
    second.ledger.flush()
    heir = lab.start(lab.claim())
    lab.work(heir)
    assert lab.finish(heir).status == "succeeded"
    row = next(r for r in lab.trials(search_id) if r.evaluation_key == wanted.evaluation_key)
    assert row.status == "reused"


def test_a_waiting_search_hears_of_the_result(lab):
    first, second, wanted = _waiting_pair(lab)
    first.succeeded(wanted.trial_id, _result(wanted))
    first.ledger.flush()
    deadline = time.monotonic() + 10
    while second.next() is not Next.DONE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    lab.finish(second)
    rows = lab.trials(second.ledger.search_id)
    assert next(r for r in rows if r.evaluation_key == wanted.evaluation_key).reused_from == wanted.trial_id


def test_a_heartbeat_keeps_claims_alive(lab):
    first, second, _ = _waiting_pair(lab)
    search_id = first.ledger.search_id
    retrying(lab.engine, lambda s: evaluations.renew(s, search_id, 0.0))  # as good as run out
    assert first.ledger.heartbeat(60.0, active_seconds=1.0) is not None
    time.sleep(0.6)
    assert second.next() is Next.WAIT
    with reading(lab.engine) as session:
        assert searches.get(session, search_id).active_seconds == 1.0
