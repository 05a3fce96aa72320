from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select

from db import attempts, claims, events, searches, trials
from db.engine import reading, writing
from db.errors import Conflict, NotFound, Stale
from db.ids import uuid7
from db.models import Epoch, Event, Search, Trial

Queued = Callable[..., Search]


def _walk(engine: Engine, limit: int, **options: object) -> list[Search]:
    found: list[Search] = []
    after = None
    while True:
        with reading(engine) as session:
            page = searches.page(session, after=after, limit=limit, **options)  # type: ignore[arg-type]
        found += page.items
        assert len(page.items) <= limit
        if page.next is None:
            return found
        after = page.next


def test_create_keeps_what_was_given(engine: Engine) -> None:
    spec = {"z": 1, "a": [1.5, None, True], "名前": "é😀'; DROP TABLE searches"}
    with writing(engine) as session:
        made = searches.create(session, name="<script>", spec=spec, spec_version=3, tags=["x", "y"], priority=9)
    with reading(engine) as session:
        search = searches.get(session, made.id)
    assert search.spec == spec
    assert list(search.spec) == list(spec)
    assert (search.name, search.status, search.tags, search.priority) == ("<script>", "queued", ["x", "y"], 9)
    assert (search.version, search.attempt, search.phase) == (1, 0, None)
    assert search.created_at.utcoffset() is not None


def test_repeated_create_gives_the_same_search(engine: Engine) -> None:
    key = uuid7()
    for _ in range(2):
        with writing(engine) as session:
            assert searches.create(session, id=key, name="x", spec={}, spec_version=1).id == key
    with reading(engine) as session:
        assert session.scalar(select(func.count()).select_from(Search)) == 1
        assert [event.kind for event in events.after(session, key, 0)] == ["search.created"]


@pytest.mark.parametrize(
    "bad",
    [
        {"name": "x" * 201},
        {"name": "a\x00b"},
        {"name": "\ud800"},
        {"spec": {"lr": float("nan")}},
        {"spec": {"lr": [float("-inf")]}},
        {"spec": {"n": 2**63}},
        {"spec": {"a\x00": 1}},
        {"spec": {"x": object()}},
        {"tags": ["a\x00"]},
        {"spec_version": 2**31},
        {"priority": True},
    ],
)
def test_create_refuses_what_no_database_may_see(engine: Engine, bad: dict[str, object]) -> None:
    given: dict[str, object] = {"name": "x", "spec": {}, "spec_version": 1} | bad
    column = next(iter(bad))
    with writing(engine) as session, pytest.raises(ValueError, match=rf"^searches\.{column}"):
        searches.create(session, **given)  # type: ignore[arg-type]


def test_unknown_search(engine: Engine) -> None:
    with writing(engine) as session:
        for call in (searches.get, searches.delete, searches.lock):
            with pytest.raises(NotFound, match="no search 'nope'"):
                call(session, "nope")
        with pytest.raises(NotFound):
            searches.set_command(session, "nope", "cancel")
        assert not searches.set_progress(session, "nope", 1, hypervolume=0.1)


_ROW = st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.none() | st.floats(0, 1))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(_ROW, max_size=12),
    sort=st.sampled_from(["created_at", "name", "priority", "hypervolume"]),
    descending=st.booleans(),
    limit=st.integers(1, 5),
)
def test_pages_are_complete_ordered_and_without_doubles(
    engine: Engine, rows: list[tuple[str, int, float | None]], sort: str, descending: bool, limit: int
) -> None:
    owner = uuid7()  # rows of earlier examples stay in the database
    with writing(engine) as session:
        for name, priority, hypervolume in rows:
            made = searches.create(session, name=name, spec={}, spec_version=1, priority=priority, owner=owner)
            made.hypervolume = hypervolume
    found = _walk(engine, limit, owner=owner, sort=sort, descending=descending)
    present = [row for row in found if getattr(row, sort) is not None]
    expected = sorted(present, key=lambda row: (getattr(row, sort), row.id), reverse=descending)
    assert [row.id for row in found[: len(present)]] == [row.id for row in expected]
    assert len({row.id for row in found}) == len(found) == len(rows)
    if sort == "hypervolume":
        assert sum(row[2] is not None for row in rows) == len(present)


def test_filters(engine: Engine, queued: Queued) -> None:
    first, second = queued("Alpha 100%", tags=["a", "b"]), queued("beta_1", tags=['b"c'], owner="ann")
    cases: list[tuple[dict[str, object], list[str]]] = [
        ({}, [second.id, first.id]),
        ({"tag": "a"}, [first.id]),
        ({"tag": "b"}, [first.id]),
        ({"tag": 'b"c'}, [second.id]),
        ({"tag": "%"}, []),
        ({"name_contains": "ALPHA"}, [first.id]),
        ({"name_contains": "%"}, [first.id]),
        ({"name_contains": "_"}, [second.id]),
        ({"status": "queued"}, [second.id, first.id]),
        ({"status": ["running", "paused"]}, []),
        ({"owner": "ann"}, [second.id]),
    ]
    for options, ids in cases:
        assert [row.id for row in _walk(engine, 10, **options)] == ids, options
    with reading(engine) as session:
        for bad in ({"sort": "spec"}, {"status": "done"}, {"limit": 0}, {"limit": 501}):
            with pytest.raises(ValueError, match=next(iter(bad))):
                searches.page(session, **bad)  # type: ignore[arg-type]


