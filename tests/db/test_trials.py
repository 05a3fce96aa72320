import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db import attempts, events, trials
from db.engine import reading, writing
from db.errors import NotFound
from db.metrics import metric_of
from db.models import Search, Trial

Start = Callable[..., Trial]


def test_numbers_count_up_and_the_same_trial_is_found_again(engine: Engine, running: Search, trial: Start) -> None:
    first, second, third = trial("a"), trial("b"), trial("a", seed=1)
    assert [row.number for row in (first, second, third)] == [1, 2, 3]
    assert trial("a").id == first.id
    assert trial("a", phase="confirm").number == 4
    with reading(engine) as session:
        kinds = [
            event.data["number"] for event in events.after(session, running.id, 0) if event.kind == "trial.started"
        ]
    assert kinds == [1, 2, 3, 4]


def test_schema_refuses_doubles(engine: Engine, running: Search, trial: Start) -> None:
    trial("a")
    same = {"search_id": running.id, "phase": "explore", "architecture_key": "a", "seed": 0, "role": "explore"}
    for other in ({"number": 9}, {"number": 1, "seed": 5}):
        with pytest.raises(IntegrityError), writing(engine) as session:
            session.execute(insert(Trial).values(**(same | {"epochs_planned": 1} | other)))


def test_finish_splits_metrics_and_is_safe_to_repeat(engine: Engine, running: Search, trial: Start) -> None:
    started = trial()
    with writing(engine) as session:
        ended = trials.finish(
            session, started.id, 1, status="succeeded", epochs=3, seconds=1.5,
            metrics={"top1": 0.75, "loss": 0.1, "macro_f1": 0.5}, environment={"torch": "2"}, evaluation_key="e",
        )  # fmt: skip
        assert (ended.top1, ended.loss, ended.metrics, ended.epochs) == (0.75, 0.1, {"macro_f1": 0.5}, 3)
        assert ended.finished_at is not None
        again = trials.finish(session, started.id, 1, status="failed", metrics={"top1": 0.1})
        assert (again.status, again.top1) == ("succeeded", 0.75)
        told = [event.data for event in events.after(session, running.id, 0) if event.kind == "trial.finished"]
    assert [(data["status"], data["top1"]) for data in told] == [("succeeded", 0.75)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["top1", "macro_f1"])
def test_nan_is_refused_and_leaves_the_row_as_it_was(engine: Engine, trial: Start, name: str, value: float) -> None:
    started = trial()
    column = name if name == "top1" else f"metrics.{name}"
    with pytest.raises(ValueError, match=rf"trials\.{column}"), writing(engine) as session:
        trials.finish(session, started.id, 1, status="succeeded", metrics={name: value})
    with pytest.raises(ValueError, match=rf"epochs\.{column}"), writing(engine) as session:
        trials.record_epoch(session, started.id, 1, epoch=1, metrics={name: value})
    with reading(engine) as session:
        assert trials.get(session, started.id).status == "running"
        assert trials.epochs(session, started.id) == []


def test_numbers_that_do_not_fit_are_refused(engine: Engine, running: Search) -> None:
    with writing(engine) as session:
        trials.put_architecture(session, "a", backbone="x", document={}, label="")
        for name in ("seed", "macs", "params"):
            given_ = {"seed": 0, name: 2**63}
            with pytest.raises(ValueError, match=rf"trials\.{name}"):
                trials.add(
                    session, running.id, 1, phase="explore", architecture_key="a", role="explore",
                    epochs_planned=1, **given_,
                )  # fmt: skip
        kept = trials.add(
            session, running.id, 1, phase="explore", architecture_key="a", role="explore", epochs_planned=1,
            seed=2**63 - 1, macs=2**62,
        )  # fmt: skip
        assert (trials.get(session, kept.id).seed, kept.macs) == (2**63 - 1, 2**62)


def test_epochs_are_upserted(engine: Engine, running: Search, trial: Start) -> None:
    one, two = trial("a"), trial("b")
    report = trials.EpochReport
    with writing(engine) as session:
        trials.record_epochs(session, running.id, 1, [report(one.id, 1, {"top1": 0.1}), report(two.id, 1, {"lr": 0.5})])
        again = [(1, {"top1": 0.2, "x": 1.0}), (2, {"top1": 0.3}), (2, {"top1": 0.4})]
        trials.record_epochs(session, running.id, 1, [report(one.id, epoch, metrics) for epoch, metrics in again])
        rows = trials.epochs(session, one.id)
        assert [(row.epoch, row.top1, row.metrics) for row in rows] == [(1, 0.2, {"x": 1.0}), (2, 0.4, {})]
        assert trials.get(session, one.id).epochs == 2
        assert {(row.trial_id, row.epoch) for row in trials.epochs_of_search(session, running.id, [1, 2])} == {
            (one.id, 1), (one.id, 2), (two.id, 1)
        }  # fmt: skip
        assert [row.trial_id for row in trials.epochs_of_search(session, running.id, [2, 5])] == [one.id]
        trials.record_epochs(
            session, running.id, 1, [report(two.id, epoch, {"seconds": 1.5 * epoch}) for epoch in (2, 3, 4)]
        )
        assert [trials.trained_seconds(session, two.id, epoch) for epoch in (1, 3, 4)] == [0.0, 7.5, 13.5]
        with pytest.raises(NotFound):
            trials.epochs(session, "nope")


