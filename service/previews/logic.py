"""A request's meaning in numbers: exact count and cost, and time as far as it is known."""

from __future__ import annotations

from typing import Any

from db import catalog, views
from db.engine import reading
from search.cost import CostTable
from search.describe import describe
from search.plan import SearchPlan
from search.space import Gene
from search.space_cost import COST_METRICS, SpaceCosts
from service.cluster.logic import ALIVE_SECONDS
from service.previews.schemas import Budget, Control, CostOut, Decision, Estimate, Preview, Range
from service.searches import submission
from service.state import Service


def make(house: Service, data: Any) -> Preview:
    """SpecError with everything that is wrong; may count costs, which loads torch the first time."""
    with reading(house.engine) as session:
        plan = submission.check(session, data)
        pace = views.pace(session, backbone=plan.backbone.name, dataset_fingerprint=plan.dataset.fingerprint)
        nodes = catalog.nodes(session, seen_within_seconds=ALIVE_SECONDS)
    submission.check_gpus(house, plan)
    submission.check_probe(plan, nodes)
    costs = house.costs.of(plan)
    plan.check_constraints(costs)
    budget = _budget(plan)
    genes = plan.space.genes
    return Preview(
        count=str(plan.space.count),
        sites=sum(len(sites_of(gene)) for gene in genes),
        decisions=[_decision(gene, costs, index) for index, gene in enumerate(genes)],
        baseline=CostOut(params=costs.backbone.params, macs=costs.backbone.macs),
        cost={metric: _range(costs.range(metric)) for metric in COST_METRICS},
        controls=_controls(house, plan),
        strategy=plan.strategy_info.name,
        budget=budget,
        estimate=_estimate(plan, budget, pace),
        waiting_reason=submission.waiting_reason(plan.spec.resources.gpus, nodes),
        spec=plan.resolved(),
    )


def sites_of(gene: Gene) -> list[str]:
    """Every site that some choice of the gene fills."""
    return [str(site) for site in sorted({site for choice in gene.choices for site, _ in choice.placements})]


def _decision(gene: Gene, costs: SpaceCosts, index: int) -> Decision:
    adds = {metric: _range(costs.gene_ranges(metric)[index]) for metric in COST_METRICS}
    return Decision(stages=list(gene.stages), choices=len(gene.choices), sites=sites_of(gene), adds=adds)


def _range(ends: tuple[int, int]) -> Range:
    return Range(least=ends[0], greatest=ends[1])


def _controls(house: Service, plan: SearchPlan) -> list[Control]:
    with house.costs.counting() as store:
        table = CostTable(plan.backbone, plan.task, store)
        found = [(role, architecture, table.architecture(architecture)) for role, architecture in plan.controls]
    return [
        Control(
            role=role,
            label=describe(architecture),
            key=architecture.key,
            architecture=architecture.to_json(),
            cost=CostOut(params=cost.params, macs=cost.macs),
        )
        for role, architecture, cost in found
    ]


def _budget(plan: SearchPlan) -> Budget:
    spec = plan.spec
    explore = min(spec.budget.trials, plan.space.count)
    confirm = spec.confirm.top * spec.confirm.seeds if spec.confirm else 0
    if spec.confirm:
        confirm += spec.confirm.baseline_seeds or spec.confirm.seeds
    controls = len(plan.controls)
    return Budget(
        trials=spec.budget.trials,
        explore=explore,
        controls=controls,
        confirm=confirm,
        total=explore + controls + confirm,
        covers_space=spec.budget.trials >= plan.space.count,
    )


def _estimate(plan: SearchPlan, budget: Budget, pace: views.Pace | None) -> Estimate | None:
    if pace is None:
        return None
    each = pace.seconds_per_epoch * plan.epochs
    confirm_epochs = (plan.spec.confirm.epochs if plan.spec.confirm else None) or plan.epochs
    total = each * (budget.explore + budget.controls) + pace.seconds_per_epoch * confirm_epochs * budget.confirm
    return Estimate(seconds_per_trial=each, seconds=total, based_on=pace.trials)
