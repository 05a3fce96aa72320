"""The confirm phase: the best of the front and the baseline, trained with several seeds and tested.

One seed proves nothing: on small data the seeds of one architecture differ by half a point and more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from search.architecture import Architecture
from search.metrics import METRICS
from search.pareto import front, minimised
from search.plan import SearchPlan
from workers.evaluation import evaluation_key
from workers.orders import Order

Finished = Mapping[str, tuple[Architecture, tuple[float, ...]]]


def confirm_orders(plan: SearchPlan, finished: Finished) -> Iterator[Order]:
    """The orders of the phase: for each seed the baseline and every architecture confirmed, so that early seeds
    already compare all of them. Those that only the search before has chosen are marked.

    finished: by key, the architectures with results and their objectives in the metrics' units.
    """
    spec = plan.spec.confirm
    if spec is None:
        return
    baseline = plan.controls[0][1]
    chosen = confirmed(plan, finished, spec.top)
    own = {baseline.key, *(architecture.key for architecture in chosen)}
    brought = [architecture for architecture in plan.reconfirmed if architecture.key not in own]
    baseline_seeds = spec.baseline_seeds or spec.seeds
    epochs = spec.epochs or plan.epochs
    for index in range(max(spec.seeds, baseline_seeds)):
        seed = plan.spec.strategy.seed + 1 + index  # the search's own seed chose them: it would flatter them
        wanted = [baseline] if index < baseline_seeds else []
        wanted += [*chosen, *brought] if index < spec.seeds else []
        for architecture in wanted:
            key = evaluation_key(plan, architecture, seed=seed, epochs=epochs, test=True)
            note = {} if architecture.key in own else {"by": "previous"}
            yield Order("confirm", "confirm", architecture, seed, epochs, key, note=note)


def confirmed(plan: SearchPlan, finished: Finished, top: int) -> list[Architecture]:
    """The `top` architectures of the front beside the baseline, best in the first quality objective first."""
    if not finished:
        return []
    architectures = [architecture for architecture, _ in finished.values()]
    points = minimised([values for _, values in finished.values()], plan.objectives)
    quality = next(i for i, objective in enumerate(plan.objectives) if METRICS[objective.metric].kind == "quality")
    members = np.flatnonzero(front(points))
    best = sorted(members, key=lambda index: (points[index, quality], architectures[index].key))
    return [architectures[index] for index in best if not architectures[index].is_baseline][:top]
