"""Writes that join others: cheaper, and for each trial in the order in which they were made."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from db.trials import EpochReport
from workers.ledger import Epochs, Queued, merged

TRIALS = ("a", "b", "c")


def other(name: str) -> Queued:
    """A write that is no epoch, which can be told from others."""

    def write(session: Session) -> None:
        raise AssertionError("nothing is written here")

    write.__name__ = name
    return Queued(None if name[0] == "-" else name[0], write)


def epoch(trial: str, number: int) -> Queued:
    return Queued(trial, Epochs([EpochReport(trial, number, {})]))


@st.composite
def groups(draw: st.DrawFn) -> list[Queued]:
    drawn = draw(st.lists(st.tuples(st.sampled_from((*TRIALS, "-")), st.booleans()), max_size=30))
    return [
        epoch(trial, number) if is_epoch and trial != "-" else other(f"{trial}{number}")
        for number, (trial, is_epoch) in enumerate(drawn)
    ]


def told(trial: str, group: list[Queued]) -> list[str]:
    """What happens to a trial, in order."""
    found = []
    for owner, write, _ in group:
        if owner == trial:
            found.append(f"epoch {write.reports[0].epoch}" if isinstance(write, Epochs) else write.__name__)
    return found


def told_after_merging(trial: str, group: list[Queued]) -> list[str]:
    found = []
    for write in merged(group):
        if isinstance(write, Epochs):
            found += [f"epoch {report.epoch}" for report in write.reports if report.trial_id == trial]
        elif write.__name__[0] == trial:
            found.append(write.__name__)
    return found


@given(groups())
def test_each_trial_keeps_its_order_and_nothing_is_lost(group: list[Queued]) -> None:
    for trial in TRIALS:
        assert told_after_merging(trial, group) == told(trial, group)
    others = [write for _, write, _ in group if not isinstance(write, Epochs)]
    assert [write for write in merged(group) if not isinstance(write, Epochs)] == others


def test_epochs_of_many_trials_become_one_write() -> None:
    group = [epoch("a", 1), other("a-ends"), epoch("b", 1), other("-progress"), epoch("c", 1), epoch("b", 2)]
    writes = merged(group)
    assert [isinstance(write, Epochs) for write in writes] == [True, False, False]
    assert isinstance(writes[0], Epochs)
    assert [(r.trial_id, r.epoch) for r in writes[0].reports] == [("a", 1), ("b", 1), ("c", 1), ("b", 2)]
    assert isinstance(group[0].write, Epochs)
    assert len(group[0].write.reports) == 1, "what was queued stays as it was"
