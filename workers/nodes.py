"""On which node a trial runs, and on which ones it must not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from ray._private.state import actors
from ray.actor import ActorHandle
from ray.tune import PlacementGroupFactory

NODE_LABEL = "ray.io/node-id"
"""A label that Ray gives to every node."""
LOOK_SECONDS = 2.0


def node_of(actor: ActorHandle[Any] | None) -> str | None:
    """The node's id (hex), or None while Ray's table of actors does not know it. An actor stays on its node, so each is
    asked for once."""
    return None if actor is None else _node(actor._actor_id.hex())


@lru_cache(maxsize=10_000)
def _node(actor_id: str) -> str | None:
    found = actors(actor_id)
    return found["Address"]["NodeID"] or None if found else None


def to_avoid(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Ids of the nodes that see another store, or that nobody has looked at yet; none where there is no other node for
    a trial, as it would wait for ever and not say why. nodes: as dispatchers publish them."""
    offering = [node for node in nodes if node["cpus"] or node["gpus"]]
    bad = [str(node["id"]) for node in offering if node.get("storage_problem")]
    return sorted(bad) if len(bad) < len(offering) else []


class Avoided:
    """What `to_avoid` says of the nodes as they were two seconds ago at most. read: gives what is published."""

    def __init__(self, read: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
        self._read = read
        self._known: list[str] = []
        self._read_at = float("-inf")

    def now(self) -> list[str]:
        if time.monotonic() - self._read_at >= LOOK_SECONDS:
            self._known = to_avoid(self._read())
            self._read_at = time.monotonic()
        return self._known


def placed_by(cpus: float, gpus: float, workers: int = 1) -> Callable[[dict[str, Any]], PlacementGroupFactory]:
    """How Tune is to place a trial: config["avoid"] has ids of nodes that are not to be used. Trials that avoid the
    same nodes share processes. workers: processes of one trial, all on one node, which share its CPUs and GPUs."""

    def place(config: dict[str, Any]) -> PlacementGroupFactory:
        bundle = {"CPU": int(10_000 * cpus / workers) / 10_000, "GPU": gpus / workers}
        bundles, strategy = [bundle] * workers, "STRICT_PACK" if workers > 1 else "PACK"
        avoid = config.get("avoid")
        if not avoid:
            return PlacementGroupFactory(bundles, strategy)
        selector = {NODE_LABEL: f"!in({','.join(avoid)})"}
        return PlacementGroupFactory(bundles, strategy, bundle_label_selector=[selector] * workers)

    return place
