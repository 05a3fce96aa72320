"""/api/v1/cluster"""

from __future__ import annotations

from fastapi import APIRouter

from db.engine import reading
from service.cluster import logic
from service.cluster.schemas import Cluster
from service.state import House

router = APIRouter(prefix="/api/v1", tags=["service"])


@router.get("/cluster", summary="Nodes, what they have, and who runs what")
def get_cluster(house: House) -> Cluster:
    """Nodes with their slots and trials, the drivers at work, the dispatchers, and what waits and why."""
    with reading(house.engine) as session:
        return logic.seen(session)
