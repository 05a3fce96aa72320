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
    counts, x_edges, y_edges = np.histogram2d(x, y, bins=CELLS)
    filled = np.argwhere(counts > 0)
    cells = [(int(i), int(j), int(counts[i, j])) for i, j in filled]
    return Grid(x=[short(edge) for edge in x_edges], y=[short(edge) for edge in y_edges], cells=cells)


def short(value: float) -> float:
    """To 6 significant digits for small numbers, whole for large ones."""
    return float(f"{value:.6g}") if abs(value) < 1e6 else float(round(value))
