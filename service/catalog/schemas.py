"""What can be named in a request."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel


class ModuleOut(BaseModel):
    """An attention module. positions: where it may go, its paper's place first. options: a JSON schema.

    identity_at_start: freshly built it leaves its input as it is.
    """

    name: str
    title: str
    source: str
    positions: list[str]
    has_reduction: bool
    identity_at_start: bool
    options: dict[str, Any]


class BackboneOut(BaseModel):
    """A backbone. pretrained_as: the torchvision model whose weights fit the default options."""

    name: str
    title: str
    source: str
    pretrained_as: str | None
    options: dict[str, Any]


class DatasetOut(BaseModel):
    """A data set as a worker published it. class_counts: training images of each class, where they are told."""

    name: str
    title: str
    task: str
    source: str
    input_shape: tuple[int, int, int]
    classes: int
    class_names: list[str]
    train_size: int
    validation_size: int
    test_size: int
    class_counts: list[int]
    fingerprint: str
    options: list[dict[str, Any]]
    published_at: datetime


class UnavailableOut(BaseModel):
    """A data set that the workers know and cannot use. reason: which files are expected where, or what is broken."""

    name: str
    title: str
    reason: str


class WeightsOut(BaseModel):
    """Weights that a request may start from, by name. fingerprint: SHA-256 (hex) of the file."""

    name: str
    fingerprint: str


class StrategyOut(BaseModel):
    name: str
    title: str
    source: str
    options: dict[str, Any]


class RecipeOut(BaseModel):
    """A recipe with every field's value; `options` is the JSON schema of what can be overridden."""

    name: str
    title: str
    source: str
    recipe: dict[str, Any]
    options: dict[str, Any]


class MetricOut(BaseModel):
    """objective: whether a search may be judged by it; else it can only be drawn."""

    name: str
    title: str
    goal: Literal["max", "min"]
    unit: str
    kind: Literal["quality", "speed", "cost"]
    objective: bool


class Modules(BaseModel):
    items: list[ModuleOut]


class Backbones(BaseModel):
    items: list[BackboneOut]


class Datasets(BaseModel):
    """unavailable: what a search cannot name yet, and why."""

    items: list[DatasetOut]
    unavailable: list[UnavailableOut] = []


class WeightsList(BaseModel):
    items: list[WeightsOut]


class Strategies(BaseModel):
    """early_stopping: what `strategy.early_stopping` may name."""

    items: list[StrategyOut]
    early_stopping: list[StrategyOut]


class Recipes(BaseModel):
    items: list[RecipeOut]


class MetricList(BaseModel):
    items: list[MetricOut]


class Comparison(BaseModel):
    """A printed cost and ours, rounded to the printed digits. reason: why they differ, where they do."""

    printed: float
    ours: float
    verdict: Literal["exact", "deviates"]
    reason: str


class Check(BaseModel):
    """What attune counts for a row: null where it does not build that network, or nothing was printed."""

    params: int | None
    macs: int | None
    params_m: Comparison | None
    gmacs: Comparison | None


class PublishedOut(BaseModel):
    """A row of the literature: costs as printed (10⁶ parameters, 10⁹ multiply-adds), metrics as fractions, where it
    was read. recomputed_…: counted by others than attune. …_deviation: why a printed cost does not follow from its
    paper's text. check: only where it was asked for."""

    source: str
    backbone: str
    dataset: str
    module: str
    placement: str
    reduction: int | None
    params_m: float | None
    gmacs: float | None
    metrics: dict[str, float]
    recomputed_params_m: float | None
    recomputed_gmacs: float | None
    params_deviation: str
    gmacs_deviation: str
    seen_in: str
    note: str
    check: Check | None = None


class Published(BaseModel):
    items: list[PublishedOut]
