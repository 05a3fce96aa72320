"""/api/v1/searches/{id}/front and /api/v1/fronts"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from db.engine import reading
from db.events import last_seq
from service.errors import bad_field
from service.fronts import logic, merging
from service.fronts.schemas import Axis, Comparison, Front
from service.state import UUID, House, SearchId

router = APIRouter(prefix="/api/v1", tags=["fronts"])
MetricName = Annotated[str | None, Query(max_length=100)]
WithArchitectures = Annotated[bool, Query(description="Whether points hold their architectures.")]
MOST_COMPARED = 8
Chosen = Annotated[list[str], Query(alias="search", description=f"Ids of searches, up to {MOST_COMPARED}.")]


@router.get(
    "/searches/{search_id}/front",
    response_model=Front,
    summary="The Pareto front",
    responses={304: {"description": "Nothing has happened since the ETag in If-None-Match."}},
)
def get_front(
    house: House,
    search_id: SearchId,
    response: Response,
    x: MetricName = None,
    y: MetricName = None,
    z: MetricName = None,
    architectures: WithArchitectures = True,
    if_none_match: Annotated[str | None, Header(max_length=200)] = None,
) -> Front | Response:
    """On the search's objectives, or on the metrics named by x, y and z. Trials stopped early are never on it."""
    axes = _axes(x, y, z)
    with reading(house.engine) as session:
        etag = f'W/"{last_seq(session, search_id)}"'
        if if_none_match == etag:
            return Response(status_code=304, headers={"ETag": etag})
        found = logic.make(session, search_id, axes, architectures=architectures)
    response.headers["ETag"] = etag
    return found


@router.get("/fronts", response_model=Comparison, summary="Fronts of several searches, and what none of them beats")
def compare_fronts(
    house: House,
    search: Chosen,
    x: MetricName = None,
    y: MetricName = None,
    z: MetricName = None,
    architectures: WithArchitectures = True,
) -> Comparison:
    """On the metrics named by x, y and z, else on the objectives that all have, else on accuracy and multiply-adds."""
    ids, axes = chosen(search), _axes(x, y, z)
    with reading(house.engine) as session:
        return merging.compare(session, ids, axes, architectures=architectures)


def chosen(search_ids: list[str]) -> list[str]:
    """The searches to compare, each once. ApiError 422 for none, too many, or what is no id."""
    found = list(dict.fromkeys(search_ids))
    if not 1 <= len(found) <= MOST_COMPARED or not all(re.fullmatch(UUID, each) for each in found):
        raise bad_field(422, "search", f"Choose up to {MOST_COMPARED} searches by their ids.")
    return found


def _axes(x: str | None, y: str | None, z: str | None) -> list[Axis] | None:
    """None when none is named. ApiError 422 for one alone and for the same twice, SpecError for an unknown one."""
    names = {"x": x, "y": y, "z": z}
    if any(names.values()) and not (x and y):
        raise bad_field(422, "y" if x else "x", "Name both x and y, or neither.")
    if len({name for name in names.values() if name}) < sum(name is not None for name in names.values()):
        raise bad_field(422, "y", "Name different metrics.")
    found = [logic.axis(name, field) for field, name in names.items() if name is not None]
    return found or None
