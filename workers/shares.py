"""How many trials fit on the cluster, and fair shares of them among running searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

EPSILON = 1e-9  # thirds of a GPU add up to one


def quotas(slots: int, priorities: Mapping[str, int]) -> dict[str, int]:
    """Slots per search, in proportion to priority + 1, at least 1 each; what rounding leaves goes to the largest
    remainders, so that no slot stays idle.

    slots: trials that the cluster can run at once. priorities: 0 to 9 by search.
    """
    if not priorities:
        return {}
    weights = {search: priority + 1 for search, priority in priorities.items()}
    total = sum(weights.values())
    exact = {search: slots * weight / total for search, weight in weights.items()}
    shares = {search: max(1, int(share)) for search, share in exact.items()}
    left = slots - sum(shares.values())
    by_remainder = sorted(exact, key=lambda search: (int(exact[search]) - exact[search], search))
    for search in by_remainder:
        if left <= 0:
            break
        if exact[search] >= 1:
            shares[search] += 1
            left -= 1
    return shares


def slots(nodes: Sequence[Mapping[str, Any]], cpus: float, gpus: float) -> int:
    """Trials of `cpus` and `gpus` each that run at once on `nodes` (documents with `cpus` and `gpus`)."""

    def fit(node: Mapping[str, Any]) -> int:
        by_cpu = int(node["cpus"] / cpus + EPSILON)
        return min(by_cpu, int(node["gpus"] / gpus + EPSILON)) if gpus else by_cpu

    return sum(fit(node) for node in nodes)
