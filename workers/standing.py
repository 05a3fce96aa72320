"""What a search has found so far: its front, the hypervolume of it, the best trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.architecture import Architecture
from search.cost import CostTable
from search.pareto import Bounds, front, minimised


class Standing:
    """Takes in finished trials, one after the other.

    finished: by key, the architectures with results and their objectives in the metrics' units.
    bounds: what scales the hypervolume.
    """

    def __init__(self, bounds: Bounds, table: CostTable) -> None:
        self.finished: dict[str, tuple[Architecture, tuple[float, ...]]] = {}
        self.bounds = bounds
        self._table = table
        self._front: list[tuple[float, ...]] = []
        self._best: tuple[float, str] | None = None

    def add(self, trial_id: str, architecture: Architecture, metrics: dict[str, float]) -> tuple[float, ...] | None:
        """The objectives of a trial, or None when it lacks one of them and so is on no front."""
        values = self.values(architecture, metrics)
        if values is None:
            return None
        self.finished[architecture.key] = (architecture, values)
        self._add_to_front(values)
        top1 = metrics.get("top1", -1.0)
        if self._best is None or top1 > self._best[0]:
            self._best = (top1, trial_id)
        return values

    def values(self, architecture: Architecture, metrics: Mapping[str, float]) -> tuple[float, ...] | None:
        """The objectives of an architecture that has come to these metrics; None when one of them is missing."""
        cost = self._table.architecture(architecture)
        known = {**metrics, "params": float(cost.params), "macs": float(cost.macs)}
        if not all(objective.metric in known for objective in self.bounds.objectives):
            return None
        return tuple(known[objective.metric] for objective in self.bounds.objectives)

    def told(self) -> dict[str, Any]:
        """Hypervolume and best trial; nothing before the first result."""
        if self._best is None:
            return {}
        return {"hypervolume": self.bounds.hypervolume(self._front), "best_trial_id": self._best[1]}

    def _add_to_front(self, values: tuple[float, ...]) -> None:
        """Keeps only the front, which is all that the hypervolume needs."""
        self._front.append(values)
        keep = front(minimised(self._front, self.bounds.objectives))
        self._front = [v for v, kept in zip(self._front, keep, strict=True) if kept]
