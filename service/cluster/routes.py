"""/api/v1/cluster: the nodes as the dispatchers have published them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from db import catalog, engine, searches
from db.engine import reading
from service.searches.submission import ALIVE_SECONDS
from service.state import House

router = APIRouter(prefix="/api/v1", tags=["service"])


class NodeOut(BaseModel):
    """alive: heard of within the last minute by the database's clock. details: as the node was published."""

    id: str
    alive: bool
    cpus: float
    gpus: float
    heartbeat_at: datetime
    silent_seconds: float
    details: dict[str, Any]


class Cluster(BaseModel):
    """cpus, gpus: of the living nodes. searches: how many are in each status."""

    nodes: list[NodeOut]
    cpus: float
    gpus: float
    searches: dict[str, int]


@router.get("/cluster", summary="Nodes and what they have")
def get_cluster(house: House) -> Cluster:
    with reading(house.engine) as session:
        now = engine.now(session)
        rows = catalog.nodes(session)
        counts = searches.status_counts(session)
    nodes = [
        NodeOut(
            id=row.id,
            alive=(now - row.heartbeat_at).total_seconds() < ALIVE_SECONDS,
            cpus=float(row.document.get("cpus") or 0),
            gpus=float(row.document.get("gpus") or 0),
            heartbeat_at=row.heartbeat_at,
            silent_seconds=max(0.0, (now - row.heartbeat_at).total_seconds()),
            details=row.document,
        )
        for row in rows
    ]
    alive = [node for node in nodes if node.alive]
    cpus, gpus = sum(node.cpus for node in alive), sum(node.gpus for node in alive)
    return Cluster(nodes=nodes, cpus=cpus, gpus=gpus, searches=counts)
