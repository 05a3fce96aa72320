import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from multiprocessing import get_context

import pytest
from sqlalchemy import Engine, update

from db import attempts, claims, events, searches, trials
from db.engine import make_engine, now, reading, retrying, writing
from db.errors import Conflict, Fenced
from db.models import Search

Queued = Callable[..., Search]


def _drain(url: str, owner: str) -> list[str]:
    engine = make_engine(url)
    taken: list[str] = []
    while True:
        search = retrying(engine, lambda session: claims.claim_next(session, owner, 3600.0), attempts=20)
        if search is None:
            engine.dispose()
            return taken
        taken.append(search.id)


def _expire(engine: Engine, search_id: str) -> None:
    with writing(engine) as session:
        session.execute(
            update(Search).where(Search.id == search_id).values(lease_expires_at=now(session) - timedelta(seconds=1))
        )


def _status(engine: Engine, search_id: str) -> str:
    with reading(engine) as session:
        return searches.get(session, search_id).status


def test_threads_never_claim_twice(engine: Engine, database_url: str, queued: Queued) -> None:
    made = {queued(f"s{i}").id for i in range(60)}
    with ThreadPoolExecutor(6) as pool:
        taken = [key for part in pool.map(lambda i: _drain(database_url, f"o{i}"), range(6)) for key in part]
    assert Counter(taken) == Counter(made)


def test_processes_never_claim_twice(engine: Engine, database_url: str, queued: Queued) -> None:
    made = {queued(f"s{i}").id for i in range(60)}
    engine.dispose()  # connections do not survive a fork
    with get_context("fork").Pool(3) as pool:
        parts = pool.starmap(_drain, [(database_url, f"o{i}") for i in range(3)])
    assert Counter(key for part in parts for key in part) == Counter(made)


def test_claim_sets_lease_heartbeat_and_attempt(engine: Engine, queued: Queued) -> None:
    queued()
    with writing(engine) as session:
        search = claims.claim_next(session, "me", 30.0)
        clock = now(session)
    assert search is not None
    assert (search.status, search.attempt, search.lease_owner) == ("running", 1, "me")
    assert search.lease_expires_at is not None
    assert search.heartbeat_at is not None
    assert abs((search.lease_expires_at - search.heartbeat_at).total_seconds() - 30) < 0.01
    assert abs((clock - search.heartbeat_at).total_seconds()) < 5
    assert search.started_at is not None


def test_claims_go_by_priority_then_age(engine: Engine, queued: Queued) -> None:
    order = [queued("low", priority=1), queued("first"), queued("second"), queued("high", priority=9)]
    with writing(engine) as session:
        names = [claims.claim_next(session, "me", 30.0) for _ in order]
        assert claims.claim_next(session, "me", 30.0) is None
    assert [search.name for search in names if search] == ["high", "first", "second", "low"]


def test_claim_index_is_used(engine: Engine) -> None:
    if engine.dialect.name != "sqlite":
        pytest.skip("the planner of PostgreSQL scans a small table")
    seen: list[str] = []
    from sqlalchemy import event

    @event.listens_for(engine, "before_cursor_execute")
    def keep(conn, cursor, statement, parameters, context, executemany):  # type: ignore[no-untyped-def]
        if statement.startswith("UPDATE searches"):
            seen.extend(row[3] for row in cursor.execute("EXPLAIN QUERY PLAN " + statement, parameters).fetchall())

    with writing(engine) as session:
        claims.claim_next(session, "me", 30.0)
    assert any("ix_searches_claimable" in line for line in seen)
    assert not any("TEMP B-TREE" in line for line in seen)


def test_limit_of_running_searches_lets_takeovers_through(engine: Engine, queued: Queued) -> None:
    first, second = queued("first"), queued("second")
    with writing(engine) as session:
        assert claims.claim_next(session, "me", 30.0, most_running=1)
        assert claims.claim_next(session, "me", 30.0, most_running=1) is None
    _expire(engine, first.id)
    with writing(engine) as session:
        again = claims.claim_next(session, "other", 30.0, most_running=1)
        assert again is not None
        assert (again.id, again.attempt) == (first.id, 2)
        assert claims.claim_next(session, "me", 30.0, most_running=1) is None
    assert _status(engine, second.id) == "queued"


