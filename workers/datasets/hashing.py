"""Content hashes of files, kept on disk, so that only new and changed files are read again.

A file counts as unchanged while its path, size and both times (content and inode) stay. A file that was changed in the
moment before it was read is not remembered: a second change within the clock's tick could not be told from the first.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workers.datasets.errors import DatasetError, NotReadYetError
from workers.datasets.places import write_file
from workers.datasets.scanning import Listing

FORMAT = 1
FRESH_NS = 2 * 10**9
DIGEST = 32
CHUNK = 4096
SAVE_SECONDS = 60.0
"""How often the hashes of a long first reading are saved, so that one that was cut short goes on."""

Digests = NDArray[np.uint8]
"""N × 32: SHA-256 of each file's content."""
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many files are done, of how many."""


def no_progress(doing: str, done: int, total: int) -> None:
    """For whoever does not look."""


def content_hashes(
    listing: Listing,
    cache: Path,
    threads: int,
    progress: Progress = no_progress,
    *,
    remembered: bool = True,
    most: int | None = None,
) -> Digests:
    """SHA-256 of every file's content, in the listing's order.

    cache: the folder that remembers them; where it cannot be written, every process reads all files once.
    remembered: False reads every file, whatever is known of it. most: bytes to be read at most.
    DatasetError when a file cannot be read; NotReadYetError, and nothing is read, where there is more than `most`.
    """
    path = cache / "hashes" / f"{hashlib.sha256(os.fsencode(listing.place.path)).hexdigest()[:32]}.npz"
    if remembered:
        digests, unknown = _remembered(path, listing)
    else:
        digests, unknown = np.zeros((len(listing), DIGEST), np.uint8), np.arange(len(listing))
    if not len(unknown):
        return digests
    size = int(listing.status[unknown, 0].sum())
    if most is not None and size > most:
        raise NotReadYetError(f"{len(unknown):,} files in {listing.place.path} ({size / 1e9:.1f} GB) are not read yet.")
    now, saved = time.time_ns(), time.monotonic()
    fresh = listing.status[:, 1:].max(axis=1) > now - FRESH_NS
    known = np.ones(len(listing), bool)
    known[unknown] = False
    for done in _hash_files(listing, unknown, digests, threads):
        known[unknown[: len(done)]] = True
        progress("reading", len(done), len(unknown))
        if time.monotonic() - saved > SAVE_SECONDS:
            _remember(path, listing, digests, known & ~fresh)
            saved = time.monotonic()
    _remember(path, listing, digests, known & ~fresh)
    return digests


def _hash_files(
    listing: Listing, unknown: NDArray[np.int64], digests: Digests, threads: int
) -> Iterator[NDArray[np.int64]]:
    """Fills in `digests`; yields, a chunk at a time, the indices that are done."""
    folder = str(listing.place.path)

    def hash_some(indices: Sequence[int]) -> None:
        for index in indices:
            digests[index] = np.frombuffer(_hash_file(os.path.join(folder, listing.paths[index])), np.uint8)

    with ThreadPoolExecutor(threads, "hash") as pool:
        for start in range(0, len(unknown), CHUNK):
            chunk = unknown[start : start + CHUNK].tolist()
            step = max(1, -(-len(chunk) // threads))
            for _ in pool.map(hash_some, [chunk[i : i + step] for i in range(0, len(chunk), step)]):
                pass
            yield unknown[: start + len(chunk)]


def _hash_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error


def _remembered(path: Path, listing: Listing) -> tuple[Digests, NDArray[np.int64]]:
    """The digests that are known (zeros elsewhere), and the indices of the files whose are not."""
    digests = np.zeros((len(listing), DIGEST), np.uint8)
    everything = np.arange(len(listing))
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if int(stored["format"]) != FORMAT:
                return digests, everything
            names, status, kept = stored["paths"].tobytes(), stored["status"], stored["digests"]
    except (OSError, ValueError, KeyError, EOFError, SyntaxError, zipfile.BadZipFile):  # none, or cut short
        return digests, everything
    if names == _names(listing.paths):
        same = (status == listing.status).all(axis=1)
        digests[same] = kept[same]
        return digests, everything[~same]
    if not len(status):
        return digests, everything
    row_of = {name: row for row, name in enumerate(names.split(b"\0"))}
    rows = np.array([row_of.get(os.fsencode(name), -1) for name in listing.paths], np.int64)
    same = (rows >= 0) & (status[rows] == listing.status).all(axis=1)
    digests[same] = kept[rows[same]]
    return digests, everything[~same]


def _remember(path: Path, listing: Listing, digests: Digests, which: NDArray[np.bool_]) -> None:
    """Writes the digests of the files in `which`; where nothing can be written they are found again next time."""
    rows = np.flatnonzero(which)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        format=np.array(FORMAT),
        paths=np.frombuffer(_names([listing.paths[row] for row in rows]), np.uint8),
        status=listing.status[rows],
        digests=digests[rows],
    )
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, buffer.getvalue())


def _names(paths: Sequence[str]) -> bytes:
    return b"\0".join(os.fsencode(path) for path in paths)


def fingerprint(listing: Listing, digests: Digests, *how: object) -> str:
    """SHA-256 (hex) over path, size and content of every file, whatever the order, and over `how` they are used."""
    order = sorted(range(len(listing)), key=listing.paths.__getitem__)
    sizes = listing.status[:, 0].tolist()
    digest = hashlib.sha256("\0".join(map(repr, how)).encode())
    for index in order:
        digest.update(b"\0%s\0%d\0" % (os.fsencode(listing.paths[index]), sizes[index]))
        digest.update(digests[index].tobytes())
    return digest.hexdigest()
