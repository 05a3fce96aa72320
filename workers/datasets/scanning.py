"""The image files below folders of classes, without opening them."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search.errors import shown
from workers.datasets.errors import DatasetError
from workers.datasets.places import Place
from workers.datasets.splitting import SplitName

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Those of torchvision's ImageFolder, upper case or lower."""
SHOWN = 5


@dataclass(frozen=True)
class Part:
    """A folder of classes. name: of the split whose images it holds ("train" also where splits are drawn from it).
    folder: relative to the data set's, "" for itself."""

    name: SplitName
    folder: str


@dataclass(frozen=True)
class Listing:
    """Image files, sorted by part, then path.

    place: the data set's folder. classes: names by label. parts: which there are.
    paths: relative to the folder. part, labels: one per file. status: N × 3, size in bytes, time of the last change
    of content and of inode in ns.
    folders: times of the last change of every folder that was read (ns), by path.
    ignored: files that are no images, and entries where a class folder was expected. count_ignored: how many.
    seconds: that listing took.
    """

    place: Place
    classes: tuple[str, ...]
    parts: tuple[Part, ...]
    paths: list[str]
    part: NDArray[np.int8]
    labels: NDArray[np.int64]
    status: NDArray[np.int64]
    folders: dict[str, int]
    ignored: tuple[str, ...]
    count_ignored: int
    seconds: float

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def bytes(self) -> int:
        return int(self.status[:, 0].sum())

    def same_files(self, other: Listing) -> bool:
        """Whether `other` saw the same files with the same sizes and times."""
        return (
            self.place == other.place
            and self.classes == other.classes
            and self.parts == other.parts
            and self.paths == other.paths
            and np.array_equal(self.status, other.status)
        )

    def folders_unchanged(self) -> bool:
        """Whether no file has come or gone since (a look at each folder, not at each file)."""
        try:
            return all(os.stat(folder).st_mtime_ns == changed for folder, changed in self.folders.items())
        except OSError:
            return False


@dataclass
class _Found:
    """What a walk has gathered so far."""

    place: Place
    paths: list[str] = field(default_factory=list)
    status: list[tuple[int, int, int]] = field(default_factory=list)
    folders: dict[str, int] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    count_ignored: int = 0

    def ignore(self, path: str) -> None:
        self.count_ignored += 1
        if len(self.ignored) < SHOWN:
            self.ignored.append(path)


def scan(place: Place, parts: Sequence[Part]) -> Listing:
    """The files of every part. The first part's class folders, sorted, are the classes.

    DatasetError when a folder cannot be read, there are fewer than two classes, a class of the first part has no
    image, another part has a class that the first one lacks, or a link leads out of the place.
    """
    started = time.perf_counter()
    found = _Found(place)
    classes: tuple[str, ...] = ()
    part: list[NDArray[np.int8]] = []
    labels: list[NDArray[np.int64]] = []
    for number, one in enumerate(parts):
        names = _class_names(found, one)
        if not number:
            classes = names
            if len(classes) < 2:
                raise DatasetError(
                    f"{_shown_folder(place, one)} has {len(classes)} class folders; at least 2 are needed."
                )
        unknown = [name for name in names if name not in classes]
        if unknown:
            raise DatasetError(
                f"{_shown_folder(place, one)} has a class {shown(unknown[0])} that "
                f"{_shown_folder(place, parts[0])} lacks."
            )
        for label, name in enumerate(classes):
            if name not in names:
                continue
            before = len(found.paths)
            _walk(found, os.path.join(one.folder, name), ())
            count = len(found.paths) - before
            if not count and not number:
                raise DatasetError(
                    f"The class folder {shown(os.path.join(place.path, one.folder, name), 200)} has no image: "
                    f"add some ({', '.join(SUFFIXES)}) or remove it."
                )
            part.append(np.full(count, number, np.int8))
            labels.append(np.full(count, label, np.int64))
    return Listing(
        place=place,
        classes=classes,
        parts=tuple(parts),
        paths=found.paths,
        part=np.concatenate(part),
        labels=np.concatenate(labels),
        status=np.array(found.status, np.int64).reshape(-1, 3),
        folders=found.folders,
        ignored=tuple(found.ignored),
        count_ignored=found.count_ignored,
        seconds=time.perf_counter() - started,
    )


def class_folders(folder: Path) -> list[str]:
    """The folders in `folder` that may be classes: all but hidden ones and what macOS adds to archives."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if _may_be_class(entry.name) and entry.is_dir())
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read: {error.strerror or error}") from error


def _class_names(found: _Found, part: Part) -> tuple[str, ...]:
    folder = found.place.path / part.folder
    names = class_folders(folder)
    found.folders[str(folder)] = folder.stat().st_mtime_ns
    for name in names:
        if not name.isprintable():  # lone surrogates too: names that are not UTF-8 have no place in JSON
            raise DatasetError(
                f"The class folder {shown(name)} in {folder} needs a name of printable UTF-8 characters."
            )
    for name in sorted(set(os.listdir(folder)) - set(names)):
        if not name.startswith(".") and not (folder / name).is_dir():
            found.ignore(os.path.join(part.folder, name))
    return tuple(names)


def _may_be_class(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _walk(found: _Found, relative: str, above: tuple[str, ...]) -> None:
    """Adds the images of a folder, then of the folders in it. above: real paths of the folders around it."""
    place = found.place
    folder = os.path.join(place.path, relative)
    real = os.path.realpath(folder) if above or os.path.islink(folder) else folder
    if os.path.islink(folder):
        _check_link(place, folder, real)
    if real in above:
        raise DatasetError(f"The symbolic link {shown(folder, 200)} leads back to a folder that it is in.")
    folders = []
    try:
        found.folders[folder] = os.stat(folder).st_mtime_ns
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = f"{relative}/{entry.name}"
                if entry.is_dir():
                    if _may_be_class(entry.name):
                        folders.append(path)
                elif not entry.name.lower().endswith(SUFFIXES) or entry.name.startswith("._"):
                    found.ignore(path)
                else:
                    if entry.is_symlink():
                        _check_link(place, entry.path, os.path.realpath(entry.path))
                    status = entry.stat()
                    if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for ever
                        found.ignore(path)
                        continue
                    found.paths.append(path)
                    found.status.append((status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    except OSError as error:
        raise DatasetError(f"{shown(folder, 200)} cannot be read: {error}") from error
    for path in folders:
        _walk(found, path, (*above, real))


def _check_link(place: Place, link: str, real: str) -> None:
    if not place.admits(Path(real)):
        raise DatasetError(
            f"{shown(link, 200)} is a symbolic link out of {place.path}, to {real}: data sets are read from their own "
            "folder only. Copy the files, or register the folder they are in (`attune data add NAME PATH`)."
        )


def _shown_folder(place: Place, part: Part) -> str:
    return str(place.path / part.folder) if part.folder else str(place.path)
