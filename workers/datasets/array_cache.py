"""Decoded images on disk: written once, then mapped into the memory of every process that trains on them.

An entry is a folder named by all that decides its content, so it is never out of date. It is written beside its place
and renamed when complete. Of several processes that need it at once, one writes and the others wait.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.datasets.locks import locked

META = "meta.json"
WAIT_SECONDS = 3600.0
"""For another process that writes the same entry."""

Arrays = dict[str, NDArray[np.uint8]]


@dataclass
class Entry:
    """uint8 arrays by name, and plain values that belong to them.

    lasting: whether it is on disk. problem: why not, if it is not.
    """

    arrays: Arrays = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


class Shelf:
    """Where a new entry's arrays are put: files of `folder`, or memory when there is no folder."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.entry = Entry()

    def array(self, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """An array to be filled. OSError when the disk has no room for it."""
        if self.folder is None or 0 in shape:
            array = np.zeros(shape, np.uint8)
            if self.folder is not None:
                (self.folder / name).touch()
        else:
            with (self.folder / name).open("wb+") as file:
                file.truncate(int(np.prod(shape)))
                if hasattr(os, "posix_fallocate"):
                    # a mapped file on a full disk ends the process without an error; this raises one
                    os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)))
            array = np.memmap(self.folder / name, np.uint8, "r+", shape=shape)
        self.entry.arrays[name] = array
        return array

    def shorten(self, name: str, keep: NDArray[np.int64]) -> None:
        """Keeps the rows `keep` (rising) of an array."""
        array = self.entry.arrays[name]
        for row, kept in enumerate(keep.tolist()):
            if row != kept:
                array[row] = array[kept]
        self.entry.arrays[name] = array[: len(keep)]

    def close(self) -> None:
        """Makes the entry's files complete and lasting."""
        assert self.folder is not None
        shapes = {}
        for name, array in self.entry.arrays.items():
            shapes[name] = list(array.shape)
            if isinstance(array, np.memmap):
                array.flush()
            with (self.folder / name).open("rb+") as file:
                file.truncate(array.size)
                os.fsync(file.fileno())
        with (self.folder / META).open("w") as file:
            json.dump({"shapes": shapes, "meta": self.entry.meta}, file)
            file.flush()
            os.fsync(file.fileno())


def get(folder: Path, key: str, make: Callable[[Shelf], None], limit: int) -> Entry:
    """The entry called `key`, made by `make` if it is not in `folder`.

    The arrays are mapped copy-on-write: writing to them changes no file. limit: bytes that all entries may take; the
    least recently used ones are removed. Where nothing can be written, the entry is made in memory and its `problem`
    says so.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / f"{key}.lock", WAIT_SECONDS):
            found = _open(folder / key)
            if found is not None:
                return found
            _write(folder / key, make)
        _make_room(folder, limit, keep=key)
        found = _open(folder / key)
        if found is not None:
            return found
        problem = "it was gone at once"
    except OSError as error:
        problem = str(error)
    shelf = Shelf(None)
    make(shelf)
    shelf.entry.problem = f"Decoded images are kept in memory and not in {folder}: {problem}"
    return shelf.entry


def _write(place: Path, make: Callable[[Shelf], None]) -> None:
    temporary = place.with_name(f"{place.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed: nobody else has the lock
    temporary.mkdir()
    try:
        shelf = Shelf(temporary)
        make(shelf)
        shelf.close()
        shutil.rmtree(place, ignore_errors=True)  # an incomplete one
        os.rename(temporary, place)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _open(place: Path) -> Entry | None:
    """The entry at `place`, or None when it is not there or not complete."""
    try:
        data = json.loads((place / META).read_text())
        shapes: Mapping[str, list[int]] = data["shapes"]
        arrays: Arrays = {}
        for name, shape in shapes.items():
            if (place / name).stat().st_size != int(np.prod(shape)):
                return None
            if 0 in shape:
                arrays[name] = np.zeros(shape, np.uint8)
            else:
                arrays[name] = np.memmap(place / name, np.uint8, "c", shape=tuple(shape))
        os.utime(place)
        return Entry(arrays, data["meta"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _make_room(folder: Path, limit: int, keep: str) -> None:
    """Removes the least recently used entries beyond `limit`; a process that has one mapped keeps its pages."""
    entries = []
    for place in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if place.is_dir() and not place.name.endswith(".part"):
                size = sum(file.stat().st_size for file in place.iterdir())
                entries.append((place.name == keep, place.stat().st_mtime, place, size))
    room = limit - sum(size for *_, size in entries)
    for newest, _, place, size in sorted(entries):
        if room >= 0 or newest:
            break
        shutil.rmtree(place, ignore_errors=True)
        room += size
