"""What a data set gives to training: arrays where the images fit into memory, else files to be decoded."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import NDArray

from workers.datasets.decoding import Frame
from workers.datasets.scanning import Listing

Histogram = NDArray[np.int64]
"""C × 256: how often each value occurs in each channel of training images."""


@dataclass(frozen=True)
class Split:
    """images: N × C × H × W, uint8. labels: N, int64. identities: one per image, equal for the same source image."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    identities: tuple[str, ...]


@dataclass(frozen=True)
class ArraySplits:
    """The three splits of a data set.

    histogram: of all training images, if the data set has counted it. notes: what the operator should know.
    skipped: images that were left out as unreadable.
    """

    train: Split
    validation: Split
    test: Split
    _: KW_ONLY
    histogram: Histogram | None = None
    notes: tuple[str, ...] = ()
    skipped: int = 0


@dataclass(frozen=True)
class FileSplit:
    """Images of one split as rows of a listing."""

    listing: Listing
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> NDArray[np.int64]:
        return self.listing.labels[self.rows]


@dataclass(frozen=True)
class FileSplits:
    """The three splits of a data set that is decoded while training.

    frame: how an image is cut to one size. histogram: of a sample of the training images. notes, skipped: as above.
    """

    frame: Frame
    train: FileSplit
    validation: FileSplit
    test: FileSplit
    _: KW_ONLY
    histogram: Histogram | None
    notes: tuple[str, ...] = ()
    skipped: int = 0
