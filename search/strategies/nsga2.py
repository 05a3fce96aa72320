"""NSGA-II (Deb et al. 2002), steady state: every finished trial may become a parent at once.

A generation would leave workers idle while its slowest trial runs. Here the population is, at each ask, the best
`population` of all finished trials by non-dominated rank and crowding distance, which also makes the strategy a
function of the rows in the database: nothing is lost with the driver. Until `population` trials have finished, the
genes are drawn stratified, so that each choice of each stage appears about equally often.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from search.pareto import crowding, minimised, ranks
from search.space import Genotype
from search.strategies.base import Proposal, SearchProblem, Strategy


class Nsga2(Strategy):
    """population: parents kept. crossover: probability that a child has two parents. mutation: probability that a
    child is changed in one gene (always when it would equal a parent)."""

    def __init__(
        self,
        problem: SearchProblem,
        seed: int,
        points: Sequence[Genotype] = (),
        *,
        population: int = 16,
        crossover: float = 0.9,
        mutation: float = 0.5,
    ) -> None:
        super().__init__(problem, seed, points)
        self._size = population
        self._crossover = crossover
        self._mutation = mutation
        self._values: dict[Genotype, tuple[float, ...]] = {}

    def _learn(self, genotype: Genotype, values: tuple[float, ...]) -> None:
        self._values[genotype] = values

    def _propose(self, number: int, rng: np.random.Generator) -> Proposal | None:
        if len(self._values) < self._size:
            genotype = self._fresh(lambda: self._stratified(number, rng), rng)
            return None if genotype is None else Proposal(genotype, {"by": "first generation"})
        parents = self._population()
        made: dict[Genotype, list[Genotype]] = {}

        def breed() -> Genotype:
            child, origins = self._child(parents, rng)
            made[child] = origins
            return child

        genotype = self._fresh(breed, rng)
        if genotype is None:
            return None
        origins = made.get(genotype, [])
        by = {1: "mutation", 2: "crossover"}.get(len(origins), "random")
        return Proposal(genotype, {"by": by, "parents": [list(origin) for origin in origins]})

    def _stratified(self, number: int, rng: np.random.Generator) -> Genotype:
        """A Latin-hypercube row: over `population` numbers each gene runs evenly through its choices."""
        genes = []
        for position, size in enumerate(self.space.sizes):
            order = np.random.default_rng((self._seed, position, number // self._size)).permutation(self._size)
            share = (order[number % self._size] + rng.random()) / self._size
            genes.append(min(int(share * size), size - 1))
        return tuple(genes)

    def _population(self) -> list[Genotype]:
        """The best finished genotypes, best first (rank, then crowding distance)."""
        genotypes = sorted(self._values)
        points = minimised([self._values[g] for g in genotypes], self.problem.objectives)
        rank = ranks(points)
        distance = np.zeros(len(genotypes))
        for level in np.unique(rank):
            members = rank == level
            distance[members] = crowding(points[members])
        order = np.lexsort((-distance, rank))
        return [genotypes[index] for index in order[: self._size]]

    def _child(self, parents: list[Genotype], rng: np.random.Generator) -> tuple[Genotype, list[Genotype]]:
        first, second = self._tournament(parents, rng), self._tournament(parents, rng)
        child, origins = first, [first]
        if first != second and rng.random() < self._crossover:
            child = tuple(a if rng.random() < 0.5 else b for a, b in zip(first, second, strict=True))
            origins = [first, second]
        if child in (first, second) or rng.random() < self._mutation:
            child = self.space.mutate(child, rng)
        return child, origins

    def _tournament(self, parents: list[Genotype], rng: np.random.Generator) -> Genotype:
        """The better of two random parents; they come sorted."""
        return parents[min(int(rng.integers(len(parents))), int(rng.integers(len(parents))))]
