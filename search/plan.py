"""SearchPlan: a request with everything it names looked up and checked, ready to preview or to run.

Torch-free; `costs` loads torch only for sites whose cost nobody has counted yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from search import constraints, lookups
from search.architecture import Architecture, Backbone, Module, Task
from search.cost import CostStore, CostTable
from search.datasets import DatasetEntry, ResolvedDataset, UnavailableDataset
from search.errors import Problem, SpecError
from search.lookups import StoppingRule
from search.metrics import is_speed
from search.pareto import Bounds, Objective
from search.recipes import Recipe
from search.registry import Options, parse_options
from search.sites import Site
from search.space import Genotype, SearchSpace
from search.space_cost import COST_METRICS, SpaceCosts
from search.spec import SPEC_VERSION, SearchSpec
from search.strategies import STRATEGIES, StrategyInfo
from search.strategies.base import SearchProblem, Strategy
from search.strategies.early_stopping import EarlyStopping
from search.weights import Weights

T = TypeVar("T")


@dataclass(frozen=True)
class SearchPlan:
    """A checked request. spec: as written; the rest: what it means. weights: what trials start from, if not drawn.

    points, previous: to try first, in this order; previous may name some of points again. Its own are never stopped
    early, because an earlier search is judged by what they reach. reconfirmed: to confirm beside this search's own
    best, for the same reason.
    """

    spec: SearchSpec
    dataset: ResolvedDataset
    backbone: Backbone
    weights: Weights | None
    space: SearchSpace
    objectives: tuple[Objective, ...]
    recipe: Recipe
    strategy_info: StrategyInfo
    strategy_options: Options
    points: tuple[Genotype, ...]
    previous: tuple[Genotype, ...] = ()
    stopping: StoppingRule | None = None
    reconfirmed: tuple[Architecture, ...] = ()

    @property
    def task(self) -> Task:
        return self.dataset.task

    @property
    def epochs(self) -> int:
        return self.recipe.epochs

    def resolved(self) -> dict[str, Any]:
        """The request with every default filled in, as it is stored and shown."""
        data = self.spec.model_dump(mode="json")
        data["spec_version"] = SPEC_VERSION
        data["dataset"] = {"name": self.dataset.name, **self.dataset.options}
        data["backbone"] = self.backbone.to_json()
        if self.weights is not None:
            data["init"] = {"weights": self.weights.name, "fingerprint": self.weights.fingerprint}
        data["objectives"] = [{"metric": o.metric, "goal": o.goal} for o in self.objectives]
        data["training"] = {"recipe": self.spec.training.recipe, **self.recipe.model_dump(mode="json")}
        options = self.strategy_options.model_dump(mode="json")
        data["strategy"] = {**data["strategy"], **options}
        if self.stopping is not None:
            named = {"name": self.stopping.info.name, **self.stopping.options.model_dump(mode="json")}
            data["strategy"]["early_stopping"] = named
        return data

    def costs(self, store: CostStore | None = None) -> SpaceCosts:
        """The cost of every placement of the space."""
        return SpaceCosts(self.space, CostTable(self.backbone, self.task, store))

    @property
    def measures_latency(self) -> bool:
        """Whether trained networks are to be timed."""
        return any(is_speed(objective.metric) for objective in self.objectives)

    def bounds(self, costs: SpaceCosts, speeds: Mapping[str, float] | None = None) -> Bounds:
        """speeds: see `Bounds.make`."""
        ranges = {name: costs.range(name) for name in COST_METRICS}
        known = {name: (float(least), float(greatest)) for name, (least, greatest) in ranges.items()}
        return Bounds.make(self.objectives, known, self.task.classes, speeds)

    def strategy(self, costs: SpaceCosts) -> Strategy:
        """A fresh strategy; tell it what is known, then ask."""
        problem = SearchProblem(self.space, self.objectives, self.feasibility(costs))
        return self.strategy_info.make(problem, self.spec.strategy.seed, self.first, self.strategy_options)

    @property
    def first(self) -> tuple[Genotype, ...]:
        """What the strategy proposes before anything of its own, each once."""
        return tuple(dict.fromkeys((*self.points, *self.previous)))

    def early_stopping(self) -> EarlyStopping | None:
        """A fresh one, with empty rungs; None for a search that trains every trial to its end."""
        rule = self.stopping
        return None if rule is None else rule.info.make(self.objectives, self.epochs, rule.options)

    def feasibility(self, costs: SpaceCosts) -> Callable[[Genotype], bool]:
        """Whether a genotype's cost keeps the constraints."""
        return lambda genotype: constraints.keeps(self.spec.constraints, costs, genotype)

    def check_constraints(self, costs: SpaceCosts) -> None:
        """SpecError when the constraints shut out the whole space, or a point that the strategy is to try first."""
        problems = [*constraints.problems(self.spec.constraints, costs)]
        for field, points in (("points", self.points), ("previous", self.previous)):
            for index, point in enumerate(points):
                for broken in constraints.broken(self.spec.constraints, costs.cost(point)):
                    problems.append(Problem(f"strategy.{field}.{index}", f"Breaks a constraint: {broken}."))
        if problems:
            raise SpecError(problems)

    @cached_property
    def controls(self) -> tuple[tuple[str, Architecture], ...]:
        """What is trained beside the search: the baseline, then each module of the space as its paper places it.

        Roles are "baseline" and "control". A module goes to every block (or every stage end) at its paper's
        position, with its paper's reduction ratio or the largest that fits all stages.
        """
        found = [("baseline", Architecture.make(self.backbone, {}))]
        if self.spec.controls:
            kinds = {kind for gene in self.space.genes for choice in gene.choices for kind in choice.kinds}
            published = (self._published(kind) for kind in sorted(kinds))
            found += [("control", architecture) for architecture in published if architecture is not None]
        return tuple(found)

    def _published(self, kind: str) -> Architecture | None:
        """`kind` in its paper's place all over the backbone; None where the backbone has no such place."""
        for options in _paper_options(kind):
            module = Module.make(kind, "", **options)
            position = module.info.positions[0]
            sites: dict[Site, list[Module]] = {}
            for stage in self.space.stages:
                for number, block in enumerate(stage.blocks, start=1):
                    if position in block.points:
                        sites[Site(stage.number, number, position)] = [module]
            architecture = Architecture.make(self.backbone, sites)
            if sites and not any(architecture.problems(self.task.input_shape)):
                return architecture
        return None


