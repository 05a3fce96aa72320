"""The cluster: machines, slots, and who runs what."""

from __future__ import annotations

from starlette.responses import Response

from db.engine import reading
from service.cluster import logic
from service.dashboard.rendering import page
from service.dashboard.routing import make_router
from service.state import House

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
    names = {driver.search_id: driver.name for driver in found.drivers}
    return page(template, page="cluster", cluster=found, names=names)
