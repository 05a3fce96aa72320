"""What is told about schedules, and to whom: queued in the transaction of what it tells of."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from db import deliveries
from db.models import Fire, Schedule, Search
from search import progress_report

WORDS = {
    "finished": "The search “{}” has finished.",
    "failed": "The search “{}” has failed.",
    "improved": "The search “{}” has moved the front forward.",
}
OF_COMPARISON = ("comparable", "reason", "data_changed", "training_changed", "hypervolume", "reference_point", "moved",
                 "entered", "left", "gained", "lost", "unmeasured")  # fmt: skip


def tell(session: Session, schedule: Schedule, payload: Mapping[str, Any]) -> None:
    """Queues a message to everybody who asked for events of its kind."""
    for target in schedule.notify:
        if payload["event"] in target["events"]:
            deliveries.add(
                session, schedule.id, channel=target["channel"], target=target["target"], event=payload["event"],
                payload=payload,
            )  # fmt: skip


def of_search(
    event: str, fire: Fire, schedule: Schedule, search: Search, told: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The message about a search that has ended. told: its comparison with the one before."""
    error = None if search.error is None else {name: search.error.get(name) for name in ("kind", "message")}
    comparison = None
    if told is not None:
        comparison = {name: told[name] for name in OF_COMPARISON if name in told}
        comparison["summary"] = progress_report.sentence(told)
    return {
        "event": event,
        "message": WORDS[event].format(search.name),
        "schedule": {"id": schedule.id, "name": schedule.name},
        "fire": {"id": fire.id, "fire_at": fire.fire_at.isoformat()},
        "search": {
            "id": search.id, "name": search.name, "status": search.status, "error": error,
            "hypervolume": search.hypervolume,
        },
        "comparison": comparison,
    }  # fmt: skip


def of_failed_fire(schedule: Schedule, fire_at: datetime, reason: str) -> dict[str, Any]:
    """The message about a fire that has started no search."""
    return {
        "event": "failed",
        "message": f"The fire of “{schedule.name}” at {fire_at.isoformat(timespec='minutes')} has started no search.",
        "schedule": {"id": schedule.id, "name": schedule.name},
        "fire": {"id": None, "fire_at": fire_at.isoformat()},
        "search": None,
        "error": {"kind": "fire", "message": reason},
        "comparison": None,
    }
