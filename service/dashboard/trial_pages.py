"""One trial: its network stage by stage, what every site costs, its curve, its files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.responses import Response

from db import artifacts, catalog, searches, trials
from db.engine import reading
from db.models import RESULT_STATUSES, Search, Trial
from search.architecture import Architecture, Task
from search.cost import Cost, CostTable
from search.datasets import DatasetEntry
from search.describe import module_label
from search.errors import SpecError
from service import formats
from service.dashboard import views
from service.dashboard.rendering import page
from service.dashboard.routing import make_router
from service.fronts.logic import confirmed
from service.state import House, Service, TrialId
from service.strips import StageStrip, Strip, make_strip

router = make_router()
Json = Mapping[str, Any]


@dataclass(frozen=True)
class StageRow:
    """A stage as it is drawn. strip: of this stage alone; words: what it holds."""

    number: int
    shape: str
    strip: Strip
    words: str


@dataclass(frozen=True)
class SiteCost:
    """What the modules at one site add. share: of the network's multiply-adds."""

    site: str
    modules: str
    params: str
    macs: str
    share: str


@router.get("/trials/{trial_id}")
def show_trial(house: House, trial_id: TrialId) -> Response:
    """One trial."""
    with reading(house.engine) as session:
        return page("trial.html", page="trial", **_view(session, trial_id))


def _view(session: Session, trial_id: str) -> dict[str, Any]:
    trial = trials.get(session, trial_id)
    search = searches.get(session, trial.search_id)
    document = trials.architectures(session, [trial.architecture_key])[trial.architecture_key].document
    shape = views.shape_of(session, search)
    row = views.trial_row(session, trial_id)
    runs = _runs(session, trial)
    tested = [run.test_top1 for run in runs if run.phase == "confirm" and run.test_top1 is not None]
    files = artifacts.of_trial(session, trial_id)
    return {
        "trial": trial,
        "search": search,
        "row": row,
        "stages": _stages(row.strip, document, shape),
        "runs": [run for run in runs if run.id != trial.id],
        "confirmed": confirmed(tested),
        "metrics": _metrics(trial),
        "point": yaml.safe_dump({"strategy": {"points": [_point(document)]}}, sort_keys=False, default_flow_style=None),
        "document": json.dumps(document, indent=2, ensure_ascii=False),
        "files": [(file.kind, formats.scaled(file.bytes, "B"), file.path, file.sha256) for file in files],
        "environment": _ran_on(trial.environment or {}),
    }  # fmt: skip


def _runs(session: Session, trial: Trial) -> list[Trial]:
    """The search's finished trainings of the same architecture."""
    statement = select(Trial).where(Trial.search_id == trial.search_id, Trial.status.in_(RESULT_STATUSES))
    return list(
        session.scalars(statement.where(Trial.architecture_key == trial.architecture_key).order_by(Trial.number))
    )


def _stages(strip: Strip, document: Json, shape: tuple[int, int, int] | None) -> list[StageRow]:
    try:
        architecture = Architecture.from_json(document)
        geometry = {} if shape is None else {stage.number: stage for stage in architecture.backbone.stages(shape)}
    except SpecError:
        geometry = {}  # of a backbone or module that is not installed here: drawn without sizes
    found = []
    for stage in strip.stages:
        size = ""
        if stage.number in geometry:
            points = geometry[stage.number].blocks[-1].points
            size = " × ".join(map(str, next(iter(points.values()))[0].shape))
        found.append(StageRow(stage.number, size, Strip((stage,), ""), _words(stage, document)))
    return found


def _words(stage: StageStrip, document: Json) -> str:
    mine = {
        site: found for site, found in document["placements"].items() if int(site.partition(".")[0]) == stage.number
    }
    alone = make_strip({**document, "placements": mine})
    return alone.words.partition(": ")[2] or "nothing"


def _point(document: Json) -> dict[str, Any]:
    return {site: found if len(found) > 1 else found[0] for site, found in document["placements"].items()}


def _metrics(trial: Trial) -> list[tuple[str, str]]:
    named = [
        ("Top-1, validation", formats.percent(trial.top1)), ("Top-5, validation", formats.percent(trial.top5)),
        ("Loss, validation", formats.MISSING if trial.loss is None else f"{trial.loss:.4f} nat"),
        ("Top-1, test", formats.percent(trial.test_top1)),
        ("Latency, batch 1", formats.MISSING if trial.latency_ms is None else f"{trial.latency_ms:.2f} ms"),
    ]  # fmt: skip
    others = [(name.replace("_", " "), _number(value)) for name, value in sorted((trial.metrics or {}).items())]
    return [(name, text) for name, text in named if text != formats.MISSING] + others


def _ran_on(environment: Json) -> dict[str, Any]:
    """Where and how it ran, in words; how its steps were computed is told with the reason."""
    told = dict(environment)
    execution = told.pop("execution", None)
    if execution is not None:
        mode = {"eager": "Eager", "compiled": "Compiled", "cuda_graphs": "CUDA graphs"}
        words = [f"{mode.get(execution['mode'], execution['mode'])}: {execution['reason']}"]
        if execution.get("compile_seconds"):
            words.append(f"Compiling took {execution['compile_seconds']:.3g} s.")
        if (eager := execution.get("eager_step_seconds")) and (after := execution.get("compiled_step_seconds")):
            words.append(f"A step took {1000 * after:.3g} ms, eagerly {1000 * eager:.3g} ms.")
        told["training steps"] = " ".join(words)
    return told


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@router.get("/live/trials/{trial_id}/costs")
def show_costs(house: House, trial_id: TrialId) -> Response:
    """What every site costs; counted when nobody has asked before."""
    with reading(house.engine) as session:
        trial = trials.get(session, trial_id)
        search = searches.get(session, trial.search_id)
        document = trials.architectures(session, [trial.architecture_key])[trial.architecture_key].document
        task = _task(session, search)
    rows, base = _costs(house, document, task)
    return page("costs.html", rows=rows, base=base)


def _task(session: Session, search: Search) -> Task | None:
    """What the search trains for; None for a data set that is gone."""
    wanted = dict(search.spec["dataset"])
    name = wanted.pop("name")
    for row in catalog.datasets(session):
        if row.name == name:
            fields = {key: row.document[key] for key in DatasetEntry.model_fields if key in row.document}
            return DatasetEntry.model_validate(fields).resolve(wanted).task
    return None


def _costs(house: Service, document: Json, task: Task | None) -> tuple[Sequence[SiteCost], str]:
    if task is None:
        return [], ""
    try:
        architecture = Architecture.from_json(document)
    except SpecError:
        return [], ""
    with house.costs.counting() as store:
        table = CostTable(architecture.backbone, task, store)
        whole = table.architecture(architecture)
        found = [(site, modules, table.site(site, modules)) for site, modules in architecture.placements]
        base = table.backbone()
    rows = []
    for site, modules, cost in found:
        where = f"stage {site.stage}, " + ("end" if site.position == "stage_end" else f"block {site.block}")
        what = " + ".join(map(module_label, modules))
        rows.append(SiteCost(where, what, formats.scaled(cost.params), formats.macs(cost.macs), _share(cost, whole)))
    return rows, f"{formats.macs(base.macs)} and {formats.scaled(base.params)} parameters"


def _share(cost: Cost, whole: Cost) -> str:
    share = 100 * cost.macs / whole.macs
    return "< 0.01 %" if 0 < share < 0.005 else f"{formats.signed(share, 2)} %"
