"""Looks from every node of the cluster whether it sees the dispatchers' store, with a task that runs there."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from workers.storage.errors import StorageError
from workers.storage.identity import StoreIdentity, checked_store

AGAIN_SECONDS = 30.0
"""After so long a node that does not see the store is looked at again: somebody may have mounted it."""
PATIENCE_SECONDS = 60.0
"""A node that has not answered for so long is asked anew: its task may have gone with a process."""

log = structlog.get_logger()


@dataclass
class _Node:
    """What is known of a node. problem: None when it sees the store. task: one that is under way."""

    problem: str | None = "Whether it sees the store is being looked at."
    task: Any = None
    asked: float = field(default_factory=time.monotonic)


class NodeCheck:
    """Remembers which nodes see the store. here: the id of this machine's node, which the dispatcher has checked."""

    def __init__(self, identity: StoreIdentity, here: str) -> None:
        self._identity = identity
        self._here = here
        self._known: dict[str, _Node] = {}

    def marked(self, nodes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The nodes' documents, with a `storage_problem` where one is known or nothing is known yet.

        Asks new nodes, and never waits for an answer.
        """
        for gone in self._known.keys() - {node["id"] for node in nodes}:
            del self._known[gone]
        return [self._marked(node) for node in nodes]

    def _marked(self, node: dict[str, Any]) -> dict[str, Any]:
        if node["id"] == self._here or not (node["cpus"] or node["gpus"]):
            return node  # no trial runs there, or this machine has looked itself
        known = self._known.get(node["id"])
        if known is None:
            known = self._known[node["id"]] = _Node(task=_ask(node["id"], self._identity))
        if known.task is not None:
            self._listen(node, known)
        elif known.problem is not None and time.monotonic() - known.asked >= AGAIN_SECONDS:
            known.task, known.asked = _ask(node["id"], self._identity), time.monotonic()
        return {**node, "storage_problem": known.problem}  # None too: what is not said stays as it was in the catalog

    def _listen(self, node: dict[str, Any], known: _Node) -> None:
        import ray

        ready, _ = ray.wait([known.task], timeout=0)
        if not ready:
            waited = time.monotonic() - known.asked
            if waited >= PATIENCE_SECONDS:
                known.problem = f"Whether it sees the store could not be found out in {waited:.0f} s."
                known.task, known.asked = _ask(node["id"], self._identity), time.monotonic()
            return
        try:
            known.problem = ray.get(known.task)
        except ray.exceptions.RayError as error:
            known.problem = f"Whether it sees the store could not be found out: {error}"[:500]
        known.task = None
        if known.problem is not None:
            log.error("node.other_store", node=node["id"], host=node["host"], problem=known.problem)
        else:
            log.info("node.sees_store", node=node["id"], host=node["host"])


def _ask(node_id: str, identity: StoreIdentity) -> Any:
    """A task on that node which gives the problem there, or None."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    task: Any = ray.remote(problem_here)
    return task.options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(identity.url, identity.id)


def problem_here(url: str, identity: str) -> str | None:
    """Why the store cannot be used on this machine, or None."""
    try:
        checked_store(StoreIdentity(url, identity), f"Node {socket.gethostname()}")
    except StorageError as error:
        return str(error)
    return None
