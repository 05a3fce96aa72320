"""The cluster: machines, slots, and who runs what."""

from __future__ import annotations

from sqlalchemy.orm import Session
from starlette.responses import Response

from db import trials, views
from db.engine import reading
from service.cluster import logic
from service.cluster.schemas import Cluster
from service.dashboard.rendering import page
from service.dashboard.routing import make_router
from service.state import House
from service.strips import Strip, make_strip

router = make_router()


@router.get("/cluster")
def show_cluster(house: House) -> Response:
    """The page."""
    return _page(house, "cluster.html")


@router.get("/live/cluster")
def show_cluster_live(house: House) -> Response:
    """The part of it that changes."""
    return _page(house, "cluster_live.html")


def _page(house: House, template: str) -> Response:
    with reading(house.engine) as session:
        found = logic.seen(session)
        strips = _strips(session, found)
    names = {driver.search_id: driver.name for driver in found.drivers}
    return page(template, page="cluster", cluster=found, names=names, strips=strips)


def _strips(session: Session, found: Cluster) -> dict[str, Strip]:
    """What the running trials hold, by their ids."""
    running = [trial.id for node in found.nodes for trial in node.trials] + [trial.id for trial in found.unplaced]
    rows = views.trials_by_id(session, running)
    known = trials.architectures(session, list({row.architecture_key for row in rows.values()}))
    return {trial_id: make_strip(known[row.architecture_key].document) for trial_id, row in rows.items()}
