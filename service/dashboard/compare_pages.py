"""Several searches side by side: their fronts in one plot, the merged front, what they cost, where they agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session
from starlette.responses import JSONResponse, Response

from db.engine import reading
from service import summaries
from service.dashboard import views
from service.dashboard.rendering import page
from service.dashboard.routing import make_router
from service.fronts import logic as fronts
from service.fronts import merging
from service.fronts.routes import Chosen, chosen
from service.fronts.schemas import ComparedFront, Comparison, FrontPoint
from service.state import House
from service.strips import module_name
from service.summaries import Row

router = make_router()
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One of the searches. place: its number in the plot, from 0. merged: how many of the merged front are its."""

    place: int
    search: Json
    best: Row | None
    told: ComparedFront
    merged: int


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
    ids = chosen(search)
    with reading(house.engine) as session:
        found = _compared(session, ids, architectures=True)
        columns = [_column(session, place, found) for place in range(len(ids))]
    merged = [_merged(each.point, [ids.index(one) for one in each.search_ids], found) for each in found.merged]
    return page(
        "compare.html",
        page="compare",
        columns=columns,
        comparison=found,
        merged=merged,
        agreements=_agreements([each.points for each in found.searches]),
    )


@router.get("/live/compare")
def get_comparison(house: House, search: Chosen = []) -> Response:  # noqa: B006
    """What the plot draws: as in the REST API, without architectures."""
    with reading(house.engine) as session:
        found = _compared(session, chosen(search), architectures=False)
    return JSONResponse(found.model_dump(mode="json"))


def _compared(session: Session, ids: Sequence[str], *, architectures: bool) -> Comparison:
    axes = [fronts.axis(name, "axes") for name in merging.COMMON]
    return merging.compare(session, ids, axes, architectures=architectures)


def _column(session: Session, place: int, found: Comparison) -> Column:
    told = found.searches[place]
    rows = [_row(point, told.baseline) for point in told.points]
    merged = sum(told.search_id in each.search_ids for each in found.merged)
    best = max(rows, key=lambda row: row.top1 or 0.0, default=None)
    return Column(place, views.search_json(session, told.search_id), best, told, merged)


def _merged(point: FrontPoint, places: Sequence[int], found: Comparison) -> Merged:
    return Merged(tuple(places), _row(point, found.searches[places[0]].baseline))


def _row(point: FrontPoint, base: FrontPoint | None) -> Row:
    """A point beside the baseline of its own search."""
    reference = None if base is None else {"id": base.trial_id, **base.values}
    item = point.model_dump(mode="json")
    return summaries.trial_rows([{"id": point.trial_id, **item, **item["values"]}], reference, [], None)[0]


def _agreements(points: Sequence[Sequence[FrontPoint]]) -> list[Agreement]:
    """Every module in every stage that some front uses, the most agreed on first."""
    shares: dict[tuple[int, str], list[float]] = defaultdict(lambda: [0.0] * len(points))
    for place, each in enumerate(points):
        placed = [point.architecture for point in each if point.architecture and point.architecture["placements"]]
        for architecture in placed:
            held = {
                (int(site.partition(".")[0]), module["kind"])
                for site, modules in architecture["placements"].items()
                for module in modules
            }
            for key in held:
                shares[key][place] += 1 / len(placed)
    found = [Agreement(stage, module_name(kind), tuple(each)) for (stage, kind), each in shares.items()]
    return sorted(found, key=lambda each: (-min(each.shares), -sum(each.shares), each.stage))[:24]
