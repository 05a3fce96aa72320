"""Which metrics have a column of their own, and how any metric is named in SQL."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Float, cast

from db import checks
from db.models import Trial

METRIC_COLUMNS = ("top1", "top5", "loss", "test_top1", "latency_ms")
NUMBER_COLUMNS = (*METRIC_COLUMNS, "params", "macs", "seconds", "epochs", "epochs_planned", "retries", "number", "seed")
EPOCH_COLUMNS = ("train_loss", "val_loss", "top1", "top5", "lr", "seconds")

Metrics = Mapping[str, float | int | str | None]


def metric_expression(name: str) -> ColumnElement[Any]:
    """The SQL of a metric: a number column of trials, else an entry of `metrics`."""
    if name in NUMBER_COLUMNS:
        column: ColumnElement[Any] = getattr(Trial, name).expression
        return column
    checks.clean_text("metric", name, longest=100)
    return cast(Trial.metrics[name].as_string(), Float)


def metric_of(trial: Trial, name: str) -> Any:
    """The value that `metric_expression` has for a trial."""
    return getattr(trial, name) if name in NUMBER_COLUMNS else trial.metrics.get(name)


def split(metrics: Metrics, columns: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The metrics that have a column, and the others."""
    own = {name: item for name, item in metrics.items() if name in columns}
    return own, {name: item for name, item in metrics.items() if name not in columns}
