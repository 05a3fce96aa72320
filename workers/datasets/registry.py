"""Data sets by name. Torch-free: the dispatcher publishes entries, and trials turn the images into tensors.

To add a data set: one file with a class of this protocol and one line in `workers/datasets/__init__.py`. Another
package does the same through the entry-point group `attune.datasets`, or in a module that `ATTUNE_PLUGINS` names.
Folders of images below ATTUNE_DATA, and registered ones, need no code: they are found by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from search.datasets import DatasetEntry
from search.registry import Registry
from workers.datasets import places
from workers.datasets.cifar_files import CIFAR10, CIFAR100
from workers.datasets.disk import DiskDataset, root
from workers.datasets.errors import DatasetError
from workers.datasets.folders import ImageFolder
from workers.datasets.splits import ArraySplits, FileSplits

LAYOUTS = {CIFAR10.folder, CIFAR100.folder}
"""Folders below the root that are a data set of another name."""


class Dataset(Protocol):
    """What every data set offers.

    evaluator: name in `workers.training.evaluators`, or None for the one of the data set's task.
    """

    @property
    def name(self) -> str: ...

    @property
    def evaluator(self) -> str | None: ...

    def entry(self) -> DatasetEntry:
        """What is published; reads the source, and is cheap while that has not changed. DatasetError when it is not
        there."""
        ...

    def splits(self, options: Mapping[str, Any]) -> ArraySplits | FileSplits:
        """The images under resolved options (all of them given); the same for the same options, always."""
        ...


class DatasetRegistry(Registry[Dataset]):
    """The data sets that are there: those that were added (files of known ones may be missing), and folders."""

    def __init__(self) -> None:
        super().__init__("data set", "attune.datasets")
        self._folders: dict[tuple[Path, str], ImageFolder] = {}

    def get(self, name: str, field: str = "") -> Dataset:
        """As in every registry; a known data set whose files are missing is given too, and says so when it is read."""
        self._load_entry_points()
        return self._entries[name] if name in self._entries else super().get(name, field)

    def all(self) -> list[Dataset]:
        """Every data set that was added or found, whether it can be read or not.

        DatasetError when the folder of data sets cannot be read.
        """
        self._load_entry_points()
        return [*self._entries.values(), *self._found().values()]

    def _known(self) -> Mapping[str, Dataset]:
        self._load_entry_points()
        try:
            found = self._found()
        except DatasetError:  # `survey` says so
            found = {}
        there = [d for d in self._entries.values() if not isinstance(d, DiskDataset) or d.absence() is None]
        return {dataset.name: dataset for dataset in [*there, *found.values()]}

    def _found(self) -> dict[str, ImageFolder]:
        """The folders; one that was found before is the same object, which knows what it has read."""
        folder = root()
        names = [*folder_names(folder), *places.registrations(folder)]
        wanted = [name for name in dict.fromkeys(names) if name not in self._entries and name not in LAYOUTS]
        self._folders = {(folder, n): self._folders.get((folder, n)) or ImageFolder(n) for n in sorted(wanted)}
        return {name: dataset for (_, name), dataset in self._folders.items()}


def folder_names(folder: Path) -> list[str]:
    """The folders below `folder` that have a name which a request can use."""
    return [name for name in places.folder_names(folder) if places.is_name(name)]


DATASETS = DatasetRegistry()
