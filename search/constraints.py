"""Constraints on cost: what keeps them, and whether anything can."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from search.cost import Cost
from search.errors import Problem, shown
from search.space import Genotype
from search.space_cost import COST_METRICS, SpaceCosts
from search.spec import ConstraintSpec
from search.strategies.base import ENUMERABLE

Constraints = Sequence[ConstraintSpec]


def written_problems(constraints: Constraints) -> Iterator[Problem]:
    """What is wrong with the constraints as they are written."""
    for index, constraint in enumerate(constraints):
        field = f"constraints.{index}.metric"
        if constraint.metric not in COST_METRICS:
            text = f"Only costs, known before training, can be constrained; {shown(constraint.metric)} is not one."
            yield Problem(field, text, COST_METRICS)
        elif constraint.metric in (earlier.metric for earlier in constraints[:index]):
            text = f"{constraint.metric!r} is listed twice; one constraint takes both at_least and at_most."
            yield Problem(field, text)


def broken(constraints: Constraints, cost: Cost) -> Iterator[str]:
    """The constraints that `cost` does not keep, in words."""
    for constraint in constraints:
        value = getattr(cost, constraint.metric)
        if constraint.at_most is not None and value > constraint.at_most:
            yield f"{constraint.metric} is {value:,}, at most {constraint.at_most:,.12g} are allowed"
        if constraint.at_least is not None and value < constraint.at_least:
            yield f"{constraint.metric} is {value:,}, at least {constraint.at_least:,.12g} are asked for"


def keeps(constraints: Constraints, costs: SpaceCosts, genotype: Genotype) -> bool:
    """Whether the cost of `genotype` keeps every constraint."""
    return not constraints or not any(broken(constraints, costs.cost(genotype)))


def problems(constraints: Constraints, costs: SpaceCosts) -> Iterator[Problem]:
    """The constraints that alone shut out the whole space; else, in a space small enough to go through, whether all
    of them together do."""
    possible = True
    for index, constraint in enumerate(constraints):
        least, greatest = costs.range(constraint.metric)
        if constraint.at_most is not None and constraint.at_most < least:
            possible = False
            text = f"Nothing in the space is so cheap: {constraint.metric} is at least {least:,}."
            yield Problem(f"constraints.{index}.at_most", text)
        if constraint.at_least is not None and constraint.at_least > greatest:
            possible = False
            text = f"Nothing in the space is so expensive: {constraint.metric} is at most {greatest:,}."
            yield Problem(f"constraints.{index}.at_least", text)
    if possible and constraints and costs.space.count <= ENUMERABLE and not _any_kept(constraints, costs):
        yield Problem("constraints", "No architecture of the space keeps all constraints.")


def _any_kept(constraints: Constraints, costs: SpaceCosts) -> bool:
    space = costs.space
    totals = costs.totals(np.stack(np.unravel_index(np.arange(space.count), space.sizes), axis=1))
    kept = np.ones(len(totals), dtype=np.bool_)
    for constraint in constraints:
        column = totals[:, COST_METRICS.index(constraint.metric)]
        kept &= column <= (math.inf if constraint.at_most is None else constraint.at_most)
        kept &= column >= (-math.inf if constraint.at_least is None else constraint.at_least)
    return bool(kept.any())
