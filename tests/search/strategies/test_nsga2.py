"""NSGA-II: an even first generation, parents from the front, and a gain over random search where the front is known."""

from __future__ import annotations

import statistics

import numpy as np
import numpy.typing as npt
import pytest

from search.architecture import Backbone
from search.pareto import Bounds, Objective, front, minimised
from search.registry import parse_options
from search.space import Genotype, SearchSpace
from search.spec import SpaceSpec
from search.strategies import STRATEGIES
from search.strategies.base import Outcome, SearchProblem

OBJECTIVES = (Objective("top1", "max"), Objective("macs", "min"))
TRIALS = 120


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    """29,791 architectures of 31 choices a stage."""
    patterns = ["every", "first", "last", [2], [1, 2]]
    spec = SpaceSpec(modules=["none", "se", "cbam"], reduction=[2, 4, 8], pattern=patterns)
    return SearchSpace(spec, Backbone.make("resnet20", width=8), (1, 12, 12))


class Synthetic:
    """Each gene adds gain and cost of its own, so the front can be found by going through the whole space."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.space = space
        self.costs = [np.concatenate([[0.0], rng.uniform(1, 30, size - 1)]) for size in space.sizes]
        # most of what costs gains something, with much noise: few choices are worth their cost
        self.gains = [0.002 * cost * rng.uniform(-0.5, 1, len(cost)) for cost in self.costs]
        top = sum(cost.max() for cost in self.costs)
        self.bounds = Bounds.make(OBJECTIVES, {"macs": (100.0, 100.0 + float(top))}, 10)

    def values(self, genotypes: npt.ArrayLike) -> npt.NDArray[np.float64]:
        chosen = np.asarray(genotypes).reshape(-1, len(self.costs))
        gain = sum(gains[chosen[:, gene]] for gene, gains in enumerate(self.gains))
        cost = sum(costs[chosen[:, gene]] for gene, costs in enumerate(self.costs))
        return np.stack([0.8 + gain, 100 + cost], axis=1)

    def share(self, found: list[Genotype]) -> float:
        """How much of the way from the cheapest architecture to the whole front has been gone."""
        everything = self.values(np.stack(np.unravel_index(np.arange(self.space.count), self.space.sizes), axis=1))
        best = self.bounds.hypervolume(everything[front(minimised(everything, OBJECTIVES))])
        nothing = self.bounds.hypervolume(self.values([(0,) * len(self.costs)]))
        return (self.bounds.hypervolume(self.values(found)) - nothing) / (best - nothing)


def searched(name: str, problem: Synthetic, seed: int) -> list[Genotype]:
    info = STRATEGIES.get(name)
    strategy = info.make(SearchProblem(problem.space, OBJECTIVES), seed, (), parse_options(info.options, {}))
    found: list[Genotype] = [(0,) * len(problem.space.sizes)]  # the baseline is always there
    for number in range(1, TRIALS + 1):
        accuracy, cost = problem.values(found[-1])[0]
        strategy.tell(Outcome(found[-1], (float(accuracy), float(cost))))
        proposal = strategy.ask(number)
        assert proposal is not None
        found.append(proposal.genotype)
    return found


def test_it_comes_nearer_to_the_known_front_than_random_search(space: SearchSpace) -> None:
    problems = [Synthetic(space, seed) for seed in range(7)]
    ours, random = (
        [problem.share(searched(name, problem, seed)) for seed, problem in enumerate(problems)]
        for name in ("nsga2", "random")
    )
    assert all(0 <= share <= 1 for share in ours + random)
    assert statistics.median(ours) > statistics.median(random) + 0.1
    assert sum(mine > theirs for mine, theirs in zip(ours, random, strict=True)) >= 6


def test_the_first_generation_is_even() -> None:
    """Over one population, each choice of a gene comes up as often as any other, give or take one."""
    spec = SpaceSpec(modules=["none", "se", "cbam"], reduction=[2, 4], pattern=["every", "last"])
    space = SearchSpace(spec, Backbone.make("resnet14", width=8), (1, 12, 12))
    info = STRATEGIES.get("nsga2")
    for seed in range(5):
        strategy = info.make(
            SearchProblem(space, OBJECTIVES), seed, (), parse_options(info.options, {"population": 18})
        )
        drawn = [strategy.ask(number) for number in range(18)]
        genotypes = np.asarray([proposal.genotype for proposal in drawn if proposal])
        for gene in genotypes.T:
            assert set(np.bincount(gene, minlength=9)) <= {1, 2, 3}


def test_children_come_of_the_front(space: SearchSpace) -> None:
    """With as many on the front as there are parents, nobody else has children."""
    info = STRATEGIES.get("nsga2")
    strategy = info.make(SearchProblem(space, OBJECTIVES), 0, (), parse_options(info.options, {"population": 4}))
    best = [(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0)]
    for rank, genotype in enumerate(best):
        strategy.tell(Outcome(genotype, (0.8 + 0.01 * rank, 100.0 + rank)))
    for worse in range(10, 30):
        strategy.tell(Outcome((worse, worse, worse), (0.5, 200.0 + worse)))
    for number in range(1, 60):
        proposal = strategy.ask(number)
        assert proposal is not None
        parents = [tuple(parent) for parent in proposal.note["parents"]]
        assert set(parents) <= set(best)
        assert (proposal.note["by"], len(parents)) in [("mutation", 1), ("crossover", 2)]
        if proposal.note["by"] == "mutation":
            assert sum(a != b for a, b in zip(parents[0], proposal.genotype, strict=True)) == 1
