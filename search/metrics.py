"""The metrics that a search may be judged by: names, direction, unit, and whether they are known before training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from search.errors import SpecError, shown

Goal = Literal["max", "min"]


@dataclass(frozen=True)
class Metric:
    """name: its key in a trial's row. goal: the better direction. unit: "" for a fraction.

    kind: `quality` is measured on the validation split; `speed` on the device that has trained, so that only values of
    one device compare; `cost` is exact and known before training.
    """

    name: str
    title: str
    goal: Goal
    unit: str
    kind: Literal["quality", "speed", "cost"]


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("top1", "Validation top-1 accuracy", "max", "", "quality"),
        Metric("top5", "Validation top-5 accuracy", "max", "", "quality"),
        Metric("balanced_accuracy", "Mean of the classes' recalls", "max", "", "quality"),
        Metric("macro_f1", "Mean of the classes' F1", "max", "", "quality"),
        Metric("calibration_error", "Expected calibration error, 15 bins", "min", "", "quality"),
        Metric("loss", "Validation cross-entropy", "min", "nat", "quality"),
        Metric("latency_ms", "Latency at batch 1, median", "min", "ms", "speed"),
        Metric("latency_p95_ms", "Latency at batch 1, 95th percentile", "min", "ms", "speed"),
        Metric("latency_64_ms", "Latency at batch 64, median", "min", "ms", "speed"),
        Metric("latency_64_p95_ms", "Latency at batch 64, 95th percentile", "min", "ms", "speed"),
        Metric("macs", "Multiply-adds of one forward pass", "min", "MAC", "cost"),
        Metric("params", "Parameters", "min", "", "cost"),
    )
}


def metric(name: str, field: str = "metric") -> Metric:
    """The metric called `name`; SpecError listing the valid names otherwise."""
    if name not in METRICS:
        raise SpecError.one(field, f"Unknown metric {shown(name)}.", sorted(METRICS))
    return METRICS[name]


def is_speed(name: str) -> bool:
    """Whether the metric is measured on a device, so that only values of one device compare."""
    return name in METRICS and METRICS[name].kind == "speed"
