"""From arrays or files to what training takes, once per process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from search.datasets import DatasetEntry, ResolvedDataset
from workers.datasets import DATASETS, DatasetError, Split
from workers.datasets.decoded import histogram
from workers.datasets.decoding import Frame
from workers.datasets.disk import DiskDataset
from workers.datasets.options import NORMALISATIONS
from workers.datasets.settings import data_settings
from workers.datasets.splits import ArraySplits, FileSplit, FileSplits, Histogram

MOST_LOADED = 4
"""A search has one data set; a few more are kept for a worker that serves several searches, if they are small."""


@dataclass(frozen=True)
class TensorSplit:
    """images: N × C × H × W, uint8, on the device. labels: N, int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class _Loaded:
    """What every data set on a device has.

    mean, std: by which pixels are to be normalised, per channel (1 × C × 1 × 1, float32).
    class_counts: training images of each class (int64, on the CPU). skipped: images left out as unreadable.
    notes: what the operator should know.
    """

    resolved: ResolvedDataset
    mean: Tensor
    std: Tensor
    class_counts: Tensor
    _: KW_ONLY
    skipped: int = 0
    notes: tuple[str, ...] = ()

    def class_weights(self) -> Tensor:
        """Of the loss of each class, so that all classes weigh the same: N / (classes × count), mean 1 over the
        training images; 0 for a class without images (float32, on the device). scikit-learn's "balanced"."""
        counts = self.class_counts.double()
        weights = torch.where(counts > 0, counts.sum() / (len(counts) * counts.clamp_min(1)), 0.0)
        return weights.float().to(self.mean.device)


@dataclass(frozen=True)
class Splits(_Loaded):
    """A data set whose images are on the device."""

    _: KW_ONLY
    train: TensorSplit
    validation: TensorSplit
    test: TensorSplit


@dataclass(frozen=True)
class StreamedSplits(_Loaded):
    """A data set that is too large for that: files, decoded by `workers.datasets.streaming`. frame: the shape that
    each image is cut to."""

    _: KW_ONLY
    device: torch.device
    frame: Frame
    train: FileSplit
    validation: FileSplit
    test: FileSplit


def load(name: str, options: Mapping[str, Any] | None = None, device: str = "cpu") -> Splits:
    """As `open_dataset`, for callers that need tensors; DatasetError when the images do not fit into memory."""
    opened = open_dataset(name, options, device)
    if isinstance(opened, StreamedSplits):
        limit = data_settings().data_memory.human_readable()
        raise DatasetError(f"{name}: the images take more than ATTUNE_DATA_MEMORY ({limit}).")
    return opened


def open_dataset(name: str, options: Mapping[str, Any] | None = None, device: str = "cpu") -> Splits | StreamedSplits:
    """The data set called `name`; while it stays the same, later calls in this process with the same options give the
    same tensors.

    Raises SpecError for an unknown name or a wrong option, DatasetError when the source cannot be read.
    """
    dataset = DATASETS.get(name, "dataset.name")
    # what is on disk may change while the process lives: entry and images are to be of one moment
    source: _Source = dataset.view(fresh=True) if isinstance(dataset, DiskDataset) else dataset
    resolved = source.entry().resolve(options)
    key = (resolved.fingerprint, device, data_settings().data_memory)
    return _KEPT.get(key, source, lambda: _load(source, resolved, torch.device(device)))


def entry(name: str) -> DatasetEntry:
    """What is published of the data set called `name`."""
    return DATASETS.get(name, "dataset.name").entry()


class _Source(Protocol):
    def entry(self) -> DatasetEntry: ...

    def splits(self, options: Mapping[str, Any]) -> ArraySplits | FileSplits: ...