def test_living_lease_is_left_alone_and_dead_one_taken_over(engine: Engine, running: Search) -> None:
    with writing(engine) as session:
        assert claims.claim_next(session, "other", 30.0) is None
    _expire(engine, running.id)
    with writing(engine) as session:
        taken = claims.claim_next(session, "other", 30.0)
    assert taken is not None
    assert (taken.attempt, taken.lease_owner) == (2, "other")


def test_zombie_matches_no_row(engine: Engine, running: Search, trial: Callable[..., object]) -> None:
    started = trial()
    _expire(engine, running.id)
    with writing(engine) as session:
        assert claims.claim_next(session, "other", 30.0)
    with writing(engine) as session:
        before = searches.get(session, running.id).event_seq
        assert not claims.renew(session, running.id, 1, 30.0)
        assert not claims.release(session, running.id, 1, "succeeded")
        assert not searches.set_status(session, running.id, 1, "failed")
        assert not searches.set_progress(session, running.id, 1, hypervolume=0.5)
        with pytest.raises(Fenced):
            trials.record_epoch(session, started.id, 1, epoch=1, metrics={"top1": 0.5})  # type: ignore[attr-defined]
        with pytest.raises(Fenced):
            trials.finish(session, started.id, 1, status="succeeded")  # type: ignore[attr-defined]
        with pytest.raises(Fenced):
            attempts.restart(session, started.id, 1, retries=1)  # type: ignore[attr-defined]
        assert searches.get(session, running.id).event_seq == before


def test_expired_lease_that_nobody_took_can_be_renewed(engine: Engine, running: Search) -> None:
    _expire(engine, running.id)
    with writing(engine) as session:
        assert claims.renew(session, running.id, 1, 30.0)
        assert claims.claim_next(session, "other", 30.0) is None


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled", "paused", "queued"])
def test_release_ends_the_lease_once(engine: Engine, running: Search, status: str) -> None:
    with writing(engine) as session:
        if status == "paused":
            searches.set_command(session, running.id, "pause")
        assert claims.release(session, running.id, 1, status, error={"message": "x"} if status == "failed" else None)
    with writing(engine) as session:
        ended = searches.get(session, running.id)
        assert (ended.status, ended.lease_owner, ended.lease_expires_at, ended.command) == (status, None, None, None)
        assert (ended.finished_at is not None) == ended.finished
        assert claims.release(session, running.id, 1, status)
        assert searches.get(session, running.id).version == ended.version
        with pytest.raises(Fenced):
            trials.record_epochs(session, running.id, 1, [])


@pytest.mark.parametrize(
    ("command", "released", "final"),
    [
        ("cancel", "queued", "cancelled"),
        ("cancel", "paused", "cancelled"),
        ("pause", "queued", "paused"),
        ("cancel", "succeeded", "succeeded"),
        (None, "paused", "queued"),
    ],
)
def test_wish_of_the_user_wins_over_a_release(
    engine: Engine, running: Search, command: str | None, released: str, final: str
) -> None:
    with writing(engine) as session:
        if command is not None:
            assert searches.set_command(session, running.id, command).status == "running"
        assert claims.release(session, running.id, 1, released)
    assert _status(engine, running.id) == final


def test_commands_on_a_queued_search_act_at_once(engine: Engine, queued: Queued) -> None:
    search = queued()
    with writing(engine) as session:
        assert searches.set_command(session, search.id, "pause").status == "paused"
        assert claims.claim_next(session, "me", 30.0) is None
        assert searches.set_command(session, search.id, "resume").status == "queued"
        cancelled = searches.set_command(session, search.id, "cancel")
        assert cancelled.status == "cancelled"
        assert cancelled.finished_at is not None
        for command in ("cancel", "pause", "resume"):
            with pytest.raises(Conflict, match="finished search cannot be"):
                searches.set_command(session, search.id, command)
        statuses = [event.data["status"] for event in events.after(session, search.id, 0)]
    assert statuses == ["queued", "paused", "queued", "cancelled"]