def test_progress_writes_only_changes(engine: Engine, running: Search) -> None:
    with writing(engine) as session:
        assert searches.set_progress(session, running.id, 1, phase="explore", hypervolume=0.5, bounds={"macs": [1, 2]})
        assert searches.set_progress(session, running.id, 1, phase="explore", hypervolume=0.5, bounds={"macs": [1, 2]})
        assert searches.set_progress(session, running.id, 1, hypervolume=0.6)
        search = searches.get(session, running.id)
        told = [event.data for event in events.after(session, running.id, 0) if event.kind == "search.progress"]
        with pytest.raises(ValueError, match=r"searches\.hypervolume"):
            searches.set_progress(session, running.id, 1, hypervolume=float("nan"))
    assert told == [{"phase": "explore", "hypervolume": 0.5}, {"hypervolume": 0.6}]
    assert (search.phase, search.hypervolume, search.bounds) == ("explore", 0.6, {"macs": [1, 2]})


def test_version_guards_changes(engine: Engine, queued: Queued) -> None:
    search = queued()
    with writing(engine) as session:
        changed = searches.edit(session, search.id, version=1, priority=8, tags=["z"])
        assert (changed.priority, changed.tags, changed.version) == (8, ["z"], 2)
        with pytest.raises(Stale):
            searches.edit(session, search.id, version=1, priority=7)
        with pytest.raises(Stale):
            searches.set_command(session, search.id, "cancel", version=1)
        assert searches.edit(session, search.id, version=2, priority=8).version == 2


def test_delete_takes_everything_along_and_only_when_finished(
    engine: Engine, running: Search, trial: Callable[..., Trial]
) -> None:
    started = trial()
    with writing(engine) as session:
        trials.record_epoch(session, started.id, 1, epoch=1, metrics={"top1": 0.5})
        with pytest.raises(Conflict, match="cannot be deleted"):
            searches.delete(session, running.id)
        claims.release(session, running.id, 1, "failed", error={"kind": "x", "message": "y"})
    with writing(engine) as session:
        searches.delete(session, running.id)
    with reading(engine) as session:
        for model in (Search, Trial, Epoch, Event):
            assert session.scalar(select(func.count()).select_from(model)) == 0


def test_reopen(engine: Engine, running: Search) -> None:
    with writing(engine) as session:
        with pytest.raises(Conflict):
            searches.reopen(session, running.id, spec={}, spec_version=1)
        claims.release(session, running.id, 1, "succeeded")
        again = searches.reopen(session, running.id, spec={"budget": 9}, spec_version=1)
        assert (again.status, again.spec, again.finished_at) == ("queued", {"budget": 9}, None)
        taken = claims.claim_next(session, "me", 30.0)
        assert taken is not None
        assert taken.attempt == 2


def test_counts(engine: Engine, running: Search, queued: Queued, trial: Callable[..., Trial]) -> None:
    other = queued("other")
    trial("a")
    done = trial("b")
    with writing(engine) as session:
        trials.finish(session, done.id, 1, status="failed", error={"kind": "error", "message": "m"})
        assert searches.counts(session, [running.id, other.id]) == {
            running.id: {"running": 1, "failed": 1},
            other.id: {},
        }
        assert searches.status_counts(session)["queued"] == 1


def _ended(engine: Engine, search: Search, trial: Callable[..., Trial], status: str) -> list[str]:
    """Ends attempt 1 with a trial that succeeded, one that failed for good and one that still ran."""
    made = [trial(key).id for key in ("a", "b", "c")]
    with writing(engine) as session:
        trials.finish(session, made[0], 1, status="succeeded", metrics={"top1": 0.5})
        retry = {"retried": {"killed": 2}, "deaths": {"in_a_row": 2, "saved": 0}, "error": {"kind": "killed"}}
        attempts.retry(session, made[1], 1, busy_seconds=4.0, **retry)
        trials.finish(session, made[1], 1, status="failed", error={"kind": "killed", "message": "m"}, busy_seconds=5.0)
        claims.release(session, search.id, 1, status, error={"kind": "x", "message": "y"}, died=True)
    return made


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
def test_a_search_taken_up_again_keeps_what_it_has_and_tries_its_failed_trials(
    engine: Engine, running: Search, trial: Callable[..., Trial], status: str
) -> None:
    made = _ended(engine, running, trial, status)
    with writing(engine) as session:
        spec = {"budget": {"trials": 9}}
        searches.reopen(session, running.id, spec=spec, spec_version=1, retry_failed=True)
        again = searches.get(session, running.id)
        rows = {row.id: row for row in trials.all_of(session, running.id)}
    assert (again.status, again.spec, again.error, again.finished_at, again.deaths) == ("queued", spec, None, None, 0)
    assert [rows[key].status for key in made] == ["succeeded", "cancelled", "cancelled"]
    failed = rows[made[1]]
    assert (failed.retries, failed.retried, failed.deaths, failed.busy_seconds) == (0, None, None, 5.0)
    assert [rows[key].number for key in made] == [1, 2, 3]


