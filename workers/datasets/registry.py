"""Data sets by name. Torch-free: the dispatcher publishes entries, and trials turn the arrays into tensors.

To add a data set: one file with a class of this protocol and one line in `workers/datasets/__init__.py`. Another
package does the same through the entry-point group `attune.datasets`, or in a module that `ATTUNE_PLUGINS` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from search.datasets import DatasetEntry
from search.registry import Registry


class DatasetError(Exception):
    """A data set cannot be read on this machine; the message says which file is missing or broken."""


@dataclass(frozen=True)
class Split:
    """images: N × C × H × W, uint8. labels: N, int64. identities: one per image, equal for the same source image."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    identities: tuple[str, ...]


@dataclass(frozen=True)
class ArraySplits:
    """The three splits of a data set."""

    train: Split
    validation: Split
    test: Split


class Dataset(Protocol):
    """What every data set offers.

    evaluator: name in `workers.training.evaluators`, or None for the one of the data set's task.
    """

    @property
    def name(self) -> str: ...

    @property
    def evaluator(self) -> str | None: ...

    def entry(self) -> DatasetEntry:
        """What is published; reads the source. DatasetError when it is not there."""
        ...

    def splits(self, options: Mapping[str, Any]) -> ArraySplits:
        """The images under resolved options (all of them given); the same for the same options, always."""
        ...


DATASETS: Registry[Dataset] = Registry("data set", "attune.datasets")