def test_commands_to_a_running_search_wait_for_its_driver(engine: Engine, running: Search) -> None:
    with writing(engine) as session:
        paused = searches.set_command(session, running.id, "pause")
        assert (paused.status, paused.command) == ("running", "pause")
        assert searches.set_command(session, running.id, "pause").version == paused.version
        assert searches.set_command(session, running.id, "resume").command is None
        assert searches.set_command(session, running.id, "cancel").command == "cancel"
        with pytest.raises(Conflict, match="being cancelled"):
            searches.set_command(session, running.id, "resume")


def test_finish_and_takeover_at_one_moment_leave_one_winner(engine: Engine, running: Search) -> None:
    _expire(engine, running.id)
    barrier = threading.Barrier(2)

    def finish() -> bool:
        barrier.wait()
        return retrying(engine, lambda session: claims.release(session, running.id, 1, "succeeded"))

    def take() -> bool:
        barrier.wait()
        return retrying(engine, lambda session: claims.claim_next(session, "other", 30.0)) is not None

    with ThreadPoolExecutor(2) as pool:
        finished, taken = pool.submit(finish), pool.submit(take)
        # with SKIP LOCKED both may pass: the one that finds the row locked leaves it to the other
        assert finished.result() != taken.result()
    assert _status(engine, running.id) == ("succeeded" if finished.result() else "running")


def test_quotas_and_running(engine: Engine, running: Search, queued: Queued) -> None:
    waiting = queued("waiting")
    with writing(engine) as session:
        claims.set_quotas(session, {running.id: 7, "unknown": 2})
    with reading(engine) as session:
        assert [(held.id, held.quota, held.expired) for held in claims.running(session)] == [(running.id, 7, False)]
        assert searches.get(session, waiting.id).quota == 1


def test_a_running_search_tells_who_runs_it_and_what_its_trials_need(engine: Engine, queued: Queued) -> None:
    wanted = {"cpus": 2, "gpus": 0.25, "concurrent": None}
    with writing(engine) as session:
        made = searches.create(session, name="s", spec={"name": "s", "resources": wanted}, spec_version=1, priority=7)
        assert claims.claim_next(session, "h:1:x-1@c", 30.0)
        assert claims.register_driver(session, made.id, 1, "h:2:x-2")
        assert not claims.register_driver(session, made.id, 2, "h:3:x-3")
    with reading(engine) as session:
        assert claims.running(session) == [
            claims.Held(made.id, 1, 7, 1, "h:1:x-1@c", "h:2:x-2", wanted, expired=False, beats=False)
        ]
    _expire(engine, made.id)
    with writing(engine) as session:
        assert claims.running(session)[0].expired
        taken = claims.take_over(session, "h:4:x-4@c", 30.0)
        assert taken is not None
        assert (taken.attempt, taken.driver, taken.deaths) == (2, None, 1)
        assert claims.take_over(session, "h:5:x-5@c", 30.0) is None


def test_a_death_counts_once_and_a_release_forgets_the_driver(engine: Engine, running: Search) -> None:
    with writing(engine) as session:
        claims.register_driver(session, running.id, 1, "h:2:x-2")
        assert claims.release(session, running.id, 1, "queued", died=True)
        assert claims.release(session, running.id, 1, "queued", died=True)
        after = searches.get(session, running.id)
    assert (after.status, after.driver, after.deaths) == ("queued", None, 1)


def test_one_of_two_dispatchers_adopts(engine: Engine, queued: Queued) -> None:
    search = queued()
    with writing(engine) as session:
        assert claims.claim_next(session, "dead", 30.0)
        assert not claims.adopt(session, search.id, 1, from_owner="other", owner="b")
        assert claims.adopt(session, search.id, 1, from_owner="dead", owner="a")
        assert not claims.adopt(session, search.id, 1, from_owner="dead", owner="b")
        assert claims.running(session)[0].owner == "a"
        assert searches.get(session, search.id).attempt == 1


def test_only_named_searches_of_the_queue_are_claimed(engine: Engine, queued: Queued) -> None:
    first, second, third = queued("first"), queued("second"), queued("third")
    with writing(engine) as session:
        taken = claims.claim_next(session, "me", 30.0, among=[third.id, second.id])
        assert taken is not None
        assert taken.id == second.id
    _expire(engine, second.id)
    with writing(engine) as session:
        assert claims.claim_next(session, "me", 30.0, among=[second.id]) is None, "that is no takeover"
        assert searches.get(session, first.id).status == searches.get(session, third.id).status == "queued"


