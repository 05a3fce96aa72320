"""/healthz, /readyz and /metrics, for supervisors and Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel

from db.upgrades import is_current
from service.auth import public
from service.errors import ApiError
from service.metrics import CONTENT_TYPE
from service.state import House

router = APIRouter(tags=["service"])


class Health(BaseModel):
    status: str


@router.get("/healthz", summary="Whether the process lives")
@public
async def healthz() -> Health:
    return Health(status="ok")


@router.get("/readyz", summary="Whether it can work")
@public
def readyz(house: House) -> Health:
    """503 while the database is away or full, or its schema is not this version's."""
    if not is_current(house.engine):
        headers = {"Retry-After": "5"}
        raise ApiError(503, "The database's schema is of another version: run `attune db upgrade`.", headers=headers)
    house.room.check()
    return Health(status="ready")


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
def metrics(house: House) -> Response:
    """Of this process, and of the whole installation as the database had it a few seconds ago."""
    return Response(house.metrics.text(), media_type=CONTENT_TYPE)
