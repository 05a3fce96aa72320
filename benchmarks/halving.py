"""What early stopping saves and costs: simulated searches with and without it, in one run of a few seconds.

    python -m benchmarks.halving [--trials 64] [--epochs 27] [--slots 4] [--seeds 20] [--eta 3] [--min-epochs 1]

A search explores random placements of a resnet20's space with exact costs. What an epoch would measure is simulated:
each choice adds accuracy of its own (most of what costs gains something, with much noise), a trial learns towards its
accuracy at a speed of its own, so that curves cross, and every epoch is measured with the noise of a small validation
split. Slots train one epoch in turn. Three searches are compared: without early stopping; with it on the same
architectures; and with it until as many epochs are spent as without.

Printed are medians over the seeds: epochs as a share of those without; what the search adds to the hypervolume of the
backbone without attention (of the accuracies that trials end with, in the box of the search's bounds) as a ratio to
what it adds without; and how many of the front's members are kept.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from search.architecture import Backbone, Task
from search.cost import CostTable, MemoryStore
from search.pareto import Bounds, Objective, front, minimised
from search.space import Genotype, SearchSpace
from search.space_cost import SpaceCosts
from search.spec import SpaceSpec
from search.strategies.halving import Halving

OBJECTIVES = (Objective("top1", "max"), Objective("macs", "min"))
SHAPE = (1, 12, 12)
NOISE = 0.005
"""Of a measured accuracy (s.d.): that of a split of a few thousand images."""
MOST = 16
"""Architectures drawn for each of a search's trials, for the search that goes on until its epochs are spent."""


@dataclass(frozen=True)
class Simulated:
    """A trial as it would be trained. curve: top1 after each epoch; macs: exact."""

    curve: tuple[float, ...]
    macs: float

    @property
    def end(self) -> tuple[float, float]:
        return self.curve[-1], self.macs


class World:
    """What a seed decides: what each choice gains, how fast trials learn, and the order in which they are drawn."""

    def __init__(self, space: SearchSpace, costs: SpaceCosts, epochs: int, seed: int) -> None:
        self._space, self._costs, self._epochs, self._seed = space, costs, epochs, seed
        rng = np.random.default_rng((seed, 0))
        dearest = [max(1, greatest) for _, greatest in costs.gene_ranges("macs")]
        self._gains = []
        for gene, size in enumerate(space.sizes):
            added = [self._added(gene, choice) / dearest[gene] for choice in range(size)]
            self._gains.append(0.03 * np.asarray(added) * rng.uniform(-0.5, 1.0, size) + rng.normal(0, 0.004, size))
            self._gains[-1][0] = 0.0  # the first choice is no module

    def trials(self, count: int) -> Iterator[Simulated]:
        """The first `count` trials of this world."""
        rng = np.random.default_rng((self._seed, 1))
        seen: set[Genotype] = set()
        while len(seen) < count:
            genotype = self._space.sample(rng)
            if genotype not in seen:
                seen.add(genotype)
                yield self._trial(genotype, rng)

    def baseline(self) -> tuple[float, float]:
        """What the backbone without attention comes to."""
        return 0.75, float(self._costs.backbone.macs)

    def _added(self, gene: int, choice: int) -> float:
        genotype = tuple(choice if index == gene else 0 for index in range(len(self._space.sizes)))
        return self._costs.cost(genotype).macs - self._costs.backbone.macs

    def _trial(self, genotype: Genotype, rng: np.random.Generator) -> Simulated:
        end = 0.75 + sum(float(gains[choice]) for gains, choice in zip(self._gains, genotype, strict=True))
        speed = rng.uniform(0.8, 1.25) * 6 / self._epochs
        passed = 1 - np.exp(-speed * np.arange(1, self._epochs + 1))
        curve = np.clip(end * passed / passed[-1] + rng.normal(0, NOISE, self._epochs), 0, 1)
        return Simulated(tuple(map(float, curve)), float(self._costs.cost(genotype).macs))


@dataclass(frozen=True)
class Outcome:
    """done: trials that came to their end. epochs: trained, by all."""

    done: list[Simulated]
    epochs: int


