"""Numbers of the whole installation, for whoever watches it: counts and sums, no rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Text, case, cast, func, select, text
from sqlalchemy.orm import Session

from db import searches, workload
from db.clock import DatabaseTime
from db.models import NOTABLE, TRIAL_STATUSES, Event, Search, Trial

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Statistics:
    """searches, trials: by status. queued_seconds: how long the longest has waited; None when nothing waits.

    durations: succeeded trials by the first bound that their `seconds` do not exceed, the last for those beyond all;
    seconds: their sum. overhead: sum and number of succeeded trials' time in a slot beyond `seconds`.
    failures, retries: failed trials, and failures after which one was tried again, by class.
    losses: drivers that died, and leases that ran out and were taken over. running: trials by node.
    """

    searches: dict[str, int]
    queued_seconds: float | None
    trials: dict[str, int]
    running: dict[str | None, int]
    durations: tuple[int, ...]
    seconds: float
    overhead: tuple[float, int]
    failures: dict[str, int]
    retries: dict[str, int]
    losses: dict[str, int]


def collect(session: Session, bounds: Sequence[float]) -> Statistics:
    """bounds: seconds, rising, that trials' durations are counted by."""
    trials = _trials(session, bounds)
    return Statistics(
        searches=searches.status_counts(session),
        queued_seconds=_queued_seconds(session),
        running=workload.running_by_node(session),
        retries=_retries(session),
        losses=_losses(session),
        **trials,
    )


def _trials(session: Session, bounds: Sequence[float]) -> dict[str, Any]:
    """One walk over all trials."""
    kind = case((Trial.status == "failed", func.coalesce(Trial.error["kind"].as_string(), UNKNOWN)))
    timed = Trial.status == "succeeded"
    place = case(
        *(((timed & (Trial.seconds <= bound)), index) for index, bound in enumerate(bounds)),
        (timed & Trial.seconds.is_not(None), len(bounds)),
    )
    known = timed & (Trial.busy_seconds > 0) & Trial.seconds.is_not(None)
    beyond = case((known & (Trial.busy_seconds > Trial.seconds), Trial.busy_seconds - Trial.seconds), else_=0.0)
    grouped = select(
        Trial.status, kind.label("kind"), place.label("place"), func.count().label("number"),
        func.sum(Trial.seconds).label("seconds"), func.sum(beyond).label("overhead"),
        func.sum(case((known, 1), else_=0)).label("known"),
    ).group_by(Trial.status, text("kind"), text("place"))  # fmt: skip
    counts = dict.fromkeys(TRIAL_STATUSES, 0)
    durations = [0] * (len(bounds) + 1)
    failures: dict[str, int] = {}
    seconds, overhead, timed_number = 0.0, 0.0, 0
    for row in session.execute(grouped):
        counts[row.status] += row.number
        if row.kind is not None:
            failures[row.kind] = failures.get(row.kind, 0) + row.number
        if row.place is not None:
            durations[row.place] += row.number
            seconds += float(row.seconds)
            overhead += float(row.overhead)
            timed_number += int(row.known)
    return {
        "trials": counts,
        "durations": tuple(durations),
        "seconds": seconds,
        "overhead": (overhead, timed_number),
        "failures": failures,
    }


def _queued_seconds(session: Session) -> float | None:
    """Since the oldest of the queued searches was submitted."""
    oldest = session.scalar(select(func.min(Search.created_at)).where(Search.status == "queued"))
    if oldest is None:
        return None
    now = session.execute(select(DatabaseTime())).scalar_one()
    return max(0.0, float((now - oldest).total_seconds()))


def _retries(session: Session) -> dict[str, int]:
    kind = func.coalesce(Event.data[("error", "kind")].as_string(), UNKNOWN).label("kind")
    events = select(kind, func.count()).where(text(NOTABLE), Event.kind == "trial.retried").group_by(text("1"))
    return {str(name): int(number) for name, number in session.execute(events)}


def _losses(session: Session) -> dict[str, int]:
    """A lease that ran out shows as a search that starts to run while it is running."""
    status = Event.data["status"].as_string()
    told = select(
        status.label("status"),
        cast(Event.data["died"].as_string(), Text).label("died"),
        func.lag(status).over(partition_by=Event.search_id, order_by=Event.seq).label("before"),
    ).where(text(NOTABLE), Event.kind == "search.status")  # fmt: skip
    inner = told.subquery()
    counted = select(
        func.sum(case((inner.c.died.is_not(None), 1), else_=0)),
        func.sum(case(((inner.c.status == "running") & (inner.c.before == "running"), 1), else_=0)),
    )
    died, expired = session.execute(counted).one()
    return {"died": int(died or 0), "expired": int(expired or 0)}
