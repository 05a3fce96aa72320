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
"""A node's document with `cpus` and `gpus`; its slots do not count while it has a `storage_problem`. Where trials run
on it, `each_gpu` lists what is left of each of its GPUs."""


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
        return min(by_cpu, _by_gpu(each_gpu(node), gpus)) if gpus else by_cpu

    return sum(fit(node) for node in usable(nodes))


def each_gpu(node: Node) -> list[float]:
    """What is left of each GPU of a node: 1 of one that nobody uses."""
    return list(node.get("each_gpu", [1.0] * int(node["gpus"])))


def _by_gpu(left: Sequence[float], gpus: float) -> int:
    """Trials for which GPUs suffice of which this is left: Ray gives a fraction from one of them, and 1 or more as
    whole ones."""
    if gpus < 1:
        return sum(int(each / gpus + EPSILON) for each in left)
    return int(_whole(left) / gpus + EPSILON)


def _whole(left: Sequence[float]) -> int:
    return sum(each + EPSILON >= 1 for each in left)


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
        self._cpus = [float(node["cpus"]) for node in ordered]
        self._gpus = [each_gpu(node) for node in ordered]
        self._first: dict[tuple[float, float], int] = {}
        self.totals = sum(self._cpus), sum(map(sum, self._gpus))

    @property
    def left(self) -> list[Node]:
        """What is left of each node."""
        both = zip(self._cpus, self._gpus, strict=True)
        return [{"cpus": cpus, "gpus": sum(gpus), "each_gpu": list(gpus)} for cpus, gpus in both]

    def take(self, wish: Wish) -> bool:
        """Puts one trial on the first node that has room; False when none has."""
        index = self._first.get(wish.shape, 0)
        while index < len(self._cpus):
            if self._cpus[index] + EPSILON >= wish.cpus and _take_gpus(self._gpus[index], wish.gpus):
                self._cpus[index] -= wish.cpus
                break
            index += 1  # never again: rooms only shrink
        self._first[wish.shape] = index
        return index < len(self._cpus)


def _take_gpus(left: list[float], gpus: float) -> bool:
    """Takes so much from GPUs of which this is left, as Ray does: a fraction from the fullest that has it, so that
    whole ones stay whole (`NodeResourceInstanceSet::TryAllocate`). False when they have it not."""
    if not gpus:
        return True
    if gpus < 1:
        enough = [index for index, each in enumerate(left) if each + EPSILON >= gpus]
        if enough:
            left[min(enough, key=left.__getitem__)] -= gpus
        return bool(enough)
    if _whole(left) < gpus:
        return False
    for _ in range(int(gpus)):
        left[next(index for index, each in enumerate(left) if each + EPSILON >= 1)] = 0.0
    return True
