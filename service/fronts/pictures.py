"""What is computed from the columns alone: which trials are on the front, the grid of the others, the steps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from search.pareto import Bounds, Objective, front, minimised
from service.fronts import steps
from service.fronts.columns import MOST_KEPT, Columns
from service.fronts.schemas import Grid

MOST_POINTS = 2000
CELLS = 48


@dataclass(frozen=True, eq=False)
class Picture:
    """keep: which of the columns' trials are on the front. grid: of the others, where they are over MOST_POINTS.

    raised: (trial number, hypervolume from then on), thinned; empty without bounds.
    """

    keep: npt.NDArray[np.bool_]
    grid: Grid | None
    hypervolume: float | None
    raised: tuple[tuple[int, float], ...]


@lru_cache(maxsize=MOST_KEPT)
def draw(found: Columns, objectives: tuple[Objective, ...], bounds: Bounds | None) -> Picture:
    """Computed once for each state of a search (columns are the same object while nothing has changed)."""
    keep = front(minimised(found.values, objectives))
    others = found.values[~keep]
    grid = binned(others[:, 0], others[:, 1]) if len(others) > MOST_POINTS else None
    if bounds is None:
        return Picture(keep, grid, None, ())
    raised = steps.thinned(steps.raising(bounds, found.numbers.tolist(), found.values))
    return Picture(keep, grid, bounds.hypervolume(found.values[keep]), tuple(raised))


def binned(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> Grid:
    """A histogram of CELLS × CELLS cells over the range of the data; empty cells are left out."""
    edges = [_edges(x), _edges(y)]
    # as numpy.histogram2d, which takes five times as long for cells of one size
    columns, rows = (
        np.minimum((v - e[0]) * (CELLS / (e[-1] - e[0])), CELLS - 1) for v, e in zip((x, y), edges, strict=True)
    )
    places = columns.astype(np.int64) * CELLS + rows.astype(np.int64)
    counts = np.bincount(places, minlength=CELLS * CELLS)
    cells = [(int(place) // CELLS, int(place) % CELLS, int(counts[place])) for place in np.flatnonzero(counts)]
    return Grid(x=[short(edge) for edge in edges[0]], y=[short(edge) for edge in edges[1]], cells=cells)


def _edges(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """CELLS + 1 of them from the least to the greatest; around a single value, half a unit to each side."""
    low, high = float(values.min()), float(values.max())
    found: npt.NDArray[np.float64] = (
        np.linspace(low, high, CELLS + 1) if high > low else np.linspace(low - 0.5, high + 0.5, CELLS + 1)
    )
    return found


def short(value: float) -> float:
    """To 6 significant digits for small numbers, whole for large ones."""
    return float(f"{value:.6g}") if abs(value) < 1e6 else float(round(value))
