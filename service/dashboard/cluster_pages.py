"""The cluster: machines, slots, and who runs what."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session
from starlette.responses import Response

from db import trials, views
from db.engine import reading
from service import formats
from service.cluster import logic
from service.cluster.schemas import Cluster
from service.dashboard.rendering import fragment, page
from service.dashboard.routing import IfNoneMatch, make_router
from service.state import House
from service.strips import Strip, make_strip

router = make_router()


@router.get("/cluster")
def show_cluster(house: House) -> Response:
    """The page."""
    with reading(house.engine) as session:
        return page("cluster.html", **_shown(session, logic.seen(session)))


@router.get("/live/cluster")
def show_cluster_live(house: House, if_none_match: IfNoneMatch = None) -> Response:
    """The part of it that changes."""
    with reading(house.engine) as session:
        found = logic.seen(session)
        return fragment("cluster_live.html", _state(found), if_none_match, lambda: _shown(session, found))


def _shown(session: Session, found: Cluster) -> dict[str, Any]:
    names = {driver.search_id: driver.name for driver in found.drivers}
    return {"page": "cluster", "cluster": found, "names": names, "strips": _strips(session, found)}


def _state(found: Cluster) -> tuple[object, ...]:
    """What tells whether the part has changed: all of it, with times as they are shown and no heartbeats."""
    silent = [None if node.alive else formats.duration(node.silent_seconds) for node in found.nodes]
    waiting = [formats.duration(search.waiting_seconds) for search in found.queued]
    left = [formats.duration(driver.seconds_left) for driver in found.drivers]
    rest = found.model_dump_json(
        exclude={
            "nodes": {"__all__": {"heartbeat_at", "silent_seconds"}},
            "queued": {"__all__": {"waiting_seconds"}},
            "drivers": {"__all__": {"seconds_left", "silent_seconds"}},
        }
    )
    return silent, waiting, left, rest


def _strips(session: Session, found: Cluster) -> dict[str, Strip]:
    """What the running trials hold, by their ids."""
    running = [trial.id for node in found.nodes for trial in node.trials] + [trial.id for trial in found.unplaced]
    rows = views.trials_by_id(session, running)
    known = trials.architectures(session, list({row.architecture_key for row in rows.values()}))
    return {trial_id: make_strip(known[row.architecture_key].document) for trial_id, row in rows.items()}
