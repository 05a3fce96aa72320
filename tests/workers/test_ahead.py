"""Rows of short trials are written before their slots are free."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from structlog.testing import capture_logs

from db.errors import Fenced
from workers.agenda import Next
from workers.ahead import wanted
from workers.orders import Failure, Order, Result
from workers.run import SearchRun
from workers.stopping import Stop

SPEC = {"controls": False, "budget": {"trials": 20}, "strategy": {"name": "random", "seed": 3}}


@pytest.mark.parametrize(
    ("slots", "seconds", "trials"),
    [(2, None, 0), (2, 3600.0, 0), (2, 5.1, 0), (2, 5.0, 2), (8, 1.0, 8), (2, 0.05, 4), (1, 0.05, 2)],
)
def test_only_short_trials_are_prepared(slots, seconds, trials):
    assert wanted(slots, seconds) == trials


class Clock:
    """Moves when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def begun(run: SearchRun) -> Order:
    order = run.next()
    assert isinstance(order, Order)
    run.began(order.trial_id)
    return order


def filled(lab, spec, seconds=0.5):
    """A run on two slots that knows how long a trial takes, with both slots busy."""
    clock = Clock()
    search_id = lab.submit(**spec)
    run = lab.start(lab.claim(), clock)
    first = begun(run)
    clock.now += seconds
    run.succeeded(first.trial_id, Result({"top1": 0.5, "top5": 0.9, "loss": 0.5}, first.epochs, seconds, {}))
    return search_id, run, [begun(run), begun(run)]


