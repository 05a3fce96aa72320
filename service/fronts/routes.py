"""/api/v1/searches/{id}/front"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from db.engine import reading
from db.events import last_seq
from service.errors import bad_field
from service.fronts import logic
from service.fronts.schemas import Front
from service.state import House, SearchId

router = APIRouter(prefix="/api/v1", tags=["fronts"])
MetricName = Annotated[str | None, Query(max_length=100)]


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
    architectures: Annotated[bool, Query(description="Whether points hold their architectures.")] = True,
    if_none_match: Annotated[str | None, Header(max_length=200)] = None,
) -> Front | Response:
    """On the search's objectives, or on the metrics named by x, y and z. Trials stopped early are never on it."""
    names = {"x": x, "y": y, "z": z}
    if any(names.values()) and not (x and y):
        raise bad_field(422, "y" if x else "x", "Name both x and y, or neither.")
    if len({name for name in names.values() if name}) < sum(name is not None for name in names.values()):
        raise bad_field(422, "y", "Name different metrics.")
    axes = [logic.axis(name, field) for field, name in names.items() if name is not None]
    with reading(house.engine) as session:
        etag = f'W/"{last_seq(session, search_id)}"'
        if if_none_match == etag:
            return Response(status_code=304, headers={"ETag": etag})
        found = logic.make(session, search_id, axes or None, architectures=architectures)
    response.headers["ETag"] = etag
    return found
