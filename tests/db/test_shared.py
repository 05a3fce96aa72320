"""What several processes do at one moment: events, evaluations, idempotency keys; and the thin tables."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, event, func, select

from db import catalog, claims, evaluations, events, idempotency, schedules, searches, tokens, trials
from db.engine import make_engine, now, reading, retrying, writing
from db.errors import Conflict, NotFound, Stale
from db.ids import uuid7
from db.models import Evaluation, Search, Trial

Queued = Callable[..., Search]


def _together(count: int, work: Callable[[int], object]) -> list[object]:
    barrier = threading.Barrier(count)

    def run(index: int) -> object:
        barrier.wait(30)
        return work(index)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_reader_that_follows_the_numbers_misses_no_event(engine: Engine, queued: Queued) -> None:
    search = queued()
    done = threading.Event()
    seen: list[int] = []

    def follow() -> None:
        last = 0
        while True:
            ended = done.is_set()  # asked before the look, so that the last look comes after the last commit
            with reading(engine) as session:
                found = events.after(session, search.id, last, 7)
            seen.extend(row.seq for row in found)
            last = seen[-1] if seen else 0
            if ended and not found:
                return

    reader = threading.Thread(target=follow)
    reader.start()

    def write(index: int) -> None:
        for _ in range(10):
            retrying(engine, lambda s: events.append(s, search.id, "note", {"by": index}), attempts=30)

    _together(4, write)
    done.set()
    reader.join(60)
    assert seen == list(range(1, 42))
    with reading(engine) as session:
        assert events.last_seq(session, search.id) == 41
        for call in (events.last_seq, lambda s, key: events.after(s, key, 0)):
            with pytest.raises(NotFound):
                call(session, "nope")


def test_event_of_a_transaction_that_failed_leaves_no_gap(engine: Engine, queued: Queued) -> None:
    search = queued()

    def fail() -> None:
        with writing(engine) as session:
            events.append(session, search.id, "note")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with writing(engine) as session:
        assert events.append(session, search.id, "note", {"x": 1}) == 2
        with pytest.raises(ValueError, match=r"events\.data"):
            events.append(session, search.id, "note", {"x": float("nan")})


def _claim(session: object, search_id: str, lease: float = 60.0) -> evaluations.Claim:
    return evaluations.claim(
        session, "key", search_id=search_id, lease_seconds=lease, architecture_key="a", dataset_fingerprint="f",  # type: ignore[arg-type]
        conditions={"epochs": 3}, epochs=3, seed=0,
    )  # fmt: skip


def test_one_search_of_many_trains_an_evaluation(engine: Engine, queued: Queued) -> None:
    made = [queued(f"s{index}").id for index in range(6)]
    with writing(engine) as session:
        trials.put_architecture(session, "a", backbone="x", document={}, label="")
    outcomes = _together(6, lambda index: retrying(engine, lambda s: _claim(s, made[index]), attempts=30).outcome)
    assert Counter(outcomes) == {"mine": 1, "busy": 5}


def test_evaluation_is_claimed_finished_and_reused(
    engine: Engine, running: Search, queued: Queued, trial: Callable[..., Trial]
) -> None:
    started, other = trial("a"), queued("other").id
    with writing(engine) as session:
        assert _claim(session, running.id).outcome == "mine"
        assert _claim(session, running.id).outcome == "mine"  # a repeated claim is safe
        assert _claim(session, other).outcome == "busy"
        assert not evaluations.finish(session, "key", search_id=other, trial_id=started.id, results={})
        evaluations.renew(session, running.id, 0.0)
        assert _claim(session, other).outcome == "mine"  # the first claim had run out
        evaluations.release(session, "key", search_id=other)
        assert evaluations.find(session, "key") is None
        assert _claim(session, running.id).outcome == "mine"
        for _ in range(2):
            results = {"top1": 0.5}
            assert evaluations.finish(session, "key", search_id=running.id, trial_id=started.id, results=results)
        found = _claim(session, other)
        assert (found.outcome, found.evaluation.results, found.evaluation.trial_id) == ("finished", results, started.id)
        with pytest.raises(ValueError, match=r"evaluations\.results"):
            evaluations.finish(session, "key", search_id=other, trial_id="x", results={"top1": float("nan")})


@pytest.mark.parametrize("how", ["trial failed", "search ended", "driver died"])
def test_result_that_was_to_be_replaced_outlives_who_wanted_to(
    engine: Engine, running: Search, queued: Queued, trial: Callable[..., Trial], how: str
) -> None:
    started, first, third = trial("a"), queued("first").id, queued("third").id
    results = {"latency_ms": 1.5}
    with writing(engine) as session:
        _claim(session, first)
        evaluations.finish(session, "key", search_id=first, trial_id=started.id, results=results)
        finished = evaluations.find(session, "key").finished_at  # type: ignore[union-attr]
        assert evaluations.retake(session, "key", search_id=running.id, lease_seconds=60.0)
        assert not evaluations.retake(session, "key", search_id=third, lease_seconds=60.0)
        assert _claim(session, third).outcome == "busy"
        assert _claim(session, running.id).outcome == "mine"  # its driver starts again
        if how == "trial failed":
            evaluations.release(session, "key", search_id=running.id)
        elif how == "search ended":
            claims.release(session, running.id, 1, "cancelled")
        else:
            evaluations.renew(session, running.id, 0.0)
    with writing(engine) as session:
        found = _claim(session, third)
        assert (found.outcome, found.evaluation.results, found.evaluation.trial_id) == ("finished", results, started.id)
        assert (found.evaluation.finished_at, found.evaluation.claimed_by) == (finished, None)


def test_end_of_a_search_frees_its_claims_and_deleting_it_keeps_results(
    engine: Engine, running: Search, queued: Queued, trial: Callable[..., Trial]
) -> None:
    started, other = trial("a"), queued("other").id
    with writing(engine) as session:
        _claim(session, running.id)
        evaluations.finish(session, "key", search_id=running.id, trial_id=started.id, results={"top1": 0.5})
        session.execute(Evaluation.__table__.insert().values(  # type: ignore[attr-defined]
            key="open", architecture_key="a", dataset_fingerprint="f", conditions={}, epochs=1, seed=0,
            status="claimed", claimed_by=running.id, claim_expires_at=now(session) + timedelta(hours=1),
        ))  # fmt: skip
        claims.release(session, running.id, 1, "cancelled")
        assert session.scalar(select(func.count()).select_from(Evaluation)) == 1
        searches.delete(session, running.id)
    with writing(engine) as session:
        kept = _claim(session, other).evaluation
        assert (kept.results, kept.trial_id) == ({"top1": 0.5}, None)


def test_twenty_posts_with_one_key_make_one_search(database_url: str, engine: Engine) -> None:
    patient = make_engine(database_url, busy_seconds=30.0)

    def post(index: int) -> str:
        def work(session: object) -> str:
            state = idempotency.begin(session, "ann POST /searches", "key", "hash")  # type: ignore[arg-type]
            if isinstance(state, idempotency.Replay):
                return str(state.body["id"])
            assert isinstance(state, idempotency.New)
            made = searches.create(session, name=f"s{index}", spec={}, spec_version=1)  # type: ignore[arg-type]
            idempotency.finish(session, "ann POST /searches", "key", status=201, body={"id": made.id})  # type: ignore[arg-type]
            return made.id

        return retrying(patient, work, attempts=30)

    assert len(set(_together(20, post))) == 1
    with reading(engine) as session:
        assert len(searches.page(session).items) == 1
    patient.dispose()


def test_idempotency_states(engine: Engine) -> None:
    with writing(engine) as session:
        assert idempotency.begin(session, "s", "k", "h") == idempotency.New()
        assert idempotency.begin(session, "s", "k", "h") == idempotency.InFlight()
        assert idempotency.begin(session, "s", "k", "other") == idempotency.Mismatch()
        assert idempotency.begin(session, "s2", "k", "other") == idempotency.New()
        idempotency.finish(session, "s", "k", status=201, body={"x": [1, None]})
        assert idempotency.begin(session, "s", "k", "h") == idempotency.Replay(201, {"x": [1, None]})
        idempotency.forget(session, "s", "k")
        assert idempotency.begin(session, "s", "k", "h", in_flight_seconds=-1) == idempotency.New()
        assert idempotency.begin(session, "s", "k", "another") == idempotency.New()  # the first had died
        idempotency.finish(session, "s", "k", status=200, body=None, kept_seconds=-1)
        assert idempotency.remove_expired(session) == 1
        assert idempotency.remove_expired(session) == 0


def test_catalog(engine: Engine) -> None:
    entry = catalog.PublishedDataset
    with writing(engine) as session:
        catalog.publish_datasets(
            session, [entry("b", "1", {"shape": [1, 8, 8]}), entry("a", "1", {})], published_by="w1"
        )
        catalog.publish_datasets(session, [entry("c", "1", {})], published_by="w2")
        catalog.publish_datasets(session, [entry("b", "2", {"shape": [3, 8, 8]})], published_by="w1")
    with writing(engine) as session:
        assert [(row.name, row.fingerprint) for row in catalog.datasets(session)] == [("b", "2"), ("c", "1")]
        assert catalog.dataset(session, "b").document == {"shape": [3, 8, 8]}
        with pytest.raises(NotFound, match="no data set 'a'"):
            catalog.dataset(session, "a")
        catalog.publish_node(session, "n1", {"cpus": 2})
        catalog.publish_node(session, "n1", {"cpus": 4})
        assert [(row.id, row.document) for row in catalog.nodes(session, seen_within_seconds=60)] == [
            ("n1", {"cpus": 4})
        ]
        assert catalog.nodes(session, seen_within_seconds=-60) == []
        catalog.forget_node(session, "n1")
        assert catalog.nodes(session) == []
        costs = {f"k{index}": (index, -index) for index in range(1200)}
        catalog.put_costs(session, costs)
        catalog.put_cost(session, "k1", 99, 99)
        assert catalog.get_costs(session, [*costs, "unknown"]) == costs
        with pytest.raises(ValueError, match=r"site_costs\.macs"):
            catalog.put_cost(session, "big", 0, 2**63)


def test_tokens(engine: Engine) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    with writing(engine) as session:
        kept = tokens.create(session, name="ci", prefix="att_1", hash="h", scopes=["read"], expires_at=later)
        tokens.create(session, name="old", prefix="att_2", hash="h", scopes=[], expires_at=later - timedelta(days=1))
        for name, prefix in (("ci", "att_3"), ("new", "att_1")):
            with pytest.raises(Conflict):
                tokens.create(session, name=name, prefix=prefix, hash="h", scopes=[])
        found = tokens.by_prefix(session, "att_1")
        assert found is not None
        assert (found.id, found.scopes) == (kept.id, ["read"])
        assert tokens.by_prefix(session, "att_2") is None
        tokens.touch(session, kept.id)
        revoked = tokens.revoke(session, kept.id)
        assert revoked.revoked_at is not None
        assert revoked.last_used_at is not None
        assert tokens.revoke(session, kept.id).revoked_at == revoked.revoked_at
        assert tokens.by_prefix(session, "att_1") is None
        assert [row.name for row in tokens.all_of(session)] == ["ci", "old"]


def test_schedules(engine: Engine, queued: Queued) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    with writing(engine) as session:
        rows = [
            schedules.create(session, name=f"s{i}", cron="0 2 * * 0", zone="UTC", template={}, next_fire_at=at)
            for i, at in enumerate((moment, moment - timedelta(days=1), None, moment + timedelta(days=36500)))
        ]  # fmt: skip
        with pytest.raises(Conflict, match="named 's0'"):
            schedules.create(session, name="s0", cron="", zone="", template={}, next_fire_at=None)
        assert [row.name for row in schedules.due(session)] == ["s1", "s0"]
        assert [row.name for row in schedules.due(session, moment - timedelta(hours=1))] == ["s1"]
        assert [row.name for row in schedules.take_due(session, limit=1)] == ["s1"]
        assert [row.name for row in schedules.page(session, limit=3).items] == ["s0", "s1", "s2"]
        changed = schedules.edit(session, rows[0].id, version=1, enabled=False, next_fire_at=None)
        assert (changed.version, changed.enabled) == (2, False)
        with pytest.raises(Stale):
            schedules.edit(session, rows[0].id, version=1, priority=3)
        with pytest.raises(Conflict):
            schedules.edit(session, rows[0].id, name="s1")
        with pytest.raises(ValueError, match="version_"):
            schedules.edit(session, rows[0].id, version_=3)
    search = queued()
    with writing(engine) as session:
        key = rows[1].id
        assert schedules.record_fire(session, key, moment, "fired", search_id=search.id)
        assert not schedules.record_fire(session, key, moment, "missed")
        later = moment + timedelta(days=7)
        schedules.set_next_fire(session, key, later, planned_at=later, last=moment)
        assert [(row.status, row.search_id) for row in schedules.fires(session, key).items] == [("fired", search.id)]
        schedules.delete(session, key)
        with pytest.raises(NotFound):
            schedules.fires(session, key)
        assert searches.get(session, search.id).status == "queued"


def test_due_schedules_are_one_range_of_an_index(engine: Engine) -> None:
    if engine.dialect.name != "sqlite":
        pytest.skip("the planner of PostgreSQL scans a small table")
    plans: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def explain(conn, cursor, statement, parameters, context, executemany):  # type: ignore[no-untyped-def]
        if "FROM schedules" in statement:
            plans.extend(row[3] for row in cursor.execute("EXPLAIN QUERY PLAN " + statement, parameters).fetchall())

    with reading(engine) as session:
        schedules.due(session)
    assert len(plans) == 1
    assert "ix_schedules_next_fire_at (next_fire_at<?)" in plans[0]


def test_ids_rise_and_are_uuids_of_version_7() -> None:
    ids = [uuid7() for _ in range(5000)]
    assert ids == sorted(set(ids))
    assert all(len(key) == 36 and key[14] == "7" and key[19] in "89ab" for key in ids)
    assert abs(int(ids[0].replace("-", "")[:12], 16) / 1000 - datetime.now(UTC).timestamp()) < 5
