"""A database that goes away while a driver works: a PostgreSQL that is stopped and started, an SQLite that is held."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, func, select, update
from structlog.testing import capture_logs

from db import claims
from db.clock import DatabaseTime
from db.engine import make_engine, reading, retrying, writing
from db.errors import DatabaseUnavailable
from db.models import Epoch, Evaluation, Event, Search
from tests.faults.postgres import Postgres, opened_postgres
from tests.workers.conftest import Lab, accuracy
from workers import driver
from workers.agenda import Next
from workers.budget import ActiveTime
from workers.heartbeat import EXIT_NO_DATABASE, Heartbeat
from workers.ledger import Ledger
from workers.orders import Order, Result
from workers.settings import WorkerSettings
from workers.termination import Termination

SMALL = {"space": {"modules": ["none", "se", "cbam"], "reduction": [4, 8], "pattern": ["every"]}}


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL of these tests' own."""
    with opened_postgres() as server:
        yield server


@pytest.fixture
def cut_off(postgres: Postgres) -> Iterator[tuple[Lab, Postgres]]:
    engine = make_engine(postgres.database(), busy_seconds=1.0)
    yield Lab(engine), postgres
    engine.dispose()


@contextmanager
def beating(lab: Lab, search: Search, ledger: Ledger) -> Iterator[Heartbeat]:
    active = ActiveTime(search.active_seconds)
    active.begin()
    heartbeat = Heartbeat(ledger, 4.0, active, Termination())
    heartbeat.start()
    try:
        yield heartbeat
    finally:
        heartbeat.stop()


def _slow(order: Order) -> Result:
    time.sleep(0.1)
    outcome = accuracy(order)
    assert isinstance(outcome, Result)
    return outcome


def _check_nothing_lost_or_doubled(lab: Lab, search_id: str, trials: int) -> None:
    rows = lab.trials(search_id)
    assert Counter(row.status for row in rows) == {"succeeded": trials}
    assert [row.number for row in rows] == list(range(1, trials + 1))
    with reading(lab.engine) as session:
        finished = select(func.count()).select_from(Evaluation).where(Evaluation.status == "finished")
        assert session.scalar(finished) == trials
        told = Counter(session.scalars(select(Event.kind).where(Event.search_id == search_id)))
        numbers = list(session.scalars(select(Event.seq).where(Event.search_id == search_id).order_by(Event.seq)))
        doubled = select(Epoch.trial_id).group_by(Epoch.trial_id, Epoch.epoch).having(func.count() > 1)
        assert session.execute(doubled).all() == []
    assert told["trial.finished"] == trials
    assert numbers == list(range(1, len(numbers) + 1))


def test_postgresql_stopped_and_started_again_costs_a_search_nothing(cut_off: tuple[Lab, Postgres]) -> None:
    lab, postgres = cut_off
    search_id = lab.submit(**SMALL, budget={"trials": 20})
    search = lab.claim()
    run = lab.start(search)

    def answer(order: Order) -> Result:
        run.epoch(order.trial_id, 1, {"top1": 0.5, "val_loss": 1.0})
        return _slow(order)

    with beating(lab, search, run.ledger), ThreadPoolExecutor(1) as pool:
        working = pool.submit(lab.work, run, answer)
        for away in (0.0, 3.0):
            time.sleep(0.7)
            assert not working.done()
            postgres.restart(away)
        working.result(timeout=100)
    assert lab.finish(run).status == "succeeded"
    _check_nothing_lost_or_doubled(lab, search_id, 23)


def test_a_driver_gives_up_at_its_limit_and_the_next_one_loses_nothing(cut_off: tuple[Lab, Postgres]) -> None:
    lab, postgres = cut_off
    search_id = lab.submit(**SMALL, budget={"trials": 4})
    search = lab.claim()
    run = lab.start(search)
    run.ledger.flush()
    run.ledger = Ledger(lab.engine, search_id, search.attempt, evaluation_lease=1.0, outage=1.0)
    lab.work(run, most=3)
    run.ledger.flush()
    run.ledger = Ledger(lab.engine, search_id, search.attempt, evaluation_lease=1.0, outage=1.0)
    postgres.stop()
    began = time.monotonic()
    try:
        with pytest.raises(DatabaseUnavailable):
            lab.work(run)
    finally:
        postgres.start()
    assert 1.0 <= time.monotonic() - began < 30.0
    run.ledger.flush()

    def expire() -> None:
        with writing(lab.engine) as session:
            session.execute(update(Search).where(Search.id == search_id).values(lease_expires_at=DatabaseTime(-1.0)))

    expire()
    lab.orders.clear()
    heir = lab.start(lab.claim())
    lab.work(heir)
    assert lab.finish(heir).status == "succeeded"
    assert len(lab.orders) == 7 - 3
    _check_nothing_lost_or_doubled(lab, search_id, 7)


