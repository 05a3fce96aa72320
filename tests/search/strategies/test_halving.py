"""Successive halving against its definition, written out; and what early stopping must never do."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.errors import SpecError
from search.pareto import Objective
from search.registry import parse_options
from search.strategies import EARLY_STOPPING
from search.strategies.early_stopping import EarlyStopping, Verdict
from search.strategies.halving import Halving

OBJECTIVES = (Objective("top1", "max"), Objective("macs", "min"))
Point = tuple[float, float]

_ANY = st.tuples(st.sampled_from([0.1, 0.2, 0.3, 0.4]), st.sampled_from([10.0, 20.0, 30.0, 40.0]))
_TIED = st.lists(_ANY, min_size=1, max_size=12)
_DISTINCT = st.lists(
    st.tuples(st.integers(1, 999), st.integers(1, 999)),
    min_size=1, max_size=14, unique_by=(lambda pair: pair[0], lambda pair: pair[1]),
).map(lambda pairs: [(top1 / 1000, float(macs)) for top1, macs in pairs])  # fmt: skip


def beats(one: Point, other: Point) -> bool:
    return one != other and one[0] >= other[0] and one[1] <= other[1]


def peeled(points: Sequence[Point]) -> list[list[Point]]:
    """Fronts, best first: each what nobody in the rest beats."""
    rest, fronts = list(points), []
    while rest:
        fronts.append([p for p in rest if not any(beats(q, p) for q in rest)])
        rest = [p for p in rest if p not in fronts[-1]]
    return fronts


def lonely(mine: Point, level: Sequence[Point]) -> float:
    """Deb's crowding distance in a front of two objectives without equal values."""
    total = 0.0
    for axis in (0, 1):
        values = sorted(point[axis] for point in level)
        at = values.index(mine[axis])
        if at in (0, len(values) - 1):
            return math.inf
        total += (values[at + 1] - values[at - 1]) / (values[-1] - values[0])
    return total


def expected(points: Sequence[Point], mine: Point, eta: int) -> tuple[int, int, bool]:
    """Rank, place and whether it stops, by definition."""
    fronts = peeled(points)
    rank = next(index for index, level in enumerate(fronts) if mine in level)
    own = lonely(mine, fronts[rank])
    place = 1 + sum(map(len, fronts[:rank])) + sum(lonely(p, fronts[rank]) > own + 1e-12 for p in fronts[rank])
    return rank + 1, place, rank > 0 and place > len(points) // eta


def told(stopping: EarlyStopping, points: Sequence[Point], epoch: int = 1) -> list[Verdict]:
    found = [stopping.judge(f"trial-{index}", epoch, point) for index, point in enumerate(points)]
    return [verdict for verdict in found if verdict is not None]


