"""What the parts of a request name, looked up. Each raises SpecError with the field, and its choices if it has any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from search.architecture import Architecture, Backbone, Module
from search.datasets import DatasetEntry, ResolvedDataset, UnavailableDataset, find_dataset
from search.errors import Problem, SpecError
from search.metrics import METRICS, is_speed, metric
from search.pareto import Objective
from search.recipes import Recipe
from search.recipes import resolve as resolve_recipe
from search.registry import Options, parse_options
from search.sites import Site
from search.space import Genotype, SearchSpace
from search.spec import SearchSpec
from search.strategies import EARLY_STOPPING, EarlyStoppingInfo
from search.weights import Weights, choose


@dataclass(frozen=True)
class StoppingRule:
    """The way of early stopping that a request names, looked up."""

    info: EarlyStoppingInfo
    options: Options


def dataset_entry(
    spec: SearchSpec, datasets: Mapping[str, DatasetEntry], unavailable: Mapping[str, UnavailableDataset] | None
) -> DatasetEntry:
    """The data set, as workers have published it. unavailable: for the error, the ones that they cannot use."""
    if not datasets:
        raise SpecError.one(
            "dataset.name", "No worker has published a data set yet: start `attune dispatch` or `attune serve`."
        )
    return find_dataset(datasets, spec.dataset.name, unavailable=unavailable)


def initial_weights(spec: SearchSpec, known: Mapping[str, str]) -> Weights | None:
    """What trials start from, None where their weights are drawn. known: fingerprints by name."""
    written = spec.init
    return None if written.weights is None else choose(written.weights, known, written.fingerprint)


def recipe_of(spec: SearchSpec) -> Recipe:
    """How trials are trained, with what the request changes of it."""
    overrides = dict(spec.training.options)
    if spec.training.epochs is not None:
        overrides["epochs"] = spec.training.epochs
    recipe = resolve_recipe(spec.training.recipe, overrides)
    if recipe.batch_size < spec.resources.processes:
        message = f"A trial of {spec.resources.processes} workers needs an image for each of them in a batch."
        raise SpecError.one("training.batch_size", message)
    if spec.init.weights is None and (recipe.backbone_lr != 1 or recipe.freeze_epochs):
        field = "training.backbone_lr" if recipe.backbone_lr != 1 else "training.freeze_epochs"
        field = field if field.removeprefix("training.") in overrides else "training.recipe"
        raise SpecError.one(field, "Fine-tuning needs pretrained weights: name them as init.weights.")
    return recipe


def stopping_rule(spec: SearchSpec, objectives: tuple[Objective, ...], recipe: Recipe | None) -> StoppingRule | None:
    """How trials are stopped early; None where they are not. recipe: None where it is wrong itself."""
    written, field = spec.strategy.early_stopping, "strategy.early_stopping"
    if written is None:
        return None
    info = EARLY_STOPPING.get(written.name, f"{field}.name")
    rule = StoppingRule(info, parse_options(info.options, written.options, field))
    late = [objective.metric for objective in objectives if is_speed(objective.metric)]
    if late:
        raise SpecError.one(field, f"{late[0]} is measured when training has ended: no epoch can be judged by it.")
    if recipe is not None:
        try:
            info.make(objectives, recipe.epochs, rule.options)
        except SpecError as error:
            raise error.under(field) from None
    return rule


def space_of(spec: SearchSpec, backbone: Backbone, dataset: ResolvedDataset) -> SearchSpace:
    """The space on the data set's images."""
    shape = dataset.input_shape
    try:
        backbone.stages(shape)
    except SpecError as error:
        size = f"{backbone.name} on images of {shape[1]} × {shape[2]} ({dataset.name})"
        # a library's network is looked up only now, so that it may be the name that is wrong
        raise SpecError(
            p if p.field == "backbone.name" else Problem("backbone", f"{size}: {p.message}", p.choices)
            for p in error.problems
        ) from None
    try:
        return SearchSpace(spec.space, backbone, shape)
    except SpecError as error:
        raise error.under("space") from None


def objectives_of(spec: SearchSpec) -> tuple[Objective, ...]:
    """The metrics that the search is judged by, at least one of which needs training."""
    problems: list[Problem] = []
    found: list[Objective] = []
    for index, written in enumerate(spec.objectives):
        try:
            known = metric(written.metric, f"objectives.{index}.metric")
        except SpecError as error:
            problems += error.problems
            continue
        if written.goal not in (None, known.goal):
            problems.append(
                Problem(f"objectives.{index}.goal", f"{known.name} is better when {known.goal}imal.", (known.goal,))
            )
        if known.name in (o.metric for o in found):
            problems.append(Problem(f"objectives.{index}.metric", f"{known.name!r} is listed twice."))
        found.append(Objective(known.name, known.goal))
    if not problems and not any(METRICS[o.metric].kind == "quality" for o in found):
        quality = tuple(m.name for m in METRICS.values() if m.kind == "quality")
        problems.append(
            Problem("objectives", "At least one objective must need training, or there is nothing to search.", quality)
        )
    if problems:
        raise SpecError(problems)
    return tuple(found)


def genotypes(written: Sequence[Mapping[str, Any]], space: SearchSpace, list_: str) -> tuple[Genotype, ...]:
    """Points of the space, {site: modules} each. list_: the field that they are written in."""
    problems: list[Problem] = []
    found: dict[Genotype, int] = {}
    for index, point in enumerate(written):
        field = f"{list_}.{index}"
        try:
            architecture = _point(space.backbone, point, field)
        except SpecError as error:
            problems += error.problems
            continue
        try:
            genotype = space.genotype(architecture)
        except SpecError as error:
            problems += [replace(p, field=field) for p in error.problems]
            continue
        if genotype in found:
            problems.append(Problem(field, f"Places the same modules as point {found[genotype]}."))
        found.setdefault(genotype, index)
    if problems:
        raise SpecError(problems)
    return tuple(found)


def architectures(written: Sequence[Mapping[str, Any]], backbone: Backbone, list_: str) -> tuple[Architecture, ...]:
    """As `genotypes`, of any architectures of the backbone: controls need not be in the space."""
    return tuple(_point(backbone, point, f"{list_}.{index}") for index, point in enumerate(written))


def _point(backbone: Backbone, point: Mapping[str, Any], field: str) -> Architecture:
    """{site: module name, {kind, options} or a list of those} as an architecture."""
    placements: dict[Site, list[Module]] = {}
    for text, written in point.items():
        modules = written if isinstance(written, list) else [written]
        placements[Site.parse(text, field)] = [_module(item, f"{field}.{text}") for item in modules]
    return Architecture.make(backbone, placements)


def _module(written: Any, field: str) -> Module:
    values = {"kind": written} if isinstance(written, str) else written
    if not isinstance(values, dict) or not isinstance(values.get("kind"), str):
        raise SpecError.one(field, "Write a module's name or {kind: name, option: value}.")
    return Module.parse(values["kind"], {k: v for k, v in values.items() if k != "kind"}, field)
