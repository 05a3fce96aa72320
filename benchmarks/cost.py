"""Architectures costed per second: attune's tables against `FlopCounterMode` on built networks, both in one run.

    python benchmarks/cost.py [--backbone resnet50] [--image 3 224 224] [--count 500] [--seed 0]

Draws random architectures (any registered module, any valid option of reduction, any site), costs them both ways,
stops if one differs, and prints both rates. The other side is given every advantage that it has without
tables: it builds on the meta device, where nothing is computed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from search.architecture import Architecture, Backbone, Module, Placement, Task, site_problems
from search.attention import ATTENTION
from search.cost import Cost, CostTable
from search.models import build
from search.sites import Site
from search.space import SearchSpace
from search.space_cost import SpaceCosts
from search.spec import SpaceSpec

REDUCTIONS = (4, 8, 16)
RANKED = 1_000_000


def candidates(backbone: Backbone, task: Task) -> Iterator[Placement]:
    """Everything that fits somewhere: each module by itself at each site."""
    stages = backbone.stages(task.input_shape)
    for info in ATTENTION:
        choices: list[dict[str, Any]] = [{"reduction": r} for r in REDUCTIONS] if info.has_reduction else [{}]
        for options, stage in product(choices, stages):
            module = Module.make(info.name, **options)
            for number, block in enumerate(stage.blocks, start=1):
                for position in block.points:
                    site = Site(stage.number, number, position)
                    if not list(site_problems(stages, site, (module,))):
                        yield site, (module,)


def draw(backbone: Backbone, pool: list[Placement], count: int, rng: np.random.Generator) -> list[Architecture]:
    """Architectures with up to as many placements as there are sites in a typical network, 0 to 12."""
    picks = (rng.choice(len(pool), size=rng.integers(0, 13), replace=False) for _ in range(count))
    return [Architecture.make(backbone, dict(pool[i] for i in pick)) for pick in picks]


def by_building(architecture: Architecture, task: Task) -> Cost:
    """What one does without tables: build, run under the counter, sum the parameters."""
    with torch.device("meta"):
        network = build(architecture, task).eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(torch.empty(1, *task.input_shape, device="meta"))
    return Cost(sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2)


def space(backbone: Backbone, task: Task) -> SearchSpace:
    """SE and CBAM at each reduction, in each pattern, before and after the add."""
    spec = SpaceSpec(
        modules=["none", "se", "cbam"],
        reduction=list(REDUCTIONS),
        position=["residual", "post"],
        pattern=["every", "first", "last", "alternate"],
    )
    return SearchSpace(spec, backbone, task.input_shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--image", type=int, nargs=3, default=(3, 224, 224), metavar=("C", "H", "W"))
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    backbone, task = Backbone.make(args.backbone), Task(tuple(args.image), 1000)
    pool, rng = list(candidates(backbone, task)), np.random.default_rng(args.seed)
    architectures = draw(backbone, pool, args.count, rng)

    by_building(Architecture.make(backbone, {}), task)  # torch loads much when it first counts

    started = time.perf_counter()
    table = CostTable(backbone, task)
    ours = [table.architecture(architecture) for architecture in architectures]
    cold = time.perf_counter() - started
    started = time.perf_counter()
    again = [table.architecture(architecture) for architecture in architectures]
    warm = time.perf_counter() - started
    started = time.perf_counter()
    theirs = [by_building(architecture, task) for architecture in architectures]
    building = time.perf_counter() - started
    differing = [a.key for a, x, y, z in zip(architectures, ours, again, theirs, strict=True) if not x == y == z]
    if differing:
        raise SystemExit(f"{len(differing)} of {args.count} architectures are costed differently, first {differing[0]}")

    ranked = space(backbone, task)
    costs = SpaceCosts(ranked, table)
    genotypes = np.stack([rng.integers(0, size, RANKED) for size in ranked.sizes], axis=1)
    started = time.perf_counter()
    costs.totals(genotypes)
    ranking = time.perf_counter() - started
    print(f"{args.backbone}, {len(pool)} placements, {args.count} architectures: all costs equal")
    for name, count, seconds in [
        ("FlopCounterMode on built networks", args.count, building),
        ("tables, first time", args.count, cold),
        ("tables, again", args.count, warm),
        (f"a space of {ranked.count:,} at once", RANKED, ranking),
    ]:
        rate = count / seconds
        print(f"{name:36s} {rate:14,.1f} per second {rate / (args.count / building):14,.1f} ×")


if __name__ == "__main__":
    main()