def _paper_options(kind: str) -> Iterator[dict[str, Any]]:
    """The module's defaults, then the same with smaller and smaller reduction ratios."""
    yield {}
    info = Module.make(kind).info
    if info.has_reduction:
        default = int(info.options.model_fields["reduction"].default)
        while default > 1:
            default //= 2
            yield {"reduction": default}


def make_plan(
    spec: SearchSpec,
    datasets: Mapping[str, DatasetEntry],
    weights: Mapping[str, str] | None = None,
    unavailable: Mapping[str, UnavailableDataset] | None = None,
) -> SearchPlan:
    """Looks up everything that `spec` names; SpecError with every problem that can be told at once.

    datasets: what the workers have published, by name. weights: the same, fingerprints by name. unavailable: the data
    sets that workers know and cannot use, for the error that says what they need.
    """
    problems: list[Problem] = []

    def attempt(make: Callable[[], T]) -> T | None:
        try:
            return make()
        except SpecError as error:
            problems.extend(error.problems)
            return None

    entry = attempt(lambda: lookups.dataset_entry(spec, datasets, unavailable))
    dataset = entry and attempt(lambda: entry.resolve(spec.dataset.options, "dataset"))
    backbone = attempt(lambda: Backbone.parse(spec.backbone.name, spec.backbone.options))
    initial = attempt(lambda: lookups.initial_weights(spec, weights or {}))
    objectives = attempt(lambda: lookups.objectives_of(spec))
    problems += constraints.written_problems(spec.constraints)
    recipe = attempt(lambda: lookups.recipe_of(spec))
    strategy = attempt(lambda: STRATEGIES.get(spec.strategy.name, "strategy.name"))
    options = attempt(lambda: parse_options(strategy.options, spec.strategy.options, "strategy")) if strategy else None
    stopping = attempt(lambda: lookups.stopping_rule(spec, objectives or (), recipe))
    space = None
    if dataset and backbone:
        space = attempt(lambda: lookups.space_of(spec, backbone, dataset))
    points = space and attempt(lambda: lookups.genotypes(spec.strategy.points, space, "strategy.points"))
    before = space and attempt(lambda: lookups.genotypes(spec.strategy.previous, space, "strategy.previous"))
    confirm = spec.confirm.previous if spec.confirm else []
    again = backbone and attempt(lambda: lookups.architectures(confirm, backbone, "confirm.previous"))
    if problems:
        raise SpecError(dict.fromkeys(problems))
    assert dataset  # whatever is None here has left its problem above
    assert backbone
    assert space
    assert objectives
    assert recipe
    assert strategy
    assert options is not None
    return SearchPlan(
        spec, dataset, backbone, initial, space, objectives, recipe, strategy, options, points or (), before or (),
        stopping, again or (),
    )  # fmt: skip
