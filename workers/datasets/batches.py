"""Batches of uint8 images, from memory or from files, in one form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from workers.datasets.loading import TensorSplit
from workers.datasets.splitting import derived_seed

Batch = tuple[Tensor, Tensor]
"""Images (N × C × H × W, uint8) and labels (N, int64), both on the device."""


class BatchSource(Protocol):
    """A split in batches, epoch after epoch."""

    def __len__(self) -> int:
        """Batches in an epoch."""
        ...

    @property
    def wait_share(self) -> float:
        """Share of the last epoch's time, from its start until its last batch was asked for, that the caller waited
        for a batch: 0 to 1. It is 0 for images in memory."""
        ...

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch `number` (from 1), which depend on seed and number only. DatasetError when an image
        cannot be read."""
        ...

    def close(self) -> None:
        """Ends what works for this source; it gives no batches afterwards."""
        ...


def epoch_order(count: int, seed: int | None, number: int) -> Tensor:
    """In which order the `count` images are taken (int64): at random by (seed, number), or as they are for no seed."""
    if seed is None:
        return torch.arange(count)
    generator = torch.Generator().manual_seed(derived_seed(seed, "order", number) % 2**63)
    return torch.randperm(count, generator=generator)


def batches_in_epoch(count: int, size: int, drop_last: bool) -> int:
    """drop_last: leave out what does not fill a batch, unless nothing else is there."""
    return max(1, count // size) if drop_last else -(-count // size)


class TensorBatches:
    """Batches of images that are on the device.

    seed: of the order; None for the order of the split. drop_last: leave out what does not fill a batch.
    """

    wait_share = 0.0

    def __init__(self, split: TensorSplit, size: int, *, seed: int | None = None, drop_last: bool = False) -> None:
        self._split = split
        self._size = min(size, len(split))
        self._seed = seed
        self._drop_last = drop_last

    def __len__(self) -> int:
        return batches_in_epoch(len(self._split), self._size, self._drop_last)

    def epoch(self, number: int) -> Iterator[Batch]:
        images, labels, size = self._split.images, self._split.labels, self._size
        if self._seed is None:
            for start in range(0, len(self) * size, size):
                yield images[start : start + size], labels[start : start + size]
            return
        order = epoch_order(len(self._split), self._seed, number).to(images.device)
        for start in range(0, len(self) * size, size):
            chosen = order[start : start + size]
            yield images[chosen], labels[chosen]

    def close(self) -> None:
        """There is nothing to end."""