def test_restart_keeps_number_and_counts_retries(engine: Engine, trial: Start) -> None:
    started = trial()
    with writing(engine) as session:
        trials.finish(session, started.id, 1, status="failed", error={"kind": "killed", "message": "x"})
        again = attempts.restart(session, started.id, 1, retries=1)
    assert (again.number, again.status, again.retries, again.error, again.finished_at) == (1, "running", 1, None, None)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(
        st.none() | st.sampled_from([0.1, 0.1 + 0.2, 0.3, 1e-9]) | st.floats(0, 1), min_size=1, max_size=12
    ),
    sort=st.sampled_from(["top1", "macro_f1", "number"]),
    descending=st.booleans(),
    limit=st.integers(1, 5),
)
def test_pages_are_complete_with_missing_values_last(
    engine: Engine, running: Search, values: list[float | None], sort: str, descending: bool, limit: int
) -> None:
    with writing(engine) as session:
        begin = len(trials.all_of(session, running.id))
        for index, value in enumerate(values):
            row = _add(session, running, begin + index)
            metrics = {} if value is None else {"top1": value, "macro_f1": value}
            trials.finish(session, row.id, 1, status="succeeded", metrics=metrics)
    found: list[Trial] = []
    after = None
    with reading(engine) as session:
        while True:
            page = trials.page(session, running.id, sort=sort, descending=descending, after=after, limit=limit)
            found += page.items
            if page.next is None:
                break
            after = page.next
        everything = trials.all_of(session, running.id)
    assert sorted(row.number for row in found) == [row.number for row in everything]
    measured = [metric_of(row, sort) for row in found]
    present = [value for value in measured if value is not None]
    assert measured == present + [None] * (len(measured) - len(present))
    steps = [(after - before) * (-1 if descending else 1) for before, after in pairwise(present)]
    # SQLite reads a metric out of JSON with an error in the last place
    assert all(step >= (-1e-15 if sort == "macro_f1" else 0) for step in steps)


@pytest.mark.parametrize("descending", [False, True])
def test_pages_end_for_numbers_that_sqlite_reads_out_of_text_inexactly(
    engine: Engine, running: Search, descending: bool
) -> None:
    generator = random.Random(0)
    with writing(engine) as session:
        for seed in range(60):
            metrics = {"macro_f1": generator.random() * 10.0 ** -(seed % 12)}
            trials.finish(session, _add(session, running, seed).id, 1, status="succeeded", metrics=metrics)
        numbers: list[int] = []
        after = None
        for _ in range(60):
            page = trials.page(session, running.id, sort="macro_f1", descending=descending, after=after, limit=1)
            numbers += [row.number for row in page.items]
            after = page.next
        assert after is None
        assert sorted(numbers) == list(range(1, 61))


def _add(session: Session, running: Search, seed: int) -> Trial:
    trials.put_architecture(session, "a", backbone="x", document={}, label="")
    return trials.add(
        session, running.id, 1, phase="explore", architecture_key="a", seed=seed, role="explore", epochs_planned=1
    )  # fmt: skip


def test_page_filters_and_refuses(engine: Engine, running: Search, trial: Start) -> None:
    done = trial("a")
    trial("b", phase="controls")
    with writing(engine) as session:
        trials.finish(session, done.id, 1, status="stopped", metrics={"top1": 0.5})
    with reading(engine) as session:
        assert [row.number for row in trials.page(session, running.id, status="stopped").items] == [1]
        assert [row.number for row in trials.page(session, running.id, phase="controls").items] == [2]
        assert trials.page(session, running.id, role="control").items == []
        with pytest.raises(NotFound):
            trials.page(session, "nope")
        for bad in ({"status": "done"}, {"limit": 0}, {"limit": 1001}):
            with pytest.raises(ValueError, match=next(iter(bad))):
                trials.page(session, running.id, **bad)  # type: ignore[arg-type]
        assert len(trials.page(session, running.id, sort="'; DROP TABLE trials --").items) == 2
