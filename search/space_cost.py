"""The exact cost of every architecture of a space as a table sum: a million architectures without training one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from search.cost import Cost, CostTable
from search.space import Genotype, SearchSpace

COST_METRICS = ("params", "macs")


class SpaceCosts:
    """Costs of the choices of each gene, and of the backbone, as arrays.

    table: the costs of the space's backbone; torch is loaded only for sites that its store does not know.
    """

    def __init__(self, space: SearchSpace, table: CostTable) -> None:
        self.space = space
        self.backbone: Cost = table.backbone()
        self._genes: list[npt.NDArray[np.int64]] = []
        for gene in space.genes:
            costs = [sum((table.site(s, m) for s, m in c.placements), Cost()) for c in gene.choices]
            self._genes.append(np.asarray([[cost.params, cost.macs] for cost in costs], dtype=np.int64))

    def totals(self, genotypes: Sequence[Genotype] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """n × 2: parameters and MACs of each of n genotypes (n × genes)."""
        genes = len(self._genes)
        chosen = np.asarray(genotypes, dtype=np.int64)
        if not chosen.size:
            chosen = chosen.reshape(0, genes)
        if chosen.ndim != 2 or chosen.shape[1] != genes:
            raise ValueError(f"expected genotypes of n × {genes}, not {chosen.shape}")
        total = np.tile(np.asarray([self.backbone.params, self.backbone.macs], dtype=np.int64), (len(chosen), 1))
        for column, costs in enumerate(self._genes):
            total += costs[chosen[:, column]]
        return total

    def cost(self, genotype: Genotype) -> Cost:
        params, macs = self.totals([genotype])[0]
        return Cost(int(params), int(macs))

    def range(self, metric: str) -> tuple[int, int]:
        """The least and the greatest `metric` of the space, exactly (genes are independent, so they add)."""
        column = COST_METRICS.index(metric)
        base = getattr(self.backbone, metric)
        return (
            base + sum(int(costs[:, column].min()) for costs in self._genes),
            base + sum(int(costs[:, column].max()) for costs in self._genes),
        )

    def gene_ranges(self, metric: str) -> list[tuple[int, int]]:
        """Per gene, the least and the greatest that it adds to the backbone."""
        column = COST_METRICS.index(metric)
        return [(int(costs[:, column].min()), int(costs[:, column].max())) for costs in self._genes]
