"""`digits`: the 1,797 handwritten digits that come with scikit-learn (8 × 8, 17 grey levels, 43 writers).

E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998
(https://doi.org/10.24432/C50P49): scikit-learn has its test set.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.datasets import DatasetEntry, DatasetOption
from workers.datasets.errors import DatasetError
from workers.datasets.splits import ArraySplits, Split
from workers.datasets.splitting import Shares, split_indices

SOURCE = "scikit-learn load_digits; Alpaydin and Kaynak, UCI 1998, https://doi.org/10.24432/C50P49"
SIZE = 8
CLASS_NAMES = tuple(str(digit) for digit in range(10))
SHARES = Shares(validation=0.2, test=0.2)
SPLIT_SEED = 0


@dataclass(frozen=True)
class Source:
    """images: N × 8 × 8, uint8, 0 to 255. labels: N, int64. identities: SHA-256 of each image with its label."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    identities: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the content, in any order."""
        return hashlib.sha256("".join(sorted(self.identities)).encode()).hexdigest()

    def take(self, indices: list[int]) -> Source:
        return Source(self.images[indices], self.labels[indices], tuple(self.identities[i] for i in indices))


@cache
def read_source() -> Source:
    """The digits, read once per process; DatasetError when scikit-learn does not bring them."""
    path = _path()
    try:
        # scikit-learn's own loader costs seconds of imports in every worker
        with gzip.open(path, "rt") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DatasetError(f"digits: {path} cannot be read: {error}") from error
    if table.ndim != 2 or table.shape[1] != SIZE * SIZE + 1 or table[:, :-1].max() > 16 or table[:, -1].max() > 9:
        raise DatasetError(f"digits: {path} is not scikit-learn's table of 8 × 8 digits")
    pixels = table[:, :-1].reshape(-1, SIZE, SIZE)
    images = (pixels.astype(np.uint16) * 255 // 16).astype(np.uint8)
    labels = table[:, -1].astype(np.int64)
    identities = tuple(hashlib.sha256(row.tobytes()).hexdigest() for row in table)
    return Source(images, labels, identities)


def _path() -> Path:
    spec = find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise DatasetError("digits: scikit-learn is not installed")
    return Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"


def source_splits(source: Source) -> ArraySplits:
    """The native images in their splits."""
    found = split_indices(SPLIT_SEED, source.identities, SHARES)
    return ArraySplits(*(_split(source.take(found[name])) for name in ("train", "validation", "test")))


def _split(source: Source) -> Split:
    return Split(source.images[:, None], source.labels, source.identities)


class Digits:
    """The digits as they are, or enlarged."""

    name = "digits"
    evaluator: str | None = None
    options = (
        DatasetOption(
            name="image_size",
            type="int",
            default=SIZE,
            minimum=SIZE,
            maximum=64,
            doc="Height and width; over 8, pixels are repeated (nearest neighbour).",
            sets="image_size",
        ),
    )

    def entry(self) -> DatasetEntry:
        source = read_source()
        splits = source_splits(source)
        return DatasetEntry(
            name=self.name,
            title="Handwritten digits, 8 × 8",
            source=SOURCE,
            input_shape=(1, SIZE, SIZE),
            classes=len(CLASS_NAMES),
            class_names=CLASS_NAMES,
            train_size=len(splits.train.labels),
            validation_size=len(splits.validation.labels),
            test_size=len(splits.test.labels),
            fingerprint=hashlib.sha256(f"{source.fingerprint} {SPLIT_SEED} {SHARES}".encode()).hexdigest(),
            options=self.options,
        )

    def splits(self, options: Mapping[str, Any]) -> ArraySplits:
        native = source_splits(read_source())
        size = options["image_size"]
        return ArraySplits(*(_enlarged(split, size) for split in (native.train, native.validation, native.test)))


def _enlarged(split: Split, size: int) -> Split:
    nearest = np.arange(size) * SIZE // size
    return Split(split.images[:, :, nearest[:, None], nearest], split.labels, split.identities)
