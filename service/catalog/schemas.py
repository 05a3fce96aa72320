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
    """A data set as a worker published it."""

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
    fingerprint: str
    options: list[dict[str, Any]]
    published_at: datetime


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
    kind: Literal["quality", "cost"]
    objective: bool


class Modules(BaseModel):
    items: list[ModuleOut]


class Backbones(BaseModel):
    items: list[BackboneOut]


class Datasets(BaseModel):
    items: list[DatasetOut]


class WeightsList(BaseModel):
    items: list[WeightsOut]


class Strategies(BaseModel):
    items: list[StrategyOut]


class Recipes(BaseModel):
    items: list[RecipeOut]


class MetricList(BaseModel):
    items: list[MetricOut]


class Published(BaseModel):
    """The literature's rows: costs as printed, metrics as fractions, where each was read."""

    items: list[dict[str, Any]]
