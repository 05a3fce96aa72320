"""Several searches side by side: their fronts in one plot, the merged front, what they cost, where they agree."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import Query
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.responses import JSONResponse, Response

from db import searches
from db.engine import reading
from db.models import Trial
from search.pareto import front, minimised
from service import summaries
from service.dashboard import views
from service.dashboard.rendering import page
from service.dashboard.routing import make_router
from service.errors import bad_field
from service.fronts import logic as fronts
from service.fronts.schemas import Front
from service.state import UUID, House
from service.strips import module_name
from service.summaries import Row

router = make_router()
MOST = 8
Chosen = Annotated[list[str], Query(alias="search", description="Ids of searches.")]
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One of the searches. place: its number in the plot, from 0. hours: of training, all trials together."""

    place: int
    search: Json
    best: Row | None
    trials: int
    hours: float
    front: int


@dataclass(frozen=True)
class Merged:
    """A point of the merged front and the searches that have it."""

    places: tuple[int, ...]
    row: Row


@dataclass(frozen=True)
class Agreement:
    """One module in one stage: the share of each front's placements that use it there."""

    stage: int
    module: str
    shares: tuple[float, ...]

    @property
    def everywhere(self) -> bool:
        """Whether most of every front has it."""
        return min(self.shares) > 0.5


@router.get("/compare")
def show_comparison(house: House, search: Chosen = []) -> Response:  # noqa: B006 (FastAPI copies it)
    """The page."""
    ids = _checked(search)
    with reading(house.engine) as session:
        told = [_front(session, search_id) for search_id in ids]
        columns = [_column(session, place, each) for place, each in enumerate(told)]
    return page(
        "compare.html",
        page="compare",
        columns=columns,
        merged=_merged(told),
        agreements=_agreements(told),
        same=len({str(column.search["spec"]["dataset"]) for column in columns}) <= 1,
    )


@router.get("/live/compare")
def get_comparison(house: House, search: Chosen = []) -> Response:  # noqa: B006
    """What the plot draws: a front for each search, without architectures."""
    ids = _checked(search)
    with reading(house.engine) as session:
        found = [_front(session, search_id, architectures=False) for search_id in ids]
        names = [searches.get(session, search_id).name for search_id in ids]
    slim = [each.model_dump(mode="json", include={"search_id", "axes", "points", "baseline"}) for each in found]
    return JSONResponse({"fronts": [{**each, "name": name} for each, name in zip(slim, names, strict=True)]})


def _checked(ids: Sequence[str]) -> list[str]:
    chosen = list(dict.fromkeys(ids))
    if not 1 <= len(chosen) <= MOST or not all(re.match(UUID, each) for each in chosen):
        raise bad_field(422, "search", f"Choose 2 to {MOST} searches in the list.")
    return chosen


def _front(session: Session, search_id: str, *, architectures: bool = True) -> Front:
    """On accuracy and multiply-adds, which all searches have."""
    axes = [fronts.axis("top1", "axes"), fronts.axis("macs", "axes")]
    return fronts.make(session, search_id, axes, architectures=architectures)


def _column(session: Session, place: int, told: Front) -> Column:
    search = views.search_json(session, told.search_id)
    view = summaries.front_view(told.model_dump(mode="json"))
    statement = select(func.count(), func.sum(Trial.busy_seconds), func.sum(Trial.seconds))
    count, busy, trained = session.execute(statement.where(Trial.search_id == told.search_id)).one()
    best = max(view.rows, key=lambda row: row.top1 or 0.0, default=None)
    return Column(place, search, best, count, float(busy or trained or 0.0) / 3600, len(view.rows))


def _merged(told: Sequence[Front]) -> list[Merged]:
    """What no point of any of the searches beats."""
    points = [(place, point) for place, each in enumerate(told) for point in each.points]
    if not points:
        return []
    values = np.asarray([[point.values["top1"], point.values["macs"]] for _, point in points])
    keep = front(minimised(values, fronts.objectives(["top1", "macs"])))
    found: dict[tuple[str, float], Merged] = {}
    for (place, point), kept in zip(points, keep, strict=True):
        key = (point.key, point.values["top1"])
        if kept and key in found:
            found[key] = Merged((*found[key].places, place), found[key].row)
        elif kept:
            base = told[place].baseline
            reference = None if base is None else {"id": base.trial_id, **base.values}
            item = point.model_dump(mode="json")
            document = {"id": point.trial_id, **item, **item["values"]}
            found[key] = Merged((place,), summaries.trial_rows([document], reference, [], None)[0])
    return sorted(found.values(), key=lambda each: each.row.top1 or 0.0)


def _agreements(told: Sequence[Front]) -> list[Agreement]:
    """Every module in every stage that some front uses, the most agreed on first."""
    shares: dict[tuple[int, str], list[float]] = defaultdict(lambda: [0.0] * len(told))
    for place, each in enumerate(told):
        placed = [point for point in each.points if point.architecture and point.architecture["placements"]]
        for point in placed:
            assert point.architecture is not None
            held = {
                (int(site.partition(".")[0]), module["kind"])
                for site, modules in point.architecture["placements"].items()
                for module in modules
            }
            for key in held:
                shares[key][place] += 1 / len(placed)
    found = [Agreement(stage, module_name(kind), tuple(each)) for (stage, kind), each in shares.items()]
    return sorted(found, key=lambda each: (-min(each.shares), -sum(each.shares), each.stage))[:24]