@settings(max_examples=200, deadline=None)
@given(points=_DISTINCT, eta=st.integers(2, 5))
def test_every_verdict_is_the_definitions(points: list[Point], eta: int) -> None:
    for index, verdict in enumerate(told(Halving(OBJECTIVES, 9, eta=eta), points)):
        rank, place, stops = expected(points[: index + 1], points[index], eta)
        assert (verdict.rank, verdict.stops) == (rank, stops)
        assert verdict.place == place
        assert (verdict.size, verdict.kept, verdict.epoch, verdict.rung) == (index + 1, (index + 1) // eta, 1, 1)


@settings(max_examples=200, deadline=None)
@given(points=_TIED)
def test_what_no_other_at_the_rung_dominates_goes_on_also_among_equals(points: list[Point]) -> None:
    for index, verdict in enumerate(told(Halving(OBJECTIVES, 9), points)):
        before = points[:index]
        if not any(beats(other, points[index]) for other in before):
            assert not verdict.stops
            assert verdict.rank == 1


@settings(max_examples=200, deadline=None)
@given(points=_TIED, seed=st.integers(0, 99))
def test_a_verdict_depends_on_what_the_rung_holds_and_not_on_the_order(points: list[Point], seed: int) -> None:
    others = points[:-1]
    one = told(Halving(OBJECTIVES, 9), points)[-1]
    random.Random(seed).shuffle(others)
    assert told(Halving(OBJECTIVES, 9), [*others, points[-1]])[-1] == one


@settings(max_examples=100, deadline=None)
@given(points=_TIED, cut=st.integers(0, 12))
def test_one_rebuilt_in_the_middle_goes_on_as_if_nothing_had_happened(points: list[Point], cut: int) -> None:
    through, before = Halving(OBJECTIVES, 9), Halving(OBJECTIVES, 9)
    whole = told(through, points)
    first = told(before, points[:cut])
    rebuilt = Halving(OBJECTIVES, 9)
    rows = list(enumerate(zip(points[:cut], first, strict=True)))
    for index, (point, verdict) in reversed(rows):
        rebuilt.restore(f"trial-{index}", 1, point, stopped=verdict.stops)
    assert told(rebuilt, points) == whole[cut:]  # those before have been judged: they are not again
    assert rebuilt.epochs_left(0) == through.epochs_left(0)


def test_telling_again_changes_nothing_and_a_trial_that_has_passed_stays() -> None:
    once, twice = Halving(OBJECTIVES, 9), Halving(OBJECTIVES, 9)
    assert once.judge("a", 1, (0.5, 10.0)) == twice.judge("a", 1, (0.5, 10.0))
    assert twice.judge("a", 1, (0.5, 10.0)) is None
    for stopping in (once, twice):
        verdict = stopping.judge("b", 1, (0.9, 5.0))
        assert verdict is not None
        assert not verdict.stops
    assert twice.judge("a", 1, (0.1, 99.0)) is None  # trained once more, worse: it had passed, and is beaten now
    assert once.judge("a", 2, (0.1, 99.0)) is None  # between rungs
    assert once.judge("a", 3, (0.5, 10.0)) is not None


def test_a_trial_that_fails_keeps_no_other_from_going_on() -> None:
    stopping = Halving(OBJECTIVES, 9)
    stopping.judge("promising", 1, (0.99, 1.0))
    stopping.withdraw("promising")
    verdict = stopping.judge("plain", 1, (0.5, 10.0))
    assert verdict is not None
    assert (verdict.stops, verdict.size) == (False, 1)


@pytest.mark.parametrize(
    ("epochs", "options", "rungs"),
    [
        (9, {}, (1, 3)),
        (10, {}, (1, 3, 9)),
        (28, {"min_epochs": 3}, (3, 9, 27)),
        (16, {"eta": 2}, (1, 2, 4, 8)),
        (5, {"min_epochs": 4}, (4,)),
        (2, {}, (1,)),
    ],
)
def test_rungs_lie_a_factor_apart_and_before_the_end(
    epochs: int, options: dict[str, int], rungs: tuple[int, ...]
) -> None:
    info = EARLY_STOPPING.get("halving")
    stopping = info.make(OBJECTIVES, epochs, parse_options(info.options, options))
    assert stopping.rungs == rungs
    for epoch in range(1, epochs + 1):
        assert (stopping.judge("a", epoch, (0.5, 1.0)) is not None) == (epoch in rungs)


@pytest.mark.parametrize(
    ("epochs", "least", "field", "words"), [(1, 1, "", "training.epochs"), (5, 5, "min_epochs", "under the 5 epochs")]
)
def test_trials_too_short_to_be_stopped_are_refused(epochs: int, least: int, field: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        Halving(OBJECTIVES, epochs, min_epochs=least)
    assert caught.value.problems[0].field == field


@pytest.mark.parametrize("bad", [(math.nan, 1.0), (0.5, math.inf), (0.5,)])
def test_values_that_are_no_numbers_are_a_bug(bad: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="finite"):
        Halving(OBJECTIVES, 9).judge("a", 1, bad)


class Curve:
    """A trial that learns towards `end`; curves of one speed never cross."""

    def __init__(self, end: float, macs: float, speed: float = 0.3) -> None:
        self.end, self.macs, self.speed = end, macs, speed

    def at(self, epoch: int) -> Point:
        return (self.end * (1 - math.exp(-self.speed * epoch)), self.macs)


def simulated(stopping: EarlyStopping, curves: Sequence[Curve], epochs: int, slots: int) -> tuple[set[int], int]:
    """Trials on slots that take an epoch in turn. Those that came to their end, and epochs trained."""
    waiting, running, done, spent = list(enumerate(curves)), {}, set(), 0
    while waiting or running:
        while waiting and len(running) < slots:
            index, _ = waiting.pop(0)
            running[index] = 0
        for index in list(running):
            running[index] += 1
            spent += 1
            verdict = stopping.judge(str(index), running[index], curves[index].at(running[index]))
            if running[index] == epochs:
                done.add(index)
            if running[index] == epochs or (verdict is not None and verdict.stops):
                del running[index]
    return done, spent


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("slots", [1, 4])
def test_where_curves_do_not_cross_the_whole_front_survives_and_most_epochs_are_saved(seed: int, slots: int) -> None:
    rng = random.Random(seed)
    curves = [Curve(rng.uniform(0.5, 0.9), float(rng.randrange(100, 1000))) for _ in range(60)]
    ends = [(curve.end, curve.macs) for curve in curves]
    front = {i for i, end in enumerate(ends) if not any(beats(other, end) for other in ends)}
    done, spent = simulated(Halving(OBJECTIVES, 27), curves, 27, slots)
    assert front <= done
    assert spent < 0.6 * 27 * len(curves)


def test_the_epochs_to_come_follow_what_the_rungs_have_seen() -> None:
    stopping = Halving(OBJECTIVES, 9)
    assert (stopping.epochs_left(0), stopping.epochs_left(4), stopping.epochs_left(9)) == (9.0, 5.0, 0.0)
    told(stopping, [(0.9 - 0.1 * index, 10.0 + index) for index in range(4)])  # one goes on, three stop
    # at rung 1 three of four have stopped, and the next may be another that goes on: 1 - 3/5
    assert stopping.epochs_left(0) == pytest.approx(1 + 0.4 * 8)
    assert stopping.epochs_left(1) == 8.0


def test_the_epochs_to_come_are_those_of_a_simulation() -> None:
    rng = random.Random(7)
    curves = [Curve(rng.uniform(0.5, 0.9), float(rng.randrange(100, 1000))) for _ in range(400)]
    stopping = Halving(OBJECTIVES, 27)
    _, spent = simulated(stopping, curves[:200], 27, 4)
    assert 200 * stopping.epochs_left(0) == pytest.approx(spent, rel=0.1)
