"""Uniform random search: the control that every strategy is measured against."""

from __future__ import annotations

import numpy as np

from search.strategies.base import Proposal, Strategy


class RandomSearch(Strategy):
    """Draws uniformly from the architectures not tried yet."""

    def _propose(self, number: int, rng: np.random.Generator) -> Proposal | None:
        genotype = self._fresh(lambda: self.space.sample(rng), rng)
        return None if genotype is None else Proposal(genotype, {"by": "random"})
