"""Asynchronous successive halving (ASHA: Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020)
with several objectives (MO-ASHA: Schmucker et al., Multi-objective Asynchronous Successive Halving, 2021).

A trial is judged when it ends epoch min_epochs · eta^k, k = 0, 1, 2 …, against all that have got there before it, and
stops at once or goes on: no slot waits for others (the "stopping" variant, as in Ray Tune and Syne Tune). Trials are
ordered by non-dominated rank, then by crowding distance (NSGA-II's order, one of the two of MO-ASHA); the best 1/eta go
on. Objectives of cost are exact before any training, so only the others change from rung to rung.

One thing is milder than in MO-ASHA: what no other trial at the rung dominates always goes on, also where such trials
are more than 1/eta. With exact costs they differ in what they are for, not only in how good they are, and a front that
loses its members early is what a search of several objectives must not end with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import Field

from search.errors import SpecError
from search.pareto import Objective, Points, crowding, minimised, ranks
from search.registry import Options
from search.strategies.early_stopping import EarlyStopping, Verdict


class HalvingOptions(Options):
    """Options of successive halving."""

    eta: int = Field(
        default=3,
        ge=2,
        le=100,
        description="Of the trials at a rung the best 1/eta go on; rungs lie a factor eta apart.",
    )
    min_epochs: int = Field(
        default=1, ge=1, le=10_000, description="The first rung: epochs that every trial is trained for."
    )


@dataclass
class _Rung:
    """values: by trial, in the metrics' units. stopped: those that went no further."""

    values: dict[str, tuple[float, ...]] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)


class Halving(EarlyStopping):
    """epochs: of a whole trial. SpecError when no rung lies before its end."""

    def __init__(self, objectives: Sequence[Objective], epochs: int, *, eta: int = 3, min_epochs: int = 1) -> None:
        if epochs < 2:
            raise SpecError.one("", "A trial of one epoch cannot be stopped early: training.epochs must be at least 2.")
        if min_epochs >= epochs:
            raise SpecError.one("min_epochs", f"Must be under the {epochs} epochs of a trial, or none is ever stopped.")
        self._objectives = tuple(objectives)
        self._epochs = epochs
        self._eta = eta
        self._levels: dict[int, _Rung] = {}
        level = min_epochs
        while level < epochs:
            self._levels[level] = _Rung()
            level *= eta

    @property
    def rungs(self) -> tuple[int, ...]:
        return tuple(self._levels)

    def judge(self, trial: str, epoch: int, values: tuple[float, ...]) -> Verdict | None:
        rung = self._levels.get(epoch)
        if rung is None:
            return None
        judged = trial in rung.values
        self._put(rung, trial, values)
        if judged:
            return None
        verdict = self._verdict(rung, epoch, values)
        if verdict.stops:
            rung.stopped.add(trial)
        return verdict

    def restore(self, trial: str, epoch: int, values: tuple[float, ...], *, stopped: bool = False) -> None:
        rung = self._levels.get(epoch)
        if rung is not None:
            self._put(rung, trial, values)
            if stopped:
                rung.stopped.add(trial)

    def withdraw(self, trial: str) -> None:
        for rung in self._levels.values():
            rung.values.pop(trial, None)
            rung.stopped.discard(trial)

    def epochs_left(self, done: int) -> float:
        left, going_on, reached = 0.0, 1.0, done
        for level, rung in self._levels.items():
            if level > done:
                left += going_on * (level - reached)
                reached = level
                # the first at a rung always goes on, so a rung without trials is taken as one where all do
                going_on *= 1 - len(rung.stopped) / (len(rung.values) + 1)
        return left + going_on * max(0, self._epochs - reached)

    def _put(self, rung: _Rung, trial: str, values: tuple[float, ...]) -> None:
        if len(values) != len(self._objectives) or not all(map(math.isfinite, values)):
            raise ValueError(f"a trial is judged by {len(self._objectives)} finite values, not by {values}")
        rung.values[trial] = values

    def _verdict(self, rung: _Rung, epoch: int, values: tuple[float, ...]) -> Verdict:
        # sorted, so that the order in which trials came does not decide between equals
        points = minimised(sorted(rung.values.values()), self._objectives)
        rank, place = _standing(points, minimised([values], self._objectives)[0])
        kept = len(points) // self._eta
        return Verdict(
            stops=rank > 1 and place > kept,
            epoch=epoch,
            rung=self.rungs.index(epoch) + 1,
            rank=rank,
            place=place,
            size=len(points),
            kept=kept,
        )


def _standing(points: Points, mine: Points) -> tuple[int, int]:
    """Rank and place, both from 1, of a point among n × m minimised ones that it is one of; equals share a place."""
    rank = ranks(points)
    same = (points == mine).all(axis=1)
    own = int(rank[same][0])
    level = rank == own
    distance = crowding(points[level])
    better = int((rank < own).sum() + (distance > distance[same[level]].max()).sum())
    return own + 1, better + 1
