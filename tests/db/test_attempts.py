"""Where trials run, what it costs and how often they were tried."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from db import attempts, claims, events, trials
from db.engine import reading, writing
from db.errors import Fenced
from db.models import Search, Trial

Start = Callable[..., Trial]


def _kinds(engine: Engine, search_id: str) -> list[str]:
    with reading(engine) as session:
        return [event.kind for event in events.after(session, search_id, 0) if event.kind.startswith("trial.")]


def test_a_retry_is_counted_by_class_and_told_once(engine: Engine, running: Search, trial: Start) -> None:
    made = trial().id
    for _ in range(2):  # the acknowledgement of the first was lost
        with writing(engine) as session:
            attempts.place(session, running.id, 1, made, "node-1")
            error = {"kind": "killed", "message": "gone", "traceback": "long"}
            attempts.retry(session, made, 1, retried={"killed": 1}, busy_seconds=2.5, error=error)
    with writing(engine) as session:
        error = {"kind": "timeout", "message": "hung"}
        attempts.retry(session, made, 1, retried={"killed": 1, "timeout": 1}, busy_seconds=9.0, error=error)
        row = trials.get(session, made)
        told = [event.data for event in events.after(session, running.id, 0) if event.kind == "trial.retried"]
    assert (row.status, row.retries, row.retried, row.busy_seconds) == ("running", 2, {"killed": 1, "timeout": 1}, 9.0)
    assert row.node is None
    assert [(data["retries"], data["error"]) for data in told] == [
        (1, {"kind": "killed", "message": "gone"}),
        (2, {"kind": "timeout", "message": "hung"}),
    ]


@pytest.mark.parametrize("how", ["finish", "restart", "end"])
def test_a_trial_that_has_ended_is_on_no_node(engine: Engine, running: Search, trial: Start, how: str) -> None:
    made = trial().id
    with writing(engine) as session:
        attempts.place(session, running.id, 1, made, "node-1")
        assert trials.get(session, made).node == "node-1"
        if how == "finish":
            trials.finish(session, made, 1, status="succeeded", metrics={"top1": 0.5}, busy_seconds=3.0)
        elif how == "restart":
            attempts.restart(session, made, 1, retries=1)
        else:
            claims.release(session, running.id, 1, "failed")
        assert trials.get(session, made).node is None
        if how == "finish":
            attempts.spend(session, running.id, 1, {made: 99.0})  # too late: it does not run any more
            assert trials.get(session, made).busy_seconds == 3.0


def test_busy_seconds_come_with_epochs_too(engine: Engine, running: Search, trial: Start) -> None:
    one, two = trial("a").id, trial("b").id
    with writing(engine) as session:
        attempts.spend(session, running.id, 1, {one: 1.0, two: 2.0})
        trials.record_epochs(session, running.id, 1, [trials.EpochReport(one, 1, {"top1": 0.1}, busy_seconds=5.0)])
        trials.record_epochs(session, running.id, 1, [trials.EpochReport(two, 1, {"top1": 0.1})])
        assert [trials.get(session, key).busy_seconds for key in (one, two)] == [5.0, 2.0]


def test_a_fenced_driver_notes_nothing(engine: Engine, running: Search, trial: Start) -> None:
    made = trial().id
    with writing(engine) as session:
        claims.release(session, running.id, 1, "queued")
    before = _kinds(engine, running.id)
    writes = (
        lambda s: attempts.place(s, running.id, 1, made, "n"),
        lambda s: attempts.spend(s, running.id, 1, {made: 1.0}),
        lambda s: attempts.retry(s, made, 1, retried={"killed": 1}, busy_seconds=1.0, error={"kind": "killed"}),
        lambda s: attempts.restart(s, made, 1, retries=1),
    )
    for write in writes:
        with pytest.raises(Fenced), writing(engine) as session:
            write(session)
    assert _kinds(engine, running.id) == before
