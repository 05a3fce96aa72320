"""From arrays to tensors on the device, once per process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from search.datasets import DatasetEntry, ResolvedDataset
from workers.datasets import DATASETS, DatasetError, Split


@dataclass(frozen=True)
class TensorSplit:
    """images: N × C × H × W, uint8, on the device. labels: N, int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Splits:
    """A data set on a device. mean, std: per channel (1 × C × 1 × 1, float32) over the training pixels."""

    resolved: ResolvedDataset
    train: TensorSplit
    validation: TensorSplit
    test: TensorSplit
    mean: Tensor
    std: Tensor


def load(name: str, options: Mapping[str, Any] | None = None, device: str = "cpu") -> Splits:
    """The data set called `name`; later calls in this process with the same options give the same tensors.

    Raises SpecError for an unknown name or a wrong option, DatasetError when the source cannot be read.
    """
    resolved = entry(name).resolve(options)
    return _load(name, tuple(sorted(resolved.options.items())), device)


@lru_cache(maxsize=64)
def entry(name: str) -> DatasetEntry:
    """What is published of the data set called `name`, read once per process."""
    return DATASETS.get(name, "dataset.name").entry()


# a search has one data set; a few more are kept for a worker that serves several searches
@lru_cache(maxsize=4)
def _load(name: str, options: tuple[tuple[str, Any], ...], device: str) -> Splits:
    resolved = entry(name).resolve(dict(options))
    arrays = DATASETS.get(name).splits(dict(options))
    train = _to_device(arrays.train, resolved, device)
    mean, std = channel_statistics(train.images)
    return Splits(
        resolved=resolved,
        train=train,
        validation=_to_device(arrays.validation, resolved, device),
        test=_to_device(arrays.test, resolved, device),
        mean=mean,
        std=std,
    )


def _to_device(split: Split, resolved: ResolvedDataset, device: str) -> TensorSplit:
    if split.images.shape[1:] != resolved.input_shape or not len(split.labels):
        raise DatasetError(f"{resolved.name}: images {split.images.shape} do not fit {resolved.input_shape}")
    return TensorSplit(torch.from_numpy(split.images).to(device), torch.from_numpy(split.labels).to(device))


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel of uint8 images (N × C × H × W), each 1 × C × 1 × 1 in float32.

    From exact integer sums, so that they are the same on every device.
    """
    channels = images.transpose(0, 1).flatten(1).cpu()
    counts = torch.stack([torch.bincount(channel, minlength=256) for channel in channels]).double()
    values = torch.arange(256, dtype=torch.float64)
    total = counts.sum(1)
    mean = counts @ values / total
    variance = counts @ values.square() / total - mean.square()
    # an image of one colour has no spread; its pixels then all become 0
    std = variance.clamp_min(0).sqrt().clamp_min(1.0)
    shape = (1, -1, 1, 1)
    return mean.float().view(shape).to(images.device), std.float().view(shape).to(images.device)
