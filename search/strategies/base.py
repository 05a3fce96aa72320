"""The interface of a strategy: it proposes architectures of a space and learns from what became of them.

Call order: the driver makes a strategy, tells it every outcome in the database (controls, and trials of an earlier
attempt of the same driver), then asks and tells as trials start and end. A strategy keeps nothing that cannot be
rebuilt so; its random draws come from (seed, trial number), so that a restart continues where it stopped.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from search.pareto import Objective
from search.space import Genotype, SearchSpace

DRAWS = 200
"""Random draws before a strategy looks for an untried architecture systematically."""
ENUMERABLE = 200_000
"""Spaces up to this size are listed to find what is left; larger ones are walked from neighbour to neighbour."""


@dataclass(frozen=True)
class SearchProblem:
    """What is searched. feasible: whether a genotype's cost keeps the constraints."""

    space: SearchSpace
    objectives: tuple[Objective, ...]
    feasible: Callable[[Genotype], bool] = lambda genotype: True


@dataclass(frozen=True)
class Proposal:
    """An architecture to train. note: how it came about, kept with the trial (JSON)."""

    genotype: Genotype
    note: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What became of a proposal. values: the objectives in the metrics' units; None when there are none to learn
    from (running, failed, cancelled, stopped early)."""

    genotype: Genotype
    values: tuple[float, ...] | None = None


class Strategy(ABC):
    """Never asks for an architecture twice, nor for one it was told of, nor for one that breaks a constraint."""

    def __init__(self, problem: SearchProblem, seed: int, points: Sequence[Genotype] = ()) -> None:
        self.problem = problem
        self.space = problem.space
        self._seed = seed
        self._points = list(points)
        self._seen: set[Genotype] = set()
        self._exhausted = False
        self._listed: list[Genotype] | None = None

    @property
    def learns(self) -> bool:
        """Whether what it proposes depends on measured objectives."""
        return type(self)._learn is not Strategy._learn

    def tell(self, outcome: Outcome) -> None:
        """Takes in an outcome; telling the same one again changes nothing. Values that are not finite: ValueError."""
        if outcome.values is not None and not all(map(math.isfinite, outcome.values)):
            raise ValueError(f"an outcome without finite values has None, not {outcome.values}")
        self._seen.add(outcome.genotype)
        if outcome.values is not None:
            self._learn(outcome.genotype, outcome.values)

    def ask(self, number: int) -> Proposal | None:
        """The architecture for trial `number`; None when no feasible one is left untried."""
        if self._exhausted:
            return None
        proposal = self._next_point() or self._propose(number, np.random.default_rng((self._seed, number)))
        if proposal is None:
            self._exhausted = True
        else:
            self._seen.add(proposal.genotype)
        return proposal

    @abstractmethod
    def _propose(self, number: int, rng: np.random.Generator) -> Proposal | None:
        """A fresh proposal, drawn with `rng`."""

    def _learn(self, genotype: Genotype, values: tuple[float, ...]) -> None:
        """Takes in measured objectives; a strategy that does not learn leaves it so."""
        del genotype, values

    def _next_point(self) -> Proposal | None:
        while self._points:
            genotype = self._points.pop(0)
            if self._is_fresh(genotype):
                return Proposal(genotype, {"by": "points"})
        return None

    def _is_fresh(self, genotype: Genotype) -> bool:
        return genotype not in self._seen and self.problem.feasible(genotype)

    def _fresh(self, draw: Callable[[], Genotype], rng: np.random.Generator) -> Genotype | None:
        """The first untried feasible genotype that `draw` yields, else any that is left, else None."""
        if len(self._seen) < self.space.count:
            for _ in range(DRAWS):
                genotype = draw()
                if self._is_fresh(genotype):
                    return genotype
        return self._left_over(rng)

    def _left_over(self, rng: np.random.Generator) -> Genotype | None:
        if self.space.count <= ENUMERABLE:
            if self._listed is None:
                self._listed = [genotype for genotype in self.space.enumerate() if self.problem.feasible(genotype)]
            left = [genotype for genotype in self._listed if genotype not in self._seen]
            return left[int(rng.integers(len(left)))] if left else None
        near = (n for seen in sorted(self._seen) for n in self.space.neighbours(seen))
        found = next((genotype for genotype in islice(near, ENUMERABLE) if self._is_fresh(genotype)), None)
        if found is not None:
            return found
        draws = (self.space.sample(rng) for _ in range(100 * DRAWS))
        return next((genotype for genotype in draws if self._is_fresh(genotype)), None)
