"""Which explore trials of a run end before their last epoch: its early stopping, fed with epochs as trials report them
and as the database holds them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from db.models import Epoch, Trial
from search.architecture import Architecture
from search.metrics import METRICS
from search.strategies.early_stopping import EarlyStopping, Verdict
from workers.orders import Order
from workers.standing import Standing

REPORTED_AS = {"loss": "val_loss"}
"""Metrics that have another name in the report of an epoch."""


def measured(report: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that a trial has come to after an epoch, by name, from what was reported of it."""
    found = {}
    for metric in METRICS.values():
        value = report.get(REPORTED_AS.get(metric.name, metric.name))
        if metric.kind == "quality" and isinstance(value, int | float) and math.isfinite(value):
            found[metric.name] = float(value)
    return found


class EarlyStops:
    """stopping: None for a search that trains every trial to its end. standing: which knows the exact costs.

    spared: keys of architectures that others are judged against and that go on themselves, however bad they are.
    """

    def __init__(self, stopping: EarlyStopping | None, standing: Standing, spared: Collection[str] = ()) -> None:
        self._stopping = stopping
        self._standing = standing
        self._spared = spared

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs after which trials are judged."""
        return () if self._stopping is None else self._stopping.rungs

    def judge(self, order: Order, epoch: int, report: Mapping[str, Any]) -> Verdict | None:
        """Takes in an epoch; None where the trial is not judged. One that lacks an objective is not either: it will be
        on no front."""
        if self._stopping is None or order.phase != "explore" or epoch not in self.rungs:
            return None
        values = self._standing.values(order.architecture, measured(report))
        if values is None:
            return None
        if order.architecture.key in self._spared:
            self._stopping.restore(order.trial_id, epoch, values)
            return None
        return self._stopping.judge(order.trial_id, epoch, values)

    def passed(self, order: Order, epoch: int, report: Mapping[str, Any]) -> None:
        """Takes in an epoch of a trial that has its result already."""
        if order.phase == "explore":
            self._restore(order.trial_id, order.architecture, epoch, report)

    def failed(self, order: Order) -> None:
        """Forgets a trial that will have no result."""
        if self._stopping is not None:
            self._stopping.withdraw(order.trial_id)

    def restore(self, row: Trial, architecture: Architecture, epochs: Iterable[Epoch]) -> None:
        """Takes in what the database holds of a trial. Its row says that it was stopped together with the epoch after
        which it was, so every other rung that it has an epoch at is one that it has passed."""
        if row.phase != "explore" or row.status == "failed":
            return
        for epoch in epochs:
            report = {**epoch.metrics, "top1": epoch.top1, "top5": epoch.top5, "val_loss": epoch.val_loss}
            stopped = row.status == "stopped" and epoch.epoch == row.epochs
            self._restore(row.id, architecture, epoch.epoch, report, stopped=stopped)

    def epochs_left(self, phase: str, epochs: int, done: int = 0) -> float:
        """How many of its epochs a trial may be expected to train still."""
        left = max(0, epochs - done)
        return left if self._stopping is None or phase != "explore" else min(left, self._stopping.epochs_left(done))

    def _restore(self, trial_id: str, architecture: Architecture, epoch: int, report: Mapping[str, Any],
                 stopped: bool = False) -> None:  # fmt: skip
        if self._stopping is None or epoch not in self.rungs:
            return
        values = self._standing.values(architecture, measured(report))
        if values is not None:
            self._stopping.restore(trial_id, epoch, values, stopped=stopped)
