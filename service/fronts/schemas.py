"""What the API says about a front."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel


class Axis(BaseModel):
    """A metric of the front. goal: its better direction. unit: "" for a fraction (a quality) or a count (a cost)."""

    metric: str
    title: str
    goal: Literal["max", "min"]
    unit: str
    kind: Literal["quality", "speed", "cost"]


class Confirmed(BaseModel):
    """The architecture retrained with several seeds. sd: the sample's, null for one seed.

    low, high: 95 % interval of the mean (Student's t), null for one seed.
    """

    metric: str
    seeds: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


class FrontPoint(BaseModel):
    """A trial on the front, or one to compare with.

    values: by metric. seeds: all that its architecture was trained with in this search. architecture: left out with
    `architectures=false`.
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
    params: int | None
    values: dict[str, float]
    architecture: dict[str, Any] | None
    confirmed: Confirmed | None


class Grid(BaseModel):
    """Dominated trials counted in cells over the first two metrics.

    x, y: edges, one more than there are cells along the axis. cells: [column, row, count] of those that hold any.
    """

    x: list[float]
    y: list[float]
    cells: list[tuple[int, int, int]]

    def turned(self) -> Grid:
        """The same with its axes changed for each other."""
        return Grid(x=self.y, y=self.x, cells=sorted((row, column, count) for column, row, count in self.cells))


class DominatedSet(BaseModel):
    """Finished trials that another beats in every metric.

    count: all of them. numbers, values (by metric, rounded to 6 digits, in the order of the numbers): each, up to
    2,000; beyond that none of them, and grid instead.
    """

    count: int
    numbers: list[int]
    values: dict[str, list[float]]
    grid: Grid | None


class PublishedPoint(BaseModel):
    """A row of the literature on the same backbone; its data set is usually another than the search's."""

    source: str
    dataset: str
    module: str
    placement: str
    reduction: int | None
    values: dict[str, float]


class Step(BaseModel):
    """A trial that raised the hypervolume. seconds: since the search's start; null before that is known."""

    number: int
    seconds: float | None
    hypervolume: float


class Front(BaseModel):
    """points: not dominated, by the first metric's better end last. baseline, controls: also where dominated.

    hypervolume, reference_point, steps: of these metrics in the search's own bounds; null and empty where it has none
    for them (yet). steps: in the order of the trials' numbers, at most 200 of them.
    """

    search_id: str
    axes: list[Axis]
    points: list[FrontPoint]
    baseline: FrontPoint | None
    controls: list[FrontPoint]
    published: list[PublishedPoint]
    hypervolume: float | None
    reference_point: dict[str, float] | None
    steps: list[Step]
    dominated: DominatedSet
    last_event: int


class ComparedFront(BaseModel):
    """One search of a comparison. trials: all that were started; trial_seconds: the time they took, all together.

    hypervolume: of its front in bounds that all searches of the comparison share; null where one has none for them.
    """

    search_id: str
    name: str
    status: str
    trials: int
    trial_seconds: float
    hypervolume: float | None
    points: list[FrontPoint]
    baseline: FrontPoint | None
    last_event: int


class MergedPoint(BaseModel):
    """A point that no point of any of the searches beats. search_ids: those that have this very result."""

    search_ids: list[str]
    point: FrontPoint


class Comparison(BaseModel):
    """Several fronts on the same metrics. merged: by the first metric's better end last, as in a front.

    hypervolume: of the merged front; reference_point: the worst end of the bounds that the searches share.
    same_data: whether all were trained on the same data set, without which accuracies do not compare.
    """

    axes: list[Axis]
    searches: list[ComparedFront]
    merged: list[MergedPoint]
    hypervolume: float | None
    reference_point: dict[str, float] | None
    same_data: bool
