"""On which node an actor runs, from Ray's own table of actors."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ray._private.state import actors
from ray.actor import ActorHandle


def node_of(actor: ActorHandle[Any] | None) -> str | None:
    """The node's id (hex), or None while Ray does not know. An actor stays on its node, so each is asked for once."""
    return None if actor is None else _node(actor._actor_id.hex())


@lru_cache(maxsize=10_000)
def _node(actor_id: str) -> str | None:
    found = actors(actor_id)
    return found["Address"]["NodeID"] or None if found else None
