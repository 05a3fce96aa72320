"""The front of an earlier search as the points that a new one tries first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from search import constraints
from search.architecture import Architecture
from search.cost import Cost
from search.errors import SpecError
from search.pareto import Objective, front, minimised
from search.plan import SearchPlan
from search.recipes import EVALUATION_VERSION
from search.space import Genotype

MOST_POINTS = 1000


class Tried(Protocol):
    """A trial with a result. key: of its architecture. values: of the objectives, in their units and order."""

    @property
    def key(self) -> str: ...

    @property
    def params(self) -> int: ...

    @property
    def macs(self) -> int: ...

    @property
    def values(self) -> tuple[float, ...]: ...


class Earlier(Protocol):
    """An earlier search. fingerprint: of its data, None when unknown; conditions: what else decides the results of its
    trials; confirmed: the confirmations of what it chose itself, the best architecture first; documents: architectures
    by key."""

    def fingerprint(self) -> str | None: ...

    def conditions(self, *, confirm: bool) -> Mapping[str, Any] | None: ...

    def results(self, metrics: Sequence[str]) -> Sequence[Tried]: ...

    def confirmed(self, metrics: Sequence[str]) -> Sequence[Tried]: ...

    def documents(self, keys: Sequence[str]) -> Mapping[str, Mapping[str, Any]]: ...


def with_previous(plan: SearchPlan, earlier: Earlier, *, asked: bool) -> SearchPlan:
    """The plan with the front of an earlier search first, if that is asked for, or if the data or the training have
    changed since: only what is trained alike on the same data can be compared. Then the budget holds all of it, and
    what the earlier search has confirmed is confirmed again."""
    same_data = earlier.fingerprint() in (None, plan.dataset.fingerprint)
    same = same_data and _trained_alike(plan, earlier)
    if not same or not _trained_alike(plan, earlier, confirm=True):
        plan = _with_confirmed(plan, earlier)
    if same and not asked:
        return plan
    members = on_front(earlier.results([objective.metric for objective in plan.objectives]), plan.objectives)
    found = with_front(plan, members, earlier.documents([member.key for member in members]))
    if same or len(found.first) <= found.spec.budget.trials:
        return found
    budget = found.spec.budget.model_copy(update={"trials": len(found.first)})
    return replace(found, spec=found.spec.model_copy(update={"budget": budget}))


def _with_confirmed(plan: SearchPlan, earlier: Earlier) -> SearchPlan:
    """The plan with the best `confirm.top` architectures that an earlier search has confirmed beside the baseline."""
    if plan.spec.confirm is None:
        return plan
    rows: dict[str, Tried] = {}
    for each in earlier.confirmed([objective.metric for objective in plan.objectives]):
        rows.setdefault(each.key, each)
    documents = earlier.documents(list(rows))
    found: list[tuple[Architecture, dict[str, Any]]] = []
    for key, row in rows.items():
        if key not in documents or _shut_out(plan, row):
            continue
        architecture = _architecture(plan, documents[key])
        if architecture is not None and not architecture.is_baseline:
            found.append((architecture, dict(documents[key]["placements"])))
    found = found[: plan.spec.confirm.top]
    confirm = plan.spec.confirm.model_copy(update={"previous": [placements for _, placements in found]})
    reconfirmed = tuple(architecture for architecture, _ in found)
    return replace(plan, spec=plan.spec.model_copy(update={"confirm": confirm}), reconfirmed=reconfirmed)


def _trained_alike(plan: SearchPlan, earlier: Earlier, *, confirm: bool = False) -> bool:
    """Whether the plan trains (or confirms) as the earlier search has, as far as that is known."""
    longer = plan.spec.confirm.epochs if confirm and plan.spec.confirm else None
    recipe = {**plan.recipe.model_dump(mode="json"), "epochs": longer or plan.epochs}
    weights = plan.weights and plan.weights.fingerprint
    wanted = {"recipe": recipe, "weights": weights, "version": EVALUATION_VERSION}
    known = earlier.conditions(confirm=confirm) or {}
    return all(known[name] == value for name, value in wanted.items() if name in known)


def on_front(tried: Sequence[Tried], objectives: Sequence[Objective]) -> list[Tried]:
    """Those that no other dominates, one for each architecture, the best in the first objective first."""
    if not tried:
        return []
    points = minimised([each.values for each in tried], objectives)
    found = sorted((points[i, 0], tried[i].key, i) for i in front(points).nonzero()[0].tolist())
    return list({tried[i].key: tried[i] for _, _, i in found}.values())


def with_front(plan: SearchPlan, members: Sequence[Tried], documents: Mapping[str, Mapping[str, Any]]) -> SearchPlan:
    """The plan with the architectures tried first, after those that its request names itself, and never stopped early.

    documents: architectures by key. What the space does not hold or the constraints shut out is left out, as is what
    is trained beside the search anyway.
    """
    beside = {architecture.key for _, architecture in plan.controls}
    found: dict[Genotype, dict[str, Any]] = {}
    for member in members:
        document = documents.get(member.key)
        if document is None or member.key in beside or _shut_out(plan, member):
            continue
        genotype = _genotype(plan, document)
        if genotype is not None:
            found.setdefault(genotype, dict(document["placements"]))
    chosen = dict(list(found.items())[:MOST_POINTS])
    strategy = plan.spec.strategy.model_copy(update={"previous": list(chosen.values())})
    return replace(plan, spec=plan.spec.model_copy(update={"strategy": strategy}), previous=tuple(chosen))


def _shut_out(plan: SearchPlan, member: Tried) -> bool:
    return any(constraints.broken(plan.spec.constraints, Cost(params=member.params, macs=member.macs)))


def _genotype(plan: SearchPlan, document: Mapping[str, Any]) -> Genotype | None:
    """None for an architecture of another space: the template may have changed since."""
    architecture = _architecture(plan, document)
    try:
        return None if architecture is None else plan.space.genotype(architecture)
    except SpecError:
        return None


def _architecture(plan: SearchPlan, document: Mapping[str, Any]) -> Architecture | None:
    """None for one of another backbone, or with a module that is not known any more."""
    try:
        architecture = Architecture.from_json(document)
    except SpecError:
        return None
    return architecture if architecture.backbone == plan.backbone else None
