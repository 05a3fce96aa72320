"""What the plots beside the front draw: the paths of parallel coordinates, and learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from db import searches, trials
from db.metrics import metric_expression
from db.models import Architecture, Epoch, Trial
from search.effects import fill_stages
from search.metrics import METRICS
from search.pareto import minimised
from service.effects.logic import blocks_of, quality
from service.fronts.columns import columns
from service.fronts.logic import bounds_of, default_metrics, objectives
from service.fronts.pictures import draw
from service.strips import make_strip, module_colour, module_name

MOST_PATHS = 600
MOST_CURVES = 12
CURVES = ("top1", "train_loss", "val_loss", "lr")


def paths(session: Session, search_id: str) -> dict[str, Any]:
    """The front and a sample of the other trials: what each holds in each stage, its quality and its cost.

    fills: what occurs in the stages; each path names them by place. Raises NotFound.
    """
    search = searches.get(session, search_id)
    names = default_metrics(search)
    found = columns(session, search, names)
    picture = draw(found, objectives(names), bounds_of(search))
    on_front = found.numbers[picture.keep]
    others = found.numbers[~picture.keep]
    if len(others) > MOST_PATHS:
        others = others[np.linspace(0, len(others) - 1, MOST_PATHS).astype(np.int64)]
    numbers = np.union1d(on_front[:MOST_PATHS], others).tolist()
    metric = quality(search)
    rows = _rows(session, search_id, metric.metric, numbers)
    blocks = blocks_of(session, search, [row[3]["placements"] for row in rows])
    fills: dict[tuple[str, str, int | None], int] = {}
    front = set(on_front.tolist())
    told = []
    for number, value, macs, document in rows:
        stages = fill_stages(document["placements"], blocks)
        places = [fills.setdefault((s.modules, s.pattern, s.ratio), len(fills)) for s in stages.values()]
        told.append([number, places, value, macs, int(number in front)])
    return {
        "metric": metric.metric,
        "title": METRICS[metric.metric].title,
        "unit": METRICS[metric.metric].unit,
        "stages": list(blocks),
        "blocks": list(blocks.values()),
        "fills": [_fill(*key) for key in fills],
        "paths": told,
        "finished": len(found.numbers),
    }


def _rows(session: Session, search_id: str, metric: str, numbers: Sequence[int]) -> list[Any]:
    statement = (
        select(Trial.number, metric_expression(metric), Trial.macs, Architecture.document)
        .join(Architecture, Architecture.key == Trial.architecture_key)
        .where(Trial.search_id == search_id)
    )
    rows: list[Any] = []
    for start in range(0, len(numbers), 500):
        rows += session.execute(statement.where(Trial.number.in_(numbers[start : start + 500]))).all()
    return sorted((row for row in rows if row[1] is not None), key=lambda row: row[0])


def _fill(modules: str, pattern: str, ratio: int | None) -> dict[str, Any]:
    kinds = modules.split("+") if modules else []
    return {
        "kinds": kinds,
        "name": " + ".join(map(module_name, kinds)) or "none",
        "colours": [module_colour(kind) for kind in kinds],
        "pattern": pattern,
        "ratio": ratio,
    }


def curves(session: Session, search_id: str, numbers: Sequence[int]) -> dict[str, Any]:
    """The epochs of some trials, those of the search's baseline and best first when none is named."""
    wanted = list(dict.fromkeys(numbers))[:MOST_CURVES] or _usual(session, search_id)
    statement = select(Trial).where(Trial.search_id == search_id, Trial.number.in_(wanted)).order_by(Trial.number)
    found = list(session.scalars(statement))
    known = trials.architectures(session, [trial.architecture_key for trial in found])
    rows: Mapping[str, list[Epoch]] = {trial.id: [] for trial in found}
    epochs = select(Epoch).where(Epoch.trial_id.in_(list(rows))).order_by(Epoch.trial_id, Epoch.epoch)
    for epoch in session.scalars(epochs):
        rows[epoch.trial_id].append(epoch)
    return {"curves": [_curve(trial, known[trial.architecture_key].document, rows[trial.id]) for trial in found]}


def _usual(session: Session, search_id: str) -> list[int]:
    """The baseline, and the three of the front that are best by the first objective."""
    base = select(Trial.number).where(Trial.search_id == search_id, Trial.phase == "controls", Trial.role == "baseline")
    search = searches.get(session, search_id)
    names = default_metrics(search)
    found = columns(session, search, names)
    keep = draw(found, objectives(names), bounds_of(search)).keep
    order = np.argsort(minimised(found.values[keep], objectives(names))[:, 0], kind="stable")[:3]
    return list(dict.fromkeys([*session.scalars(base), *found.numbers[keep][order].tolist()]))


def _curve(trial: Trial, document: Mapping[str, Any], epochs: Sequence[Epoch]) -> dict[str, Any]:
    return {
        "number": trial.number,
        "role": trial.role,
        "words": make_strip(document).words,
        "epoch": [epoch.epoch for epoch in epochs],
        **{name: [getattr(epoch, name) for epoch in epochs] for name in CURVES},
    }
