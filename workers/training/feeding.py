"""What a classifier is trained on, an epoch at a time: augmented batches, from memory or from files.

What is drawn depends on (seed, epoch) only, so that resuming needs no generator state.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Generator

from search.recipes import Recipe
from workers.datasets.batches import Batch, batches_in_epoch
from workers.datasets.decoding import RandomCrop
from workers.datasets.loading import Splits, StreamedSplits, TensorSplit
from workers.datasets.sources import training_batches
from workers.datasets.splitting import derived_seed
from workers.training.augment import augmented
from workers.training.teams import ALONE, Team

AT_ONCE = 256 * 2**20
"""Bytes of images that are put in order and augmented together: large enough for full speed, and far less than a data
set may take."""


class Feed(Protocol):
    """Training batches of uint8 images and labels, augmented, on the device."""

    @property
    def batch_size(self) -> int:
        """Images in a batch: the recipe's, or all there are."""
        ...

    @property
    def wait_share(self) -> float:
        """Share of the last epoch's time that the trial waited for images: 0 to 1."""
        ...

    def __len__(self) -> int:
        """Batches in an epoch; what does not fill one is left out."""
        ...

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch `number` (from 1). DatasetError when an image cannot be read."""
        ...

    def close(self) -> None:
        """Ends the processes that decode, if there are any."""
        ...


def training_feed(opened: Splits | StreamedSplits, recipe: Recipe, seed: int, epochs: int, team: Team = ALONE) -> Feed:
    """The training split as the recipe shows it. epochs: the last epoch that may be asked for. team: of its batches
    only this member's share is read from files, with the labels of all."""
    if isinstance(opened, Splits):
        return MemoryFeed(opened.train, recipe, seed)
    return FileFeed(opened, recipe, seed, epochs, team)


class MemoryFeed:
    """Images that are on the device: slices of permuted tensors, augmented many batches at a time."""

    wait_share = 0.0

    def __init__(self, split: TensorSplit, recipe: Recipe, seed: int, *, at_once: int = AT_ONCE) -> None:
        self.batch_size = min(recipe.batch_size, len(split))
        self._split = split
        self._recipe = recipe
        self._seed = seed
        batch_bytes = self.batch_size * split.images[0].nbytes
        self._group = self.batch_size * max(1, at_once // batch_bytes)

    def __len__(self) -> int:
        return batches_in_epoch(len(self._split), self.batch_size, drop_last=True)

    def epoch(self, number: int) -> Iterator[Batch]:
        generator = _generator(self._seed, "order", number)
        images, labels, size = self._split.images, self._split.labels, self.batch_size
        order = torch.randperm(len(self._split), generator=generator)[: len(self) * size].to(images.device)
        for group in torch.split(order, self._group):
            shown, known = augmented(images[group], self._recipe, generator), labels[group]
            for start in range(0, len(group), size):
                yield shown[start : start + size], known[start : start + size]

    def close(self) -> None:
        """There is nothing to end."""


class FileFeed:
    """Images in files: cropped and flipped as they are decoded where the recipe crops, the rest batch by batch."""

    def __init__(self, opened: StreamedSplits, recipe: Recipe, seed: int, epochs: int, team: Team = ALONE) -> None:
        self.batch_size = min(recipe.batch_size, len(opened.train))
        self._recipe = recipe
        self._seed = seed
        crop = RandomCrop() if recipe.crops else None
        self._source = training_batches(opened, self.batch_size, seed, crop=crop, epochs=epochs, share=team.share)

    @property
    def wait_share(self) -> float:
        return self._source.wait_share

    def __len__(self) -> int:
        return len(self._source)

    def epoch(self, number: int) -> Iterator[Batch]:
        generator = _generator(self._seed, "augment", number)
        for images, labels in self._source.epoch(number):
            yield augmented(images, self._recipe, generator, cropped=True), labels

    def close(self) -> None:
        self._source.close()


def _generator(seed: int, *purpose: object) -> Generator:
    return Generator().manual_seed(derived_seed(seed, *purpose) % 2**63)
