"""What the API says about a front."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel


class Axis(BaseModel):
    """A metric of the front. goal: its better direction. unit: "" for a fraction or a count."""

    metric: str
    title: str
    goal: Literal["max", "min"]
    unit: str


class Confirmed(BaseModel):
    """The architecture retrained with several seeds. sd: the sample's, null for one seed."""

    metric: str
    seeds: int
    mean: float
    sd: float | None


class FrontPoint(BaseModel):
    """A trial on the front, or one to compare with.

    values: by metric. seeds: all that its architecture was trained with in this search.
    """

    trial_id: str
    number: int
    role: str
    phase: str
    status: str
    label: str
    key: str
    seed: int
    seeds: list[int]
    values: dict[str, float]
    architecture: dict[str, Any] | None
    confirmed: Confirmed | None


class Dominated(BaseModel):
    """A finished trial that another beats in every metric."""

    trial_id: str
    number: int
    role: str
    values: dict[str, float]


class Bin(BaseModel):
    """Dominated trials in one cell. x, y: [low, high] of the first two metrics."""

    x: tuple[float, float]
    y: tuple[float, float]
    count: int


class DominatedSet(BaseModel):
    """count: all of them. points: each, up to 2,000; beyond that none, and bins instead."""

    count: int
    points: list[Dominated]
    bins: list[Bin]


class Front(BaseModel):
    """points: not dominated, by the first metric's better end last. baseline, controls: also where dominated.

    hypervolume, reference_point: of these metrics in the search's own bounds; null where it has none for them (yet).
    """

    search_id: str
    axes: list[Axis]
    points: list[FrontPoint]
    baseline: FrontPoint | None
    controls: list[FrontPoint]
    hypervolume: float | None
    reference_point: dict[str, float] | None
    dominated: DominatedSet
    last_event: int