def test_the_process_says_that_the_database_was_to_blame(
    cut_off: tuple[Lab, Postgres], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, postgres = cut_off
    search_id = lab.submit(**SMALL)
    lab.claim()
    monkeypatch.setenv("ATTUNE_DATABASE_URL", lab.engine.url.render_as_string(hide_password=False))
    postgres.stop()
    try:
        with capture_logs() as logs:
            code = driver.main(search_id, 1, WorkerSettings(outage_seconds=0.5), Termination())
    finally:
        postgres.start()
    assert code == EXIT_NO_DATABASE
    assert "driver.gave_up" in [entry["event"] for entry in logs]
    assert lab.search(search_id).status == "running"  # until its lease runs out


@pytest.mark.slow
def test_after_an_outage_no_search_takes_what_another_is_training(cut_off: tuple[Lab, Postgres]) -> None:
    """Nobody could renew a claim while the database was away, which says nothing of its owner."""
    lab, postgres = cut_off
    for _ in range(2):
        lab.submit(**SMALL, budget={"trials": 1}, controls=False)
    runs = []
    for _ in range(2):
        search = lab.claim()
        run = lab.start(search)
        run.ledger.flush()
        run.ledger = Ledger(lab.engine, search.id, search.attempt, evaluation_lease=3.0)
        runs.append(run)
    first, second = runs
    wanted = first.next()
    own = second.next()
    assert isinstance(own, Order)
    second.succeeded(own.trial_id, _slow(own))
    assert second.next() is Next.WAIT
    postgres.restart(away=4.0)  # longer than the claim
    time.sleep(0.6)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(second.next)  # comes before the first one's heartbeat
        assert asking.result(timeout=30) is Next.WAIT
    assert retrying(lab.engine, lambda s: claims.renew(s, first.ledger.search_id, 1, 60.0))
    assert first.ledger.heartbeat(60.0) is not None
    first.succeeded(wanted.trial_id, _slow(wanted))
    first.ledger.flush()
    lab.work(second)
    assert lab.finish(second).status == "succeeded"
    assert "reused" in {row.status for row in lab.trials(second.ledger.search_id)}


def test_a_heartbeat_outlives_the_database(cut_off: tuple[Lab, Postgres]) -> None:
    lab, postgres = cut_off
    search_id = lab.submit(**SMALL)
    search = lab.claim()
    ledger = Ledger(lab.engine, search_id, search.attempt, evaluation_lease=8.0)
    with beating(lab, search, ledger):
        postgres.restart(away=2.0)
        before = lab.search(search_id).heartbeat_at
        _until(lambda: lab.search(search_id).heartbeat_at != before)
        assert lab.search(search_id).active_seconds > 2.0
    ledger.flush()


@contextmanager
def held(path: Path, seconds: float) -> Iterator[None]:
    """Another writer keeps SQLite's lock for some seconds."""
    ready = threading.Event()

    def hold() -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        ready.set()
        time.sleep(seconds)
        connection.execute("ROLLBACK")
        connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        holder.join()


def _lab_over(template: Path, path: Path) -> Lab:
    path.write_bytes(template.read_bytes())
    return Lab(make_engine(f"sqlite:///{path}", busy_seconds=0.2))


def test_sqlite_held_by_another_writer_is_waited_for(sqlite_template: Path, tmp_path: Path) -> None:
    path = tmp_path / "attune.db"
    lab = _lab_over(sqlite_template, path)
    search_id = lab.submit(**SMALL, budget={"trials": 5})
    search = lab.claim()
    run = lab.start(search)
    with beating(lab, search, run.ledger):
        lab.work(run, _slow, most=3)
        with held(path, 3.0):
            lab.work(run, _slow, most=2)  # far longer than one transaction waits
        lab.work(run, _slow)
    assert lab.finish(run).status == "succeeded"
    _check_nothing_lost_or_doubled(lab, search_id, 8)
    lab.engine.dispose()


def test_a_full_disk_is_waited_for_too(sqlite_template: Path, tmp_path: Path) -> None:
    lab = _lab_over(sqlite_template, tmp_path / "attune.db")
    search_id = lab.submit(**SMALL, budget={"trials": 5})
    run = lab.start(lab.claim())
    lab.work(run, _slow, most=2)
    run.ledger.flush()
    run.ledger = Ledger(lab.engine, search_id, 1, evaluation_lease=60.0, outage=60.0)
    with _no_more_pages(lab.engine) as lift, ThreadPoolExecutor(1) as pool:
        working = pool.submit(lab.work, run, _slow)
        time.sleep(2.0)
        assert not working.done()
        lift()
        working.result(timeout=60)
    assert lab.finish(run).status == "succeeded"
    _check_nothing_lost_or_doubled(lab, search_id, 8)
    lab.engine.dispose()


@contextmanager
def _no_more_pages(engine: Engine) -> Iterator[Callable[[], None]]:
    """New connections find the database as large as it may be, until what this gives is called."""
    limited = threading.Event()
    limited.set()

    def limit(connection: sqlite3.Connection, _record: object) -> None:
        if limited.is_set():
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages}")

    def lift() -> None:
        limited.clear()
        engine.dispose()

    event.listen(engine, "connect", limit)
    engine.dispose()
    try:
        yield lift
    finally:
        event.remove(engine, "connect", limit)


def _until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
