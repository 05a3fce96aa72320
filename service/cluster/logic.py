"""The machines, and who runs what on them: from what dispatchers and drivers have written, one database state."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from db import catalog, engine, searches, workload
from db.models import Node
from db.workload import RunningSearch, RunningTrial
from service.cluster.schemas import Cluster, DispatcherOut, DriverOut, NodeOut, QueuedOut, TrialOnNode

ALIVE_SECONDS = 60.0
"""How long a node counts as there after it was last heard of."""
MOST_TRIALS = 2000
MOST_QUEUED = 200


def seen(session: Session) -> Cluster:
    """The cluster as it is."""
    now = engine.now(session)
    rows = catalog.nodes(session)
    found = workload.running_trials(session, limit=MOST_TRIALS)
    counts = workload.running_by_node(session)
    held = workload.running_searches(session)
    by_node: dict[str | None, list[RunningTrial]] = defaultdict(list)
    for trial in found:
        by_node[trial.node].append(trial)
    nodes = [_node(row, now, by_node.pop(row.id, []), counts.get(row.id, 0)) for row in rows]
    usable = [node for node in nodes if node.alive and node.storage_problem is None]
    per_search = Counter(trial.search_id for trial in found if trial.node is not None)
    return Cluster(
        nodes=nodes,
        cpus=sum(node.cpus for node in usable),
        gpus=sum(node.gpus for node in usable),
        slots=sum(node.slots for node in usable),
        running=sum(count for node, count in counts.items() if node is not None),
        unplaced=[_trial(trial) for trials in by_node.values() for trial in trials],
        dispatchers=_dispatchers([row for row, node in zip(rows, nodes, strict=True) if node.alive], held),
        drivers=[_driver(search, per_search[search.id], now) for search in held],
        queued=_queued(session, now),
        searches=searches.status_counts(session),
    )


def slots(document: dict[str, Any]) -> int:
    """Trials of one CPU that a node runs at once."""
    return 0 if document.get("storage_problem") else int(float(document.get("cpus") or 0))


def _node(row: Node, now: datetime, trials: Sequence[RunningTrial], running: int) -> NodeOut:
    document = row.document
    silent = (now - row.heartbeat_at).total_seconds()
    return NodeOut(
        id=row.id,
        host=document.get("host"),
        alive=silent < ALIVE_SECONDS,
        cpus=float(document.get("cpus") or 0),
        gpus=float(document.get("gpus") or 0),
        slots=slots(document),
        storage_problem=document.get("storage_problem"),
        running=running,
        trials=[_trial(trial) for trial in trials],
        heartbeat_at=row.heartbeat_at,
        silent_seconds=max(0.0, silent),
        details=document,
    )


def _trial(trial: RunningTrial) -> TrialOnNode:
    return TrialOnNode.model_validate(asdict(trial), extra="ignore")


def _driver(search: RunningSearch, running: int, now: datetime) -> DriverOut:
    host, pid = process(search.driver) if search.driver else (None, None)
    beat = search.heartbeat_at
    return DriverOut(
        search_id=search.id,
        name=search.name,
        host=host,
        pid=pid,
        dispatcher=_named(search.owner),
        attempt=search.attempt,
        priority=search.priority,
        quota=search.quota,
        running=running,
        seconds_left=search.seconds_left,
        silent_seconds=None if beat is None else max(0.0, (now - beat).total_seconds()),
        lost=search.expired,
    )


def _dispatchers(living: Sequence[Node], held: Sequence[RunningSearch]) -> list[DispatcherOut]:
    """Those that publish nodes and those that look after a search."""
    searches_of = Counter(_named(search.owner) for search in held if search.owner)
    publishers = {_named(str(row.document["dispatcher"])) for row in living if row.document.get("dispatcher")}
    found = []
    for name in sorted(publishers | set(searches_of)):
        host, pid = process(name)
        found.append(DispatcherOut(id=name, host=host, pid=pid, searches=searches_of[name]))
    return found


def _named(owner: str) -> str:
    """An owner ("host:pid:start time@cluster") as people tell processes apart: "host:pid"."""
    host, pid = process(owner.partition("@")[0])
    return host if pid is None else f"{host}:{pid}"


def process(name: str) -> tuple[str, int | None]:
    """Host and process id of "host:pid:start time" or "host:pid"."""
    host, *rest = name.rsplit(":", 2 if name.count(":") > 1 else 1)
    return (host, int(rest[0])) if rest and rest[0].isdecimal() else (name, None)


def _queued(session: Session, now: datetime) -> list[QueuedOut]:
    return [
        QueuedOut(
            id=search.id,
            name=search.name,
            priority=search.priority,
            waiting_reason=search.reason,
            waiting_seconds=max(0.0, (now - search.created_at).total_seconds()),
        )
        for search in workload.queued_searches(session, limit=MOST_QUEUED)
    ]
