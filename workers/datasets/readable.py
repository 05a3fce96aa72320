"""Which image files cannot be decoded, found out once for each content of a data set."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import PIL

from workers.datasets import decoding
from workers.datasets.errors import UnreadableImageError
from workers.datasets.hashing import Progress, no_progress
from workers.datasets.places import write_file
from workers.datasets.scanning import Listing

AT_ONCE = 1024
T = TypeVar("T")
R = TypeVar("R")


def unreadable(
    listing: Listing,
    fingerprint: str,
    cache: Path,
    threads: int,
    progress: Progress = no_progress,
    *,
    remembered: bool = True,
) -> dict[int, str]:
    """By row of the listing: why that file cannot be decoded. The first time, every file is.

    fingerprint: of the listing's content; what was found is kept in `cache` under it. remembered: False decodes every
    file again.
    """
    path = cache / "unreadable" / f"{fingerprint[:32]}-{PIL.__version__}.json"
    found = _kept(path, len(listing)) if remembered else None
    if found is None:
        found = _find(listing, threads, progress)
        with contextlib.suppress(OSError):  # then it is found out again
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, json.dumps({"files": len(listing), "unreadable": list(found.items())}).encode())
    return found


def _kept(path: Path, files: int) -> dict[int, str] | None:
    try:
        data = json.loads(path.read_text("utf-8"))
        return {int(row): str(reason) for row, reason in data["unreadable"]} if data["files"] == files else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _find(listing: Listing, threads: int, progress: Progress) -> dict[int, str]:
    found = {}
    for row, reason in enumerate(in_threads(lambda row: reason_of(listing, row), range(len(listing)), threads)):
        if reason:
            found[row] = reason
        if row % 256 == 0 or row + 1 == len(listing):
            progress("decoding", row + 1, len(listing))
    return found


def reason_of(listing: Listing, row: int) -> str:
    """Why the file in that row cannot be decoded; "" if it can be. DatasetError when it is gone or has changed."""
    try:
        decoding.read(path_of(listing, row), "rgb", status_of(listing, row))
    except UnreadableImageError as error:
        return error.reason
    return ""


def path_of(listing: Listing, row: int) -> str:
    return os.path.join(listing.place.path, listing.paths[row])


def status_of(listing: Listing, row: int) -> decoding.Status:
    size, changed, inode_changed = listing.status[row].tolist()
    return size, changed, inode_changed


def in_threads(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """`work` of every item, in order, on several threads (Pillow decodes without the interpreter's lock), with a
    bounded number of results waiting."""
    with decoding.quiet(), ThreadPoolExecutor(threads, "decode") as pool:
        batch: list[T] = []
        for item in items:
            batch.append(item)
            if len(batch) == AT_ONCE:
                yield from pool.map(work, batch)
                batch = []
        yield from pool.map(work, batch)
