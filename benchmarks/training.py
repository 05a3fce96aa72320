"""Images per second of attune's training loop against a plain hand-written one: same network, batch and precision.

    python -m benchmarks.training [--dataset cluttered-digits] [--rounds 9] [--threads 1]

Both sides run in one process, interleaved; medians of processor time are compared, so that a busy machine matters less.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from search.architecture import Architecture, Backbone
from search.models import build
from search.recipes import Recipe, resolve
from workers.datasets.loading import Splits, load
from workers.training.feeding import MemoryFeed
from workers.training.loop import Images, Trainer
from workers.training.optimizers import make_optimizer


def ours(splits: Splits, recipe: Recipe) -> Callable[[], None]:
    """One epoch as a trial runs it."""
    network = _network(splits)
    trainer = Trainer(network, make_optimizer(network, recipe), Images(splits), recipe)
    feed = MemoryFeed(splits.train, recipe, seed=0)
    rates = [recipe.lr] * len(feed)
    numbers = itertools.count(1)

    def epoch() -> None:
        trainer.epoch(feed.epoch(next(numbers)), rates)

    return epoch


def plain(splits: Splits, recipe: Recipe) -> Callable[[], None]:
    """One epoch as one writes it by hand: float images that are ready beforehand, and nothing but the step."""
    network = _network(splits)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True
    )
    images, labels = Images(splits)(splits.train.images), splits.train.labels
    generator = torch.Generator().manual_seed(0)

    def epoch() -> None:
        network.train()
        order = torch.randperm(len(labels), generator=generator)
        for start in range(0, len(labels) - recipe.batch_size + 1, recipe.batch_size):
            batch = order[start : start + recipe.batch_size]
            loss = F.cross_entropy(network(images[batch]), labels[batch], label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return epoch


def _network(splits: Splits) -> torch.nn.Module:
    torch.manual_seed(0)
    network = build(Architecture.make(Backbone.make("resnet14", width=8), {}), splits.resolved.task)
    return network.to(memory_format=torch.channels_last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cluttered-digits")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    splits, recipe = load(arguments.dataset), resolve()
    sides = {"ours": ours(splits, recipe), "plain": plain(splits, recipe)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for epoch in sides.values():
        epoch()
    for _ in range(arguments.rounds):
        for name, epoch in sides.items():
            started = time.process_time()
            epoch()
            seconds[name].append(time.process_time() - started)
    images = len(splits.train) // recipe.batch_size * recipe.batch_size
    rates = {name: images * arguments.threads / statistics.median(taken) for name, taken in seconds.items()}
    for name, rate in rates.items():
        print(f"{name:6s} {rate:8.0f} images/s")
    print(f"ratio  {rates['ours'] / rates['plain']:8.3f}")


if __name__ == "__main__":
    main()
