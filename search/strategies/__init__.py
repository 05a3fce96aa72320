"""Strategies, and ways of early stopping, by name. To add one: one file and one entry here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import Field

from search.pareto import Objective
from search.registry import Options, Registry, parse_options
from search.space import Genotype
from search.strategies.base import SearchProblem, Strategy
from search.strategies.early_stopping import EarlyStopping
from search.strategies.grid import GridSearch
from search.strategies.halving import Halving, HalvingOptions
from search.strategies.nsga2 import Nsga2
from search.strategies.random import RandomSearch


class NoOptions(Options):
    """A strategy without options."""


class Nsga2Options(Options):
    """Options of NSGA-II."""

    population: int = Field(default=16, ge=2, le=10_000, description="Parents kept.")
    crossover: float = Field(default=0.9, ge=0, le=1, description="Probability that a child has two parents.")
    mutation: float = Field(default=0.5, ge=0, le=1, description="Probability that a child is changed in one stage.")


@dataclass(frozen=True)
class StrategyInfo:
    """What attune knows of a strategy."""

    name: str
    title: str
    source: str
    options: type[Options]
    implementation: type[Strategy]

    def make(self, problem: SearchProblem, seed: int, points: Sequence[Genotype], options: Options) -> Strategy:
        return self.implementation(problem, seed, points, **options.model_dump())


@dataclass(frozen=True)
class EarlyStoppingInfo:
    """What attune knows of a way of early stopping. implementation: made of objectives, epochs and its options."""

    name: str
    title: str
    source: str
    options: type[Options]
    implementation: Callable[..., EarlyStopping]

    def make(self, objectives: Sequence[Objective], epochs: int, options: Options) -> EarlyStopping:
        """epochs: of a whole trial. SpecError when the options do not go with them."""
        return self.implementation(objectives, epochs, **options.model_dump())


STRATEGIES: Registry[StrategyInfo] = Registry("strategy", "attune.strategies")
STRATEGIES.add(StrategyInfo("nsga2", "NSGA-II, steady state", "Deb et al., IEEE TEC 6(2), 2002", Nsga2Options, Nsga2))
STRATEGIES.add(
    StrategyInfo("random", "Uniform random search", "Bergstra and Bengio, JMLR 13, 2012", NoOptions, RandomSearch)
)
STRATEGIES.add(StrategyInfo("grid", "Every architecture in order", "exhaustive search", NoOptions, GridSearch))

EARLY_STOPPING: Registry[EarlyStoppingInfo] = Registry("early stopping", "attune.early_stopping")
EARLY_STOPPING.add(
    EarlyStoppingInfo(
        "halving", "Asynchronous successive halving by non-dominated rank",
        "Li et al., MLSys 2020 (ASHA); Schmucker et al., 2021 (MO-ASHA)", HalvingOptions, Halving,
    )
)  # fmt: skip

__all__ = ["EARLY_STOPPING", "STRATEGIES", "EarlyStoppingInfo", "NoOptions", "Nsga2Options", "StrategyInfo",
           "parse_options"]  # fmt: skip