def eventually(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def succeed(run: SearchRun, order: Order) -> None:
    top1 = 0.5 + 0.01 * order.number
    run.succeeded(order.trial_id, Result({"top1": top1, "top5": 0.99, "loss": 0.5}, order.epochs, 0.5, {}))


def test_the_next_rows_are_there_before_a_slot_is_free_and_are_handed_out_in_order(lab):
    search_id, run, busy = filled(lab, SPEC)
    for _ in range(5):
        run.prepare()  # as often as one likes
    eventually(lambda: len(lab.trials(search_id)) == 1 + 2 + 2)
    assert run.next() is Next.WAIT, "prepared or not, the share is two trials at once"
    prepared = lab.trials(search_id)[3:]
    for order, row in zip(busy, prepared, strict=True):
        succeed(run, order)
        following = begun(run)
        assert (following.trial_id, following.number, following.architecture.key) == (
            row.id, row.number, row.architecture_key,
        )  # fmt: skip


def drive(run: SearchRun, busy: list[Order], *, prepares: bool) -> None:
    """Keeps two slots busy to the end."""
    while True:
        order = run.next() if len(busy) < 2 else Next.WAIT
        if isinstance(order, Order):
            run.began(order.trial_id)
            busy.append(order)
        elif busy:
            if prepares:
                run.prepare()
            succeed(run, busy.pop(0))
        elif order is Next.DONE:
            return
        else:
            time.sleep(0.02)


def test_what_is_trained_does_not_depend_on_preparation(lab):
    keys = []
    for seed, prepares in ((0, False), (1, True)):  # another rate, or the second would take over the first's results
        search_id, run, busy = filled(lab, SPEC | {"training": {"lr": 0.1 + seed / 100}})
        drive(run, busy, prepares=prepares)
        assert lab.finish(run).status == "succeeded"
        keys.append([row.architecture_key for row in lab.trials(search_id)])
    assert keys[0] == keys[1]
    assert len(keys[0]) == 21


def test_a_strategy_that_learns_waits_for_results(lab):
    search_id, run, _ = filled(lab, SPEC | {"strategy": {"name": "nsga2", "seed": 3}})
    run.prepare()
    run.ledger.flush()
    assert len(lab.trials(search_id)) == 3


def test_long_trials_have_no_row_before_they_start(lab):
    search_id, run, _ = filled(lab, SPEC, seconds=60.0)
    run.prepare()
    run.ledger.flush()
    assert len(lab.trials(search_id)) == 3


@pytest.mark.parametrize("stop", [Stop.CANCEL, Stop.PAUSE])
def test_prepared_trials_of_a_stopped_search_are_not_running(lab, stop):
    search_id, run, _ = filled(lab, SPEC)
    run.prepare()
    run.halt(stop)
    run.cancel_live()
    lab.finish(run)
    rows = lab.trials(search_id)
    assert len(rows) == 5
    assert {row.status for row in rows[1:]} == {"cancelled"}


def test_what_is_to_be_started_again_goes_before_what_is_prepared(lab):
    _, run, busy = filled(lab, SPEC)
    run.prepare()
    run.failed(busy[0].trial_id, Failure("killed", "The process died."))
    assert begun(run).trial_id == busy[0].trial_id


@pytest.mark.parametrize(("epochs", "rows"), [(1, 6), (300, 4)])
def test_confirmations_are_prepared_where_they_are_short_too(lab, epochs, rows):
    confirm = {"top": 1, "seeds": 2, "baseline_seeds": 2, "epochs": epochs}
    clock = Clock()
    search_id = lab.submit(**SPEC | {"budget": {"trials": 1}, "training": {"epochs": 1}, "confirm": confirm})
    run = lab.start(lab.claim(), clock)
    for _ in range(2):
        order = begun(run)
        clock.now += 0.5
        succeed(run, order)
    assert [begun(run).phase, begun(run).phase] == ["confirm", "confirm"]
    run.prepare()
    run.ledger.flush()
    assert len(lab.trials(search_id)) == rows


def test_what_was_prepared_is_not_started_when_the_budget_is_spent(lab):
    clock = Clock()
    search_id = lab.submit(**SPEC | {"budget": {"trials": 20, "hours": 1.0}})
    run = lab.start(lab.claim(), clock)
    first = begun(run)
    clock.now += 0.5
    succeed(run, first)
    busy = [begun(run), begun(run)]
    run.prepare()
    clock.now += 3600.0
    for order in busy:
        succeed(run, order)
    assert run.next() is Next.DONE
    lab.finish(run)
    assert [row.status for row in lab.trials(search_id)] == ["succeeded"] * 3 + ["cancelled"] * 2


def test_a_trial_starts_when_its_process_does_not_when_its_row_is_written(lab):
    search_id, run, busy = filled(lab, SPEC)
    run.prepare()
    eventually(lambda: len(lab.trials(search_id)) == 5)
    written = lab.trials(search_id)[3].started_at
    time.sleep(0.05)
    succeed(run, busy[0])
    order = run.next()
    run.began(order.trial_id, "node")
    run.ledger.flush()
    assert lab.row(order.trial_id).started_at > written


def test_two_searches_that_prepare_the_same_evaluations_in_another_order_do_not_wait_for_each_other(lab):
    """On PostgreSQL a claim waits for whoever has the row: a group of claims would lock out a group of the others."""
    runs = []
    for _ in range(2):
        lab.submit(**SPEC)
        runs.append(lab.start(lab.claim()))
    orders = []
    while isinstance(order := runs[0]._agenda.fresh(0), Order) and len(orders) < 12:
        orders.append(order)
    started = threading.Barrier(2)

    def prepare(run: SearchRun, mine: list[Order]) -> list[str]:
        rows = [(order, *run._row_of(order)) for order in mine]
        started.wait()
        return [future.result(30)[1].outcome for future in [run.ledger.start_ahead(*row) for row in rows]]

    with capture_logs() as logs, ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(prepare, runs, (orders, orders[::-1])))
    assert sorted(outcomes[0] + outcomes[1]) == ["busy"] * 12 + ["mine"] * 12
    assert logs == []


def test_the_next_driver_starts_what_a_dead_one_had_prepared(lab):
    search_id, run, _ = filled(lab, SPEC)
    run.prepare()
    eventually(lambda: len(lab.trials(search_id)) == 5)
    again = lab.start_again(run)
    lab.work(again)
    assert [order.number for order in lab.orders[:4]] == [2, 3, 4, 5]
    assert len(lab.trials(search_id)) == 21
    assert len({row.architecture_key for row in lab.trials(search_id)}) == 21


def test_a_driver_that_has_lost_its_search_does_not_wait_for_rows(lab):
    _, run, busy = filled(lab, SPEC)

    def go_on() -> None:
        for _ in range(100):
            run.prepare()
            succeed(run, busy[0])
            busy[:] = [*busy[1:], begun(run)]

    with lab.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE searches SET attempt = attempt + 1")
    with pytest.raises(Fenced):
        go_on()
