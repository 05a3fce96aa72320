"""The costs of a space against each of its architectures counted by itself, and the constraints on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from search.cost import Cost, CostTable
from search.errors import SpecError
from search.plan import SearchPlan
from search.space_cost import COST_METRICS, SpaceCosts

MakePlan = Callable[..., SearchPlan]

SPACE: dict[str, Any] = {
    "modules": ["none", "se", "aw", ["aw", "cbam"]],
    "reduction": [4],
    "pattern": ["every", "last"],
    "stages": {"3": {"modules": ["none", "bam"], "pattern": "every"}},
}
BACKBONE = {"name": "resnet14", "width": 8}


@pytest.fixture(scope="module")
def plan(make: MakePlan) -> SearchPlan:
    return make(backbone=BACKBONE, space=SPACE)


@pytest.fixture(scope="module")
def costs(plan: SearchPlan) -> SpaceCosts:
    return plan.costs()


@pytest.fixture(scope="module")
def alone(plan: SearchPlan) -> dict[tuple[int, ...], Cost]:
    """Every architecture, costed without the space."""
    table = CostTable(plan.backbone, plan.task)
    return {genotype: table.architecture(plan.space.architecture(genotype)) for genotype in plan.space.enumerate()}


def test_every_total_is_its_architectures(costs: SpaceCosts, alone: dict[tuple[int, ...], Cost]) -> None:
    totals = costs.totals(list(alone))
    assert totals.dtype == np.int64
    assert [Cost(*row) for row in totals.tolist()] == list(alone.values())
    assert [costs.cost(genotype) for genotype in alone] == list(alone.values())
    assert len(alone) == 7 * 7 * 2


def test_ranges_are_the_ends_of_the_enumeration(costs: SpaceCosts, alone: dict[tuple[int, ...], Cost]) -> None:
    for name in COST_METRICS:
        values = [getattr(cost, name) for cost in alone.values()]
        assert costs.range(name) == (min(values), max(values))
        ranges = costs.gene_ranges(name)
        base = getattr(costs.backbone, name)
        assert (base + sum(low for low, _ in ranges), base + sum(high for _, high in ranges)) == costs.range(name)


def test_genotypes_of_another_shape_are_refused(costs: SpaceCosts) -> None:
    assert costs.totals([]).shape == (0, 2)
    for wrong in ([(0, 0)], [0, 0, 0], [(0, 0, 0, 0)] * 3):
        with pytest.raises(ValueError, match="expected genotypes of n × 3"):
            costs.totals(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", ["at_most", "at_least", "between", "both metrics"])
def test_feasible_is_what_keeps_every_constraint(
    make: MakePlan, costs: SpaceCosts, alone: dict[tuple[int, ...], Cost], case: str
) -> None:
    macs, params = (sorted(getattr(cost, name) for cost in alone.values()) for name in ("macs", "params"))
    low, middle, high = macs[20], macs[49], macs[80]
    constraints, keeps = {
        "at_most": ([{"metric": "macs", "at_most": middle}], lambda c: c.macs <= middle),
        "at_least": ([{"metric": "macs", "at_least": middle}], lambda c: c.macs >= middle),
        "between": ([{"metric": "macs", "at_least": low, "at_most": high}], lambda c: low <= c.macs <= high),
        "both metrics": (
            [{"metric": "macs", "at_most": high}, {"metric": "params", "at_most": params[70]}],
            lambda c: c.macs <= high and c.params <= params[70],
        ),
    }[case]
    plan = make(backbone=BACKBONE, space=SPACE, constraints=constraints)
    plan.check_constraints(costs)
    feasible = plan.feasibility(costs)
    found = {genotype for genotype in alone if feasible(genotype)}
    assert found == {genotype for genotype, cost in alone.items() if keeps(cost)}
    assert 0 < len(found) < len(alone)


def problems(make: MakePlan, costs: SpaceCosts, **fields: Any) -> list[tuple[str, str]]:
    with pytest.raises(SpecError) as caught:
        make(backbone=BACKBONE, space=SPACE, **fields).check_constraints(costs)
    return [(problem.field, problem.message) for problem in caught.value.problems]


def test_a_constraint_that_shuts_everything_out(make: MakePlan, costs: SpaceCosts) -> None:
    least, _ = costs.range("macs")
    fewest, most = costs.range("params")
    written = [{"metric": "macs", "at_most": least - 1}, {"metric": "params", "at_least": most + 1}]
    assert problems(make, costs, constraints=written) == [
        ("constraints.0.at_most", f"Nothing in the space is so cheap: macs is at least {least:,}."),
        ("constraints.1.at_least", f"Nothing in the space is so expensive: params is at most {most:,}."),
    ]
    at_the_ends = [{"metric": "macs", "at_most": least}, {"metric": "params", "at_most": fewest}]
    make(backbone=BACKBONE, space=SPACE, constraints=at_the_ends).check_constraints(costs)


def test_constraints_that_shut_everything_out_together(
    make: MakePlan, costs: SpaceCosts, alone: dict[tuple[int, ...], Cost]
) -> None:
    least, _ = costs.range("macs")
    written = [{"metric": "macs", "at_most": least}, {"metric": "params", "at_least": costs.range("params")[1]}]
    nothing = [("constraints", "No architecture of the space keeps all constraints.")]
    assert problems(make, costs, constraints=written) == nothing
    values = sorted({cost.macs for cost in alone.values()})
    gap = {"metric": "macs", "at_least": values[3] + 0.25, "at_most": values[4] - 0.25}
    assert problems(make, costs, constraints=[gap]) == nothing


def test_a_point_that_breaks_a_constraint(make: MakePlan, costs: SpaceCosts) -> None:
    base = costs.backbone.macs
    point = {f"1.{block}.residual": {"kind": "se", "reduction": 4} for block in (1, 2)}
    added = 2 * 2 * 8 * 8 // 4
    message = f"Breaks a constraint: macs is {base + added:,}, at most {base:,} are allowed."
    constraints = [{"metric": "macs", "at_most": base}]
    found = problems(make, costs, constraints=constraints, strategy={"points": [{}, point]})
    assert found == [("strategy.points.1", message)]
    found = problems(make, costs, constraints=constraints, strategy={"previous": [{}, point]})
    assert found == [("strategy.previous.1", message)]


def test_without_constraints_everything_is_feasible(plan: SearchPlan, costs: SpaceCosts) -> None:
    plan.check_constraints(costs)
    assert all(map(plan.feasibility(costs), plan.space.enumerate()))