def searched(trials: Iterator[Simulated], stopping: Halving | None, slots: int, most: float = float("inf")) -> Outcome:
    """Trains the trials on `slots` that take an epoch in turn, until there are none or `most` epochs are spent."""
    running: dict[int, tuple[Simulated, int]] = {}
    done: list[Simulated] = []
    spent = started = 0
    while True:
        while len(running) < slots and spent < most and (trial := next(trials, None)) is not None:
            running[started] = (trial, 0)
            started += 1
        if not running:
            return Outcome(done, spent)
        for number, (trial, before) in list(running.items()):
            epoch = before + 1
            spent += 1
            running[number] = (trial, epoch)
            values = (trial.curve[epoch - 1], trial.macs)
            verdict = stopping.judge(str(number), epoch, values) if stopping else None
            if epoch == len(trial.curve):
                done.append(trial)
            if epoch == len(trial.curve) or (verdict is not None and verdict.stops):
                del running[number]


def members(done: list[Simulated]) -> set[tuple[float, float]]:
    """The ends that no other beats."""
    ends = [trial.end for trial in done]
    return {end for end, kept in zip(ends, front(minimised(ends, OBJECTIVES)), strict=True) if kept}


def compared(world: World, bounds: Bounds, trials: int, epochs: int, slots: int, eta: int,
             least: int) -> dict[str, float]:  # fmt: skip
    """The figures of one seed."""
    whole = searched(world.trials(trials), None, slots)
    halved = searched(world.trials(trials), Halving(OBJECTIVES, epochs, eta=eta, min_epochs=least), slots)
    longer = searched(
        world.trials(trials * MOST), Halving(OBJECTIVES, epochs, eta=eta, min_epochs=least), slots, whole.epochs
    )
    nothing = bounds.hypervolume([world.baseline()])
    added = {name: bounds.hypervolume([world.baseline(), *(trial.end for trial in outcome.done)]) - nothing
              for name, outcome in (("whole", whole), ("halved", halved), ("longer", longer))}  # fmt: skip
    best = members(whole.done)
    return {
        "epochs": halved.epochs / whole.epochs,
        "volume": added["halved"] / added["whole"],
        "kept": len(best & {trial.end for trial in halved.done}) / len(best),
        "longer epochs": longer.epochs / whole.epochs,
        "longer volume": added["longer"] / added["whole"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("trials", 64), ("epochs", 27), ("slots", 4), ("seeds", 20), ("eta", 3), ("min-epochs", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    backbone = Backbone.make("resnet20", width=8)
    patterns = ["every", "first", "last", "alternate"]
    spec = SpaceSpec(modules=["none", "se", "cbam"], reduction=[2, 4, 8], pattern=patterns)
    space = SearchSpace(spec, backbone, SHAPE)
    costs = SpaceCosts(space, CostTable(backbone, Task(SHAPE, 10), MemoryStore()))
    least, greatest = costs.range("macs")
    bounds = Bounds.make(OBJECTIVES, {"macs": (float(least), float(greatest))}, 10)
    rungs = Halving(OBJECTIVES, given.epochs, eta=given.eta, min_epochs=given.min_epochs).rungs
    print(f"{given.trials} trials of {given.epochs} epochs on {given.slots} slots, {given.seeds} seeds; "
          f"rungs after epochs {', '.join(map(str, rungs))}")  # fmt: skip
    rows = [
        compared(World(space, costs, given.epochs, seed), bounds, given.trials, given.epochs, given.slots, given.eta,
                 given.min_epochs)
        for seed in range(given.seeds)
    ]  # fmt: skip
    told = {name: [row[name] for row in rows] for name in rows[0]}
    median = {name: statistics.median(values) for name, values in told.items()}
    spread = {name: f"{median[name]:.3f} × the hypervolume added ({min(values):.3f} to {max(values):.3f})"
              for name, values in told.items()}  # fmt: skip
    print(f"same trials: {median['epochs']:.3f} × the epochs, {spread['volume']}, "
          f"{100 * median['kept']:.0f} % of the front kept")  # fmt: skip
    print(f"same epochs: {median['longer epochs']:.3f} × the epochs, {spread['longer volume']}")


if __name__ == "__main__":
    main()
