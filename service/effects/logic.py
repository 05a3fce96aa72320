"""What the choices of a search are worth: its finished trials, read from one database state."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from db import catalog, searches
from db.metrics import metric_expression
from db.models import RESULT_STATUSES, Architecture, Search, Trial
from search.adjustment import adjust
from search.architecture import Backbone
from search.effects import Finished, fill_stages, measure
from search.errors import SpecError
from search.findings import Arm, Finding, Scope, arms_by_scope, find, scope_of
from search.metrics import METRICS
from search.pareto import Objective
from search.sites import Shape, Site
from service import summaries
from service.effects.schemas import AdjustmentOut, EffectOut, EffectsOut, FindingOut, IntervalOut, SiteOut
from service.fronts.columns import SEARCHED, Columns, columns
from service.fronts.logic import bounds_of, default_metrics, objectives
from service.fronts.pictures import draw
from service.strips import USUAL_SHAPE, module_name

MOST_TRIALS = 4_000
_KEPT: WeakKeyDictionary[Columns, EffectsOut] = WeakKeyDictionary()
"""By the columns of the search, which are another object as soon as anything has happened in it."""
_LOCK = threading.Lock()
Placements = Mapping[str, Sequence[Mapping[str, object]]]


def make(session: Session, search_id: str) -> EffectsOut:
    """Computed once for each state of a search. Raises NotFound."""
    search = searches.get(session, search_id)
    state = columns(session, search, default_metrics(search))
    with _LOCK:
        known = _KEPT.get(state)
    if known is None:
        known = _made(session, search)
        with _LOCK:
            _KEPT[state] = known
    return known


def _made(session: Session, search: Search) -> EffectsOut:
    metric = quality(search)
    sign = 1.0 if metric.goal == "max" else -1.0
    finished, count = _finished(session, search, metric, sign)
    blocks = blocks_of(session, search, [trial.placements for trial in finished])
    found = measure(finished, blocks)
    adjustment = adjust(finished, blocks, found.choices)
    adjusted = [None] * len(found.choices) if adjustment is None else adjustment.effects
    return EffectsOut(
        search_id=search.id,
        metric=metric.metric,
        title=METRICS[metric.metric].title,
        goal=metric.goal,
        unit=METRICS[metric.metric].unit,
        stages={str(stage): number for stage, number in blocks.items()},
        finished=count,
        trials=found.trials,
        front=found.front,
        choices=[
            EffectOut.model_validate(asdict(effect) | {"adjusted": None if other is None else asdict(other)})
            for effect, other in zip(found.choices, adjusted, strict=True)
        ],
        sites=[SiteOut.model_validate(asdict(site)) for site in found.sites],
        adjustment=adjustment and AdjustmentOut(method=adjustment.method, parameters=adjustment.parameters),
        finding=finding(session, search, blocks),
        last_event=search.event_seq,
    )


def quality(search: Search) -> Objective:
    """The first of its objectives that needs training."""
    for name in default_metrics(search):
        if METRICS[name].kind == "quality":
            return Objective(name, METRICS[name].goal)
    raise AssertionError("every search has an objective that needs training")


def _finished(session: Session, search: Search, metric: Objective, sign: float) -> tuple[list[Finished], int]:
    """The trials to look at, and how many there are: all, or the front and a sample spread over their numbers."""
    names = default_metrics(search)
    found = columns(session, search, names)
    picture = draw(found, objectives(names), bounds_of(search))
    numbers, on_front = found.numbers, found.numbers[picture.keep]
    if len(numbers) > MOST_TRIALS:
        spread = np.linspace(0, len(numbers) - 1, MOST_TRIALS).astype(np.int64)
        numbers = np.unique(np.concatenate([numbers[spread], on_front]))
    whole = len(numbers) == len(found.numbers)
    front = set(on_front.tolist())
    statement = select(Trial.number, metric_expression(metric.metric), Trial.macs, Architecture.document).join(
        Architecture, Architecture.key == Trial.architecture_key
    )
    statement = statement.where(Trial.search_id == search.id)
    if whole:
        statement = statement.where(Trial.status.in_(RESULT_STATUSES), Trial.phase.in_(SEARCHED))
        rows = session.execute(statement.order_by(Trial.number)).all()
    else:
        rows = []
        for start in range(0, len(numbers), 500):
            rows += session.execute(statement.where(Trial.number.in_(numbers[start : start + 500].tolist()))).all()
    trials = [
        Finished(document["placements"], sign * value, macs or 0, number in front)
        for number, value, macs, document in rows
        if value is not None
    ]
    return trials, len(found.numbers)


def blocks_of(session: Session, search: Search, placed: Sequence[Placements]) -> dict[int, int]:
    """Blocks of each stage; of a backbone that is not installed here, as far as the placements tell."""
    shape = _shape(session, search)
    spec = dict(search.spec["backbone"])
    try:
        return {stage.number: len(stage.blocks) for stage in Backbone.parse(spec.pop("name"), spec).stages(shape)}
    except SpecError:
        seen: dict[int, int] = defaultdict(int)
        for site in (Site.parse(text) for placements in placed for text in placements):
            seen[site.stage] = max(seen[site.stage], site.block)
        return dict(sorted(seen.items()))


def _shape(session: Session, search: Search) -> Shape:
    return summaries.input_shape(search.spec, (row.document for row in catalog.datasets(session))) or USUAL_SHAPE


def finding(session: Session, search: Search, blocks: Mapping[int, int] | None = None) -> FindingOut | None:
    """What was learnt so far. blocks: of each stage, where they are known already."""
    blocks = blocks_of(session, search, []) if blocks is None else blocks
    baseline, arms = _confirmed_arms(session, search, blocks)
    if len(baseline.values) >= 2:
        found = find(baseline, arms, len(blocks))
        return None if found is None else _told(found, "confirmed")
    metric = quality(search)
    if METRICS[metric.metric].unit or metric.goal == "min" or not _is_repeated(session, search):
        return None  # the sentence speaks of points of accuracy, more of them being better
    finished, _ = _finished(session, search, metric, 1.0 if metric.goal == "max" else -1.0)
    found = find(*_repeated_arms(finished, blocks), len(blocks))
    return None if found is None else _told(found, "repeated")


def _is_repeated(session: Session, search: Search) -> bool:
    """Whether the baseline was trained more than once, which needs no look at the other trials."""
    control = select(Trial.architecture_key).where(
        Trial.search_id == search.id, Trial.phase == "controls", Trial.role == "baseline"
    )
    plain = control.limit(1).scalar_subquery()
    runs = select(Trial.status).where(
        Trial.search_id == search.id, Trial.phase.in_(SEARCHED), Trial.architecture_key == plain
    )
    return sum(status in RESULT_STATUSES for status in session.scalars(runs)) >= 2


def _told(found: Finding, source: Literal["confirmed", "repeated"]) -> FindingOut:
    return FindingOut(
        sentence=found.sentence(module_name),
        gain=IntervalOut.model_validate(asdict(found.gain)),
        extra=found.extra,
        source=source,
        compared=found.compared,
    )


def _confirmed_arms(session: Session, search: Search, blocks: Mapping[int, int]) -> tuple[Arm, list[Arm]]:
    """Test accuracies of the confirm phase: the baseline's, and each architecture's."""
    statement = (
        select(Trial.architecture_key, Trial.test_top1, Trial.macs, Architecture.document)
        .join(Architecture, Architecture.key == Trial.architecture_key)
        .where(Trial.search_id == search.id, Trial.phase == "confirm", Trial.status.in_(RESULT_STATUSES))
        .where(Trial.test_top1.is_not(None))
    )
    values: dict[str, list[float]] = defaultdict(list)
    about: dict[str, tuple[Scope, float]] = {}
    for key, top1, macs, document in session.execute(statement):
        values[key].append(float(top1 or 0.0))
        about[key] = (_scope(document["placements"], blocks), float(macs or 0))
    arms = [Arm(scope, macs, tuple(values[key])) for key, (scope, macs) in about.items()]
    nothing = next((arm for arm in arms if not arm.scope), Arm((), 0.0, ()))
    return nothing, [arm for arm in arms if arm.scope]


def _repeated_arms(finished: Sequence[Finished], blocks: Mapping[int, int]) -> tuple[Arm, list[Arm]]:
    """One seed each: the trials without attention, and the others by what they hold in which stages."""
    plain = [trial for trial in finished if not trial.placements]
    baseline = Arm((), float(plain[0].macs) if plain else 0.0, tuple(trial.quality for trial in plain))
    if len(plain) < 2:
        return baseline, []
    scopes = [_scope(trial.placements, blocks) for trial in finished]
    return baseline, arms_by_scope(scopes, [t.quality for t in finished], [float(t.macs) for t in finished])


def _scope(placements: Placements, blocks: Mapping[int, int]) -> Scope:
    return scope_of({stage: fill.modules for stage, fill in fill_stages(placements, blocks).items()})
