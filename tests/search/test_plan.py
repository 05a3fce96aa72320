"""A whole request looked up: what it means, and what is stored of it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from subprocess import run
from typing import Any

import pytest

from search.architecture import Architecture, Module
from search.cost import MemoryStore
from search.datasets import DatasetEntry
from search.plan import SearchPlan, make_plan
from search.recipes import RECIPES
from search.sites import Site
from search.spec import SearchSpec
from search.strategies import STRATEGIES

Entries = dict[str, DatasetEntry]


MakePlan = Callable[..., SearchPlan]


EVERYTHING: dict[str, Any] = {
    "name": "where-does-cbam-pay",
    "dataset": {"name": "dots", "size": 16},
    "backbone": {"name": "resnet20", "width": 8},
    "space": {
        "modules": ["none", "se", {"kind": "cbam", "kernel": [3, 7]}, ["se", {"kind": "cbam", "position": "post"}]],
        "reduction": [2, 4],
        "pattern": ["every", "last", [1, 3]],
        "position": ["residual", "pre"],
        "stages": {"3": {"modules": ["none", "bam"], "reduction": 8}},
    },
    "objectives": [{"metric": "loss"}, {"metric": "params", "goal": "min"}],
    "constraints": [{"metric": "macs", "at_most": 1e9}],
    "controls": False,
    "training": {"recipe": "quick", "epochs": 3, "lr": 0.05, "milestones": [0.25, 0.5]},
    "strategy": {
        "name": "nsga2",
        "seed": 7,
        "population": 8,
        "points": [{}, {"1.1.pre": {"kind": "se", "reduction": 2}}],
        "previous": [{}],
    },
    "budget": {"trials": 64, "hours": 2, "gpu_hours": 10},
    "resources": {"cpus": 1, "gpus": 0.25, "concurrent": 8},
    "confirm": {"top": 4, "seeds": 5},
    "priority": 7,
    "tags": ["a"],
    "owner": "me",
}


EVERYTHING["strategy"]["points"][1] = {
    "1.1.pre": {"kind": "se", "reduction": 2}, "1.2.pre": [{"kind": "se", "reduction": 2}],
    "1.3.pre": {"kind": "se", "reduction": 2},
}  # fmt: skip


@pytest.mark.parametrize("request_", [{"name": "x", "dataset": {"name": "dots"}}, EVERYTHING])
def test_what_is_stored_means_the_same(request_: dict[str, Any], datasets: Entries) -> None:
    plan = make_plan(SearchSpec.parse(request_), datasets)
    stored = json.loads(json.dumps(plan.resolved(), allow_nan=False))
    again = make_plan(SearchSpec.parse_stored(stored), datasets)
    assert again.resolved() == stored
    for name in ("dataset", "backbone", "objectives", "recipe", "strategy_info", "strategy_options"):
        assert getattr(again, name) == getattr(plan, name), name
    assert (again.points, again.previous) == (plan.points, plan.previous)
    assert again.space.genes == plan.space.genes
    assert again.controls == plan.controls
    for name in ("constraints", "budget", "resources", "confirm", "priority", "tags", "owner", "controls"):
        assert getattr(again.spec, name) == getattr(plan.spec, name), name


def test_every_default_is_stored(make: MakePlan) -> None:
    stored = make().resolved()
    assert stored["spec_version"] == 1
    assert stored["dataset"] == {"name": "dots", "size": 12}
    assert stored["backbone"] == {"name": "resnet14", "width": 16, "shortcut": "projection"}
    assert stored["objectives"] == [{"metric": "top1", "goal": "max"}, {"metric": "macs", "goal": "min"}]
    assert stored["training"]["epochs"] == RECIPES.get("quick").recipe.epochs
    assert stored["training"]["recipe"] == "quick"
    assert stored["strategy"] == {
        "name": "nsga2", "seed": 0, "early_stopping": None, "points": [], "previous": [], "population": 16,
        "crossover": 0.9, "mutation": 0.5,
    }  # fmt: skip


def test_overrides_reach_the_recipe_and_the_strategy(datasets: Entries) -> None:
    plan = make_plan(SearchSpec.parse(EVERYTHING), datasets)
    assert (plan.epochs, plan.recipe.lr, plan.recipe.milestones) == (3, 0.05, (0.25, 0.5))
    assert plan.strategy_options.model_dump() == {"population": 8, "crossover": 0.9, "mutation": 0.5}
    assert plan.task.input_shape == (1, 16, 16)
    assert [(o.metric, o.goal) for o in plan.objectives] == [("loss", "min"), ("params", "min")]


@pytest.mark.parametrize("written", ["halving", {"name": "halving"}, {"name": "halving", "min_epochs": 1, "eta": 3}])
def test_early_stopping_by_name_and_with_options_is_one(make: MakePlan, written: Any) -> None:
    plan = make(strategy={"early_stopping": written}, training={"epochs": 10})
    assert plan.resolved()["strategy"]["early_stopping"] == {"name": "halving", "eta": 3, "min_epochs": 1}
    stopping = plan.early_stopping()
    assert stopping is not None
    assert stopping.rungs == (1, 3, 9)
    assert make().early_stopping() is None


def test_points_are_the_placements_that_they_write(datasets: Entries) -> None:
    plan = make_plan(SearchSpec.parse(EVERYTHING), datasets)
    baseline, everywhere = map(plan.space.architecture, plan.points)
    assert baseline.is_baseline
    se = (Module.make("se", reduction=2),)
    assert everywhere.placements == tuple((Site(1, block, "pre"), se) for block in (1, 2, 3))


def test_the_baseline_and_each_module_as_published_are_controls(make: MakePlan) -> None:
    """ResNet-14 of width 16 has 16, 32 and 64 channels: the papers' ratio of 16 fits all."""
    plan = make(space={"modules": ["none", "se", "bam"], "reduction": [2]})
    sites = [Site(stage, block, "residual") for stage in (1, 2, 3) for block in (1, 2)]
    ends = [Site(stage, 2, "stage_end") for stage in (1, 2, 3)]
    expected = [
        ("baseline", Architecture.make(plan.backbone, {})),
        ("control", Architecture.make(plan.backbone, {site: [Module.make("bam")] for site in ends})),
        ("control", Architecture.make(plan.backbone, {site: [Module.make("se")] for site in sites})),
    ]
    assert list(plan.controls) == expected