class _Kept:
    """The data sets used last, while their images together are within the memory for one; always the last one."""

    def __init__(self) -> None:
        self._loaded: OrderedDict[Hashable, tuple[_Source, Splits | StreamedSplits]] = OrderedDict()
        self._lock = threading.Lock()

    def get(
        self, key: Hashable, source: _Source, load: Callable[[], Splits | StreamedSplits]
    ) -> Splits | StreamedSplits:
        """What is kept under `key`, which stands for the content; files must be those of `source`, too."""
        with self._lock:
            kept = self._loaded.get(key)
            if kept is None or (isinstance(kept[1], StreamedSplits) and kept[0] is not source):
                self._loaded[key] = kept = (source, load())
            self._loaded.move_to_end(key)
            while len(self._loaded) > 1 and self._too_much():
                self._loaded.popitem(last=False)
            return kept[1]

    def _too_much(self) -> bool:
        held = sum(_bytes(one) for _, one in self._loaded.values() if isinstance(one, Splits))
        return len(self._loaded) > MOST_LOADED or held > data_settings().data_memory


_KEPT = _Kept()


def _bytes(splits: Splits) -> int:
    return sum(split.images.nbytes for split in (splits.train, splits.validation, splits.test))


def _load(source: _Source, resolved: ResolvedDataset, device: torch.device) -> Splits | StreamedSplits:
    made = source.splits(resolved.options)
    counted = made.histogram
    if counted is None and isinstance(made, ArraySplits):
        counted = histogram(made.train.images)
    mean, std = _statistics(str(resolved.options.get("normalisation", "training")), counted)
    shared: dict[str, Any] = {
        "resolved": resolved,
        "mean": mean.to(device),
        "std": std.to(device),
        "class_counts": torch.bincount(torch.from_numpy(made.train.labels), minlength=resolved.classes),
        "skipped": made.skipped,
        "notes": made.notes,
    }
    if isinstance(made, FileSplits):
        if made.frame.shape != resolved.input_shape:
            raise DatasetError(f"{resolved.name}: images {made.frame.shape} do not fit {resolved.input_shape}")
        return StreamedSplits(
            **shared,
            device=device,
            frame=made.frame,
            train=made.train,
            validation=made.validation,
            test=made.test,
        )
    return Splits(
        **shared,
        train=_to_device(made.train, resolved, device),
        validation=_to_device(made.validation, resolved, device),
        test=_to_device(made.test, resolved, device),
    )


def _to_device(split: Split, resolved: ResolvedDataset, device: torch.device) -> TensorSplit:
    if split.images.shape[1:] != resolved.input_shape or not len(split.labels):
        raise DatasetError(f"{resolved.name}: images {split.images.shape} do not fit {resolved.input_shape}")
    return TensorSplit(torch.from_numpy(split.images).to(device), torch.from_numpy(split.labels).to(device))


def _statistics(name: str, counted: Histogram | None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation by which pixels are normalised: published ones by name, else of what was counted."""
    if name in NORMALISATIONS:
        mean, std = (torch.tensor(values, dtype=torch.float64) * 255 for values in NORMALISATIONS[name])
        return mean.float().view(1, -1, 1, 1), std.float().view(1, -1, 1, 1)
    if counted is None:
        raise DatasetError(f"No training images were counted for the normalisation {name!r}.")
    return statistics_of(counted)


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel of uint8 images (N × C × H × W), each 1 × C × 1 × 1 in float32.

    From exact integer counts, so that they are the same on every device.
    """
    mean, std = statistics_of(histogram(images.cpu().numpy()))
    return mean.to(images.device), std.to(images.device)


def statistics_of(counted: Histogram) -> tuple[Tensor, Tensor]:
    """The same from how often each value occurs in each channel (C × 256)."""
    counts = torch.from_numpy(counted).double()
    values = torch.arange(256, dtype=torch.float64)
    total = counts.sum(1)
    mean = counts @ values / total
    variance = counts @ values.square() / total - mean.square()
    # an image of one colour has no spread; its pixels then all become 0
    std = variance.clamp_min(0).sqrt().clamp_min(1.0)
    return mean.float().view(1, -1, 1, 1), std.float().view(1, -1, 1, 1)
