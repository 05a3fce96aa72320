"""How many trials fit on the cluster, and fair shares of them among running searches.

Shares are weighted max-min fair over the dominant resource of each search (Ghodsi et al., "Dominant Resource
Fairness", NSDI 2011): slots are handed out one by one, each to the search that has the least for its weight and whose
next trial still fits on a node. So what one search cannot use (its own limit, no GPU left) goes to the others.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

EPSILON = 1e-9
"""Thirds of a GPU add up to one."""

MOST_DEMANDED = 1000
"""Trials for which an autoscaler is asked to make room at most; its own bounds are much lower."""

Node = Mapping[str, Any]
"""A node's document with `cpus` and `gpus`; its slots do not count while it has a `storage_problem`."""


@dataclass(frozen=True)
class Wish:
    """What a search asks of the cluster. cpus, gpus: of one trial; concurrent: trials at once at most."""

    cpus: float
    gpus: float
    priority: int = 5
    concurrent: int | None = None

    @classmethod
    def of(cls, resources: Mapping[str, Any], priority: int) -> Wish:
        """From `resources` of a stored spec."""
        concurrent = resources.get("concurrent")
        return cls(float(resources["cpus"]), float(resources["gpus"]), priority, concurrent)

    @property
    def shape(self) -> tuple[float, float]:
        return self.cpus, self.gpus


def usable(nodes: Sequence[Node]) -> list[Node]:
    """The nodes that trials can run on."""
    return [node for node in nodes if not node.get("storage_problem")]


def slots(nodes: Sequence[Node], cpus: float, gpus: float) -> int:
    """Trials of `cpus` and `gpus` each that run at once on `nodes`."""

    def fit(node: Node) -> int:
        by_cpu = int(node["cpus"] / cpus + EPSILON)
        return min(by_cpu, int(node["gpus"] / gpus + EPSILON)) if gpus else by_cpu

    return sum(fit(node) for node in usable(nodes))


def quotas(nodes: Sequence[Node], wishes: Mapping[str, Wish]) -> dict[str, int]:
    """Slots of each search: at least 1, at most its `concurrent`, and otherwise its share by priority + 1.

    Searches that are equal but for their weights w get the slots n that minimise Σ n² / w (Sainte-Laguë).
    """
    shares = dict.fromkeys(wishes, 1)
    room = _Room(usable(nodes))
    for wish in wishes.values():
        room.take(wish)  # the first slot is everybody's, fit or not
    totals = room.totals
    waiting = [
        (_next_cost(wish, 1, totals), search)
        for search, wish in sorted(wishes.items())
        if wish.concurrent is None or wish.concurrent > 1
    ]
    heapq.heapify(waiting)
    while waiting:
        _, search = heapq.heappop(waiting)
        wish = wishes[search]
        if not room.take(wish):
            continue  # nothing grows while slots are given away: it never fits again
        shares[search] += 1
        if wish.concurrent is None or shares[search] < wish.concurrent:
            heapq.heappush(waiting, (_next_cost(wish, shares[search], totals), search))
    return shares


def left_over(nodes: Sequence[Node], wishes: Iterable[Wish]) -> list[Node]:
    """What the nodes have left when one trial of each of `wishes` runs on them."""
    room = _Room(usable(nodes))
    for wish in wishes:
        room.take(wish)
    return room.left


def demand(wanted: Sequence[tuple[Mapping[str, Any], int]]) -> list[dict[str, float]]:
    """Resources of the trials that would run at once if there were nodes enough: one trial of each search, then the
    others, up to MOST_DEMANDED in all. wanted: resources of one trial, and how many trials the search has."""
    wishes = [(Wish.of(resources, 0), trials) for resources, trials in wanted if resources]
    counts = [max(1, min(trials, wish.concurrent or trials)) for wish, trials in wishes]
    bundles = [wish for wish, _ in wishes]
    for (wish, _), count in zip(wishes, counts, strict=True):
        bundles += [wish] * min(count - 1, MOST_DEMANDED)
    kinds = [{"CPU": wish.cpus, "GPU": wish.gpus} for wish in bundles[:MOST_DEMANDED]]
    return [{name: amount for name, amount in kind.items() if amount} for kind in kinds]


def _next_cost(wish: Wish, held: int, totals: tuple[float, float]) -> float:
    """What one more slot adds to the square of the dominant share over the weight, for each bit of that share."""
    parts = [wanted / total for wanted, total in zip(wish.shape, totals, strict=True) if total]
    return (2 * held + 1) * max(parts, default=1.0) / (wish.priority + 1)


class _Room:
    """What is left on the nodes while slots are given away. Trials without GPUs fill the nodes without GPUs first."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        ordered = sorted(nodes, key=lambda node: (float(node["gpus"]), float(node["cpus"])))
        self._left = [[float(node["cpus"]), float(node["gpus"])] for node in ordered]
        self._first: dict[tuple[float, float], int] = {}
        self.totals = sum(cpus for cpus, _ in self._left), sum(gpus for _, gpus in self._left)

    @property
    def left(self) -> list[Node]:
        """What is left of each node."""
        return [{"cpus": cpus, "gpus": gpus} for cpus, gpus in self._left]

    def take(self, wish: Wish) -> bool:
        """Puts one trial on the first node that has room; False when none has."""
        index = self._first.get(wish.shape, 0)
        while index < len(self._left):
            left = self._left[index]
            if left[0] + EPSILON >= wish.cpus and left[1] + EPSILON >= wish.gpus:
                left[0] -= wish.cpus
                left[1] -= wish.gpus
                break
            index += 1  # never again: rooms only shrink
        self._first[wish.shape] = index
        return index < len(self._left)
