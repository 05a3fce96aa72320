"""What the API says about the machines and who works on them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel


class TrialOnNode(BaseModel):
    """A trial that runs. retries: failed attempts so far."""

    id: str
    search_id: str
    number: int
    label: str
    epochs: int
    epochs_planned: int
    retries: int
    started_at: datetime


class NodeOut(BaseModel):
    """alive: heard of within the last minute by the database's clock. slots: trials of one CPU that run at once; 0
    while the node sees another store than the others (`storage_problem` says so). running: trials on it now.

    details: as the node was published.
    """

    id: str
    host: str | None
    alive: bool
    cpus: float
    gpus: float
    slots: int
    storage_problem: str | None
    running: int
    trials: list[TrialOnNode]
    heartbeat_at: datetime
    silent_seconds: float
    details: dict[str, Any]


class DriverOut(BaseModel):
    """A search that runs and the process that runs it. host, pid: null while the process is starting.

    quota: its share of the slots. running: its trials that have a process. lost: its lease has run out, and another
    driver will take the search over.
    """

    search_id: str
    name: str
    host: str | None
    pid: int | None
    dispatcher: str
    attempt: int
    priority: int
    quota: int
    running: int
    seconds_left: float | None
    silent_seconds: float | None
    lost: bool


class DispatcherOut(BaseModel):
    """A process that starts drivers. searches: how many of the running ones it looks after."""

    id: str
    host: str
    pid: int | None
    searches: int


class QueuedOut(BaseModel):
    """A search that waits. waiting_reason: why it would not start even if slots were free."""

    id: str
    name: str
    priority: int
    waiting_reason: str | None
    waiting_seconds: float


class Cluster(BaseModel):
    """cpus, gpus, slots: of the living nodes without a storage problem. searches: how many are in each status.

    queued: the first of those that wait, in the order in which they start. unplaced: trials on a node
    that is not known, or that have no process yet. running: all that have one, also beyond those listed.
    """

    nodes: list[NodeOut]
    cpus: float
    gpus: float
    slots: int
    running: int
    unplaced: list[TrialOnNode]
    dispatchers: list[DispatcherOut]
    drivers: list[DriverOut]
    queued: list[QueuedOut]
    searches: dict[str, int]