def test_an_extended_search_leaves_its_failed_trials_alone(
    engine: Engine, running: Search, trial: Callable[..., Trial]
) -> None:
    made = _ended(engine, running, trial, "succeeded")
    with writing(engine) as session:
        searches.reopen(session, running.id, spec={}, spec_version=1)
        assert trials.get(session, made[1]).status == "failed"


def test_what_cannot_be_taken_up_again_says_why(engine: Engine, running: Search, trial: Callable[..., Trial]) -> None:
    done = trial().id
    with writing(engine) as session:
        with pytest.raises(Conflict, match="this one is running"):
            searches.reopen(session, running.id, retry_failed=True)
        trials.finish(session, done, 1, status="succeeded", metrics={"top1": 0.5})
        claims.release(session, running.id, 1, "succeeded")
        with pytest.raises(Conflict, match="nothing to try again"):
            searches.reopen(session, running.id, retry_failed=True)
        with pytest.raises(Stale):
            searches.reopen(session, running.id, spec={}, spec_version=1, version=1)
        with pytest.raises(ValueError, match="spec_version"):
            searches.reopen(session, running.id, spec={})
        with pytest.raises(ValueError, match="retry_failed"):
            searches.reopen(session, running.id)
        assert searches.get(session, running.id).status == "succeeded"


def test_trials_of_a_paused_search_that_is_cancelled_do_not_promise_to_go_on(
    engine: Engine, running: Search, trial: Callable[..., Trial]
) -> None:
    paused = trial().id
    with writing(engine) as session:
        error = {"kind": "paused", "message": "Paused after epoch 3: it goes on from there."}
        trials.finish(session, paused, 1, status="cancelled", error=error)
        claims.release(session, running.id, 1, "paused")
        assert trials.get(session, paused).error == error
        searches.set_command(session, running.id, "cancel")
        ended = trials.get(session, paused)
    assert ended.error == {"kind": "cancelled", "message": "The search was cancelled."}


@pytest.mark.parametrize("when", ["asked before", "asked afterwards"])
def test_a_paused_search_has_no_running_trial_whatever_became_of_its_driver(
    engine: Engine, running: Search, trial: Callable[..., Trial], when: str
) -> None:
    """The driver has died or handed the search back before its trials had ended."""
    left, done = trial("a").id, trial("b").id
    with writing(engine) as session:
        trials.finish(session, done, 1, status="succeeded", metrics={"top1": 0.5})
        trials.record_epoch(session, left, 1, epoch=1, metrics={"top1": 0.25})
        attempts.place(session, running.id, 1, left, "node")
        if when == "asked before":
            searches.set_command(session, running.id, "pause")
        claims.release(session, running.id, 1, "queued", died=True)
        if when == "asked afterwards":
            waiting = trials.get(session, left)
            assert (waiting.status, waiting.node) == ("running", None), "its next driver goes on with it"
            searches.set_command(session, running.id, "pause")
    with writing(engine) as session:
        assert searches.get(session, running.id).status == "paused"
        assert searches.counts(session, [running.id])[running.id] == {"succeeded": 1, "cancelled": 1}
        paused = trials.get(session, left)
        assert (paused.status, paused.node, paused.epochs) == ("cancelled", None, 1)
        assert paused.error is not None
        assert paused.error["kind"] == "paused"
        assert "goes on" in paused.error["message"]
        searches.set_command(session, running.id, "resume")
        claimed = claims.claim_next(session, "driver", 60.0)
        assert claimed is not None
        again = attempts.restart(session, left, claimed.attempt, retries=0)
        assert (again.status, again.error) == ("running", None)


def test_the_time_at_work_outlives_a_driver_and_the_estimate_does_not(engine: Engine, running: Search) -> None:
    with writing(engine) as session:
        assert claims.renew(session, running.id, 1, 30.0, active_seconds=7.5, seconds_left=60.0)
        beaten = searches.get(session, running.id)
        assert (beaten.active_seconds, beaten.seconds_left) == (7.5, 60.0)
        assert claims.renew(session, running.id, 1, 30.0)  # its dispatcher knows neither
        assert searches.get(session, running.id).seconds_left == 60.0
        claims.release(session, running.id, 1, "paused", active_seconds=8.0)
        paused = searches.get(session, running.id)
    assert (paused.active_seconds, paused.seconds_left) == (8.0, None)