def test_what_fits_on_a_node_is_found_in_the_order_of_the_queue(engine: Engine) -> None:
    def make(cpus: float, gpus: float, priority: int = 5, reason: str | None = None) -> str:
        spec = {"name": "s", "resources": {"cpus": cpus, "gpus": gpus, "concurrent": None}}
        made = searches.create(session, name="s", spec=spec, spec_version=1, priority=priority, waiting_reason=reason)
        return made.id

    with writing(engine) as session:
        small, big, gpu = make(1, 0), make(8, 0, reason="told already"), make(1, 0.25, priority=9)
        wide, told = make(4, 1.0), make(2, 0, reason="there was no node")
        claims.claim_next(session, "me", 60.0, among=[make(1, 0)])
        assert [i for i, _ in claims.fitting(session, [(2.0, 0.0)], limit=9)] == [small, told]
        assert [i for i, _ in claims.fitting(session, [(2.0, 0.25), (8.0, 0.0)], limit=9)] == [gpu, small, big, told]
        assert [i for i, _ in claims.fitting(session, [(2.0, 0.25), (8.0, 0.0)], limit=2)] == [gpu, small]
        assert [i for i, _ in claims.fitting(session, [], limit=9)] == []
        unclear = claims.to_explain(session, [(2.0, 0.0)], limit=9)
        assert [(item.id, item.fits) for item in unclear] == [(gpu, False), (wide, False), (told, True)]
        assert unclear[1].resources == {"cpus": 4, "gpus": 1.0, "concurrent": None}
        assert [item.id for item in claims.to_explain(session, [], limit=9)] == [gpu, small, wide]


def test_what_running_and_queued_searches_want(engine: Engine) -> None:
    with writing(engine) as session:
        for name, trials in (("running", 3), ("queued", 5), ("paused", 7)):
            spec = {"resources": {"cpus": trials}, "budget": {"trials": trials}}
            made = searches.create(session, name=name, spec=spec, spec_version=1)
            if name == "running":
                claims.claim_next(session, "me", 60.0)
            if name == "paused":
                searches.set_command(session, made.id, "pause")
        assert claims.wanted(session, limit=9) == [({"cpus": 3}, 3), ({"cpus": 5}, 5)]
        assert claims.wanted(session, limit=1) == [({"cpus": 3}, 3)]


def test_searches_of_another_cluster_do_not_count(engine: Engine, queued: Queued) -> None:
    for name in ("one", "two", "three"):
        queued(name)
    with writing(engine) as session:
        assert claims.claim_next(session, "h:1:x@left_%", 30.0, most_running=1)
        assert claims.claim_next(session, "h:2:x@left_%", 30.0, most_running=1) is None
        assert claims.claim_next(session, "h:3:x@left_a", 30.0, most_running=1)
        assert claims.claim_next(session, "h:3:x@left_a", 30.0, most_running=1) is None


def _claim_until_full(url: str, owner: str, most: int) -> int:
    engine, taken, tries = make_engine(url), 0, 0
    while tries < 20:
        claim = partial(claims.claim_next, owner=owner, lease_seconds=3600.0, most_running=most)
        if retrying(engine, claim, attempts=20) is None:
            tries += 1
        else:
            taken += 1
    engine.dispose()
    return taken


def test_never_more_than_the_limit_run_however_many_claim_at_once(
    engine: Engine, database_url: str, queued: Queued
) -> None:
    for number in range(12):
        queued(f"s{number}")
    engine.dispose()
    with get_context("fork").Pool(4) as pool:
        taken = pool.starmap(_claim_until_full, [(database_url, f"o{i}@c", 7) for i in range(4)])
    assert sum(taken) == 7


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_lease_must_be_positive(engine: Engine, seconds: float) -> None:
    with writing(engine) as session, pytest.raises(ValueError, match="lease_seconds"):
        claims.claim_next(session, "me", seconds)
