"""/api/v1/searches/{id}/effects"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Response

from db.engine import reading
from db.events import last_seq
from service.effects import logic
from service.effects.schemas import EffectsOut
from service.state import House, SearchId

router = APIRouter(prefix="/api/v1", tags=["fronts"])


@router.get(
    "/searches/{search_id}/effects",
    response_model=EffectsOut,
    summary="What each choice is worth",
    responses={304: {"description": "Nothing has happened since the ETag in If-None-Match."}},
)
def get_effects(
    house: House,
    search_id: SearchId,
    response: Response,
    if_none_match: Annotated[str | None, Header(max_length=200)] = None,
) -> EffectsOut | Response:
    """Marginal and adjusted effects with 95 % bootstrap intervals, the worth of each site, and a sentence."""
    with reading(house.engine) as session:
        etag = f'W/"{last_seq(session, search_id)}"'
        if if_none_match == etag:
            return Response(status_code=304, headers={"ETag": etag})
        found = logic.make(session, search_id)
    response.headers["ETag"] = etag
    return found
