"""Data sets in files of the operator: what they share."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.datasets import DatasetEntry
from workers.datasets.errors import DatasetError
from workers.datasets.hashing import Progress, no_progress
from workers.datasets.places import Place
from workers.datasets.settings import data_settings
from workers.datasets.splits import ArraySplits, FileSplits


class View(ABC):
    """A data set as its files were at one moment: entry and splits agree with each other."""

    place: Place

    @abstractmethod
    def entry(self) -> DatasetEntry:
        """What is published; DatasetError when the files cannot be used."""

    @property
    @abstractmethod
    def bytes(self) -> int:
        """Of all files that are read."""

    @abstractmethod
    def splits(self, options: Mapping[str, Any]) -> ArraySplits | FileSplits:
        """The images under resolved options; DatasetError when a file is broken or has changed since."""

    @abstractmethod
    def is_current(self, *, fresh: bool) -> bool:
        """Whether the files are still the same. fresh: by a look at every file, however long that takes."""


class DiskDataset(ABC):
    """A data set in files. It is looked at again whenever it is asked for, and read again only where it has changed."""

    evaluator: str | None = None
    name: str
    title: str
    expected: str
    """The files that it is made of, in words."""

    def __init__(self) -> None:
        self._view: View | None = None
        self._lock = threading.Lock()

    def place(self) -> Place:
        """Where it is; DatasetError, with the files that are expected and where, when it is not there."""
        return self.within(self.folder())

    @abstractmethod
    def folder(self) -> Place:
        """The folder that is registered, or that is below the root; DatasetError when there is none."""

    @abstractmethod
    def within(self, folder: Place) -> Place:
        """Where in `folder` the data set is; DatasetError when expected files are not there."""

    @abstractmethod
    def open(self, place: Place, progress: Progress, most: int | None = None) -> View:
        """Reads what is there now; DatasetError when it cannot be used, NotReadYetError when there are more than `most`
        bytes that have not been read before."""

    def absence(self) -> str | None:
        """Why the data set is not there, or None."""
        try:
            self.place()
        except DatasetError as error:
            return str(error)
        return None

    def view(self, *, fresh: bool = False, progress: Progress = no_progress, most: int | None = None) -> View:
        """The files as they are. Without `fresh`, a change within a file may be seen a little later, if looking at
        every file takes long. most: as for `open`."""
        with self._lock:
            place = self.place()
            view = self._view
            if view is None or view.place != place or not view.is_current(fresh=fresh):
                view = self._view = self.open(place, progress, most)
            return view

    def entry(self) -> DatasetEntry:
        return self.view().entry()

    def splits(self, options: Mapping[str, Any]) -> ArraySplits | FileSplits:
        return self.view(fresh=True).splits(options)


def root() -> Path:
    """The folder of data sets."""
    return data_settings().root