def test_a_control_takes_the_largest_ratio_that_fits(make: MakePlan) -> None:
    plan = make(backbone={"name": "resnet14", "width": 8}, space={"modules": ["none", "se"], "reduction": 2})
    (_, control) = plan.controls[1]
    assert {module.options.model_dump()["reduction"] for _, ms in control.placements for module in ms} == {8}


def test_without_controls_there_is_still_the_baseline(make: MakePlan) -> None:
    assert [role for role, _ in make(controls=False).controls] == ["baseline"]


def test_a_request_is_checked_without_torch() -> None:
    code = (
        "import sys; from search.plan import *; "
        "entry = DatasetEntry(name='d', title='', source='', input_shape=(1, 8, 8), classes=10, train_size=1, "
        "validation_size=1, test_size=1, fingerprint=''); "
        "make_plan(SearchSpec.parse({'name': 'x', 'dataset': {'name': 'd'}}), {'d': entry}); "
        "assert not {'torch', 'ray', 'sqlalchemy'} & set(sys.modules)"
    )
    run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_plan_makes_its_strategy_and_bounds(make: MakePlan) -> None:
    store = MemoryStore()
    for name in STRATEGIES.names():
        plan = make(strategy={"name": name}, backbone={"name": "resnet8", "width": 8})
        costs = plan.costs(store)
        least, greatest = costs.range("macs")
        bounds = plan.bounds(costs)
        assert bounds.best == (1.0, least)
        assert bounds.worst == (0.0, pytest.approx(greatest * 1.05))
        proposal = plan.strategy(costs).ask(1)
        assert proposal is not None
        assert plan.space.architecture(proposal.genotype)
        assert math.isfinite(bounds.hypervolume([(0.5, costs.cost(proposal.genotype).macs)]))
