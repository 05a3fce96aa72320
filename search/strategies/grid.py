"""Grid search: every architecture of the space in order, the exhaustive control for small spaces."""

from __future__ import annotations

import numpy as np

from search.strategies.base import Proposal, Strategy


class GridSearch(Strategy):
    """Goes through the space in lexicographic order; a restart goes on behind what was tried."""

    def _propose(self, number: int, rng: np.random.Generator) -> Proposal | None:
        del rng  # nothing is drawn
        if not hasattr(self, "_rest"):
            self._rest = self.space.enumerate()
        genotype = next((g for g in self._rest if self._is_fresh(g)), None)
        return None if genotype is None else Proposal(genotype, {"by": "grid"})
