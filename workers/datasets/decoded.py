"""All images of a data set as arrays, decoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.datasets import decoding
from workers.datasets.array_cache import Shelf
from workers.datasets.decoding import Frame
from workers.datasets.errors import UnreadableImageError
from workers.datasets.readable import in_threads, path_of, status_of
from workers.datasets.scanning import Listing
from workers.datasets.splits import Histogram

AT_ONCE = 256


@dataclass(frozen=True)
class Decoder:
    """Decodes files of a listing into one frame. skip: leave out what cannot be decoded, instead of raising."""

    listing: Listing
    frame: Frame
    threads: int
    skip: bool = False

    def fill(self, shelf: Shelf, rows: dict[str, NDArray[np.int64]]) -> None:
        """Puts the images of each split on `shelf`, and says in its meta which rows were skipped and why, and the
        histogram of the training images. UnreadableImageError unless those are to be skipped."""
        skipped: dict[int, str] = {}
        for name, chosen in rows.items():
            images = shelf.array(name, (len(chosen), *self.frame.shape))
            bad = self.decode(chosen, images)
            if bad:
                shelf.shorten(name, np.array([i for i in range(len(chosen)) if i not in bad], np.int64))
                skipped |= {int(chosen[i]): reason for i, reason in bad.items()}
        shelf.entry.meta["skipped"] = list(skipped.items())
        shelf.entry.meta["histogram"] = histogram(shelf.entry.arrays["train"]).tolist()

    def decode(self, rows: NDArray[np.int64], images: NDArray[np.uint8]) -> dict[int, str]:
        """Fills `images` with those of `rows`; by number, why one could not be decoded."""

        def decode_one(numbered: tuple[int, int]) -> str:
            number, row = numbered
            try:
                image = decoding.read(path_of(self.listing, row), self.frame.colour, status_of(self.listing, row))
            except UnreadableImageError as error:
                if not self.skip:
                    raise
                return error.reason
            images[number] = decoding.to_pixels(decoding.centre(image, self.frame))
            return ""

        reasons = in_threads(decode_one, enumerate(rows.tolist()), self.threads)
        return {number: reason for number, reason in enumerate(reasons) if reason}

    def sample_histogram(self, shelf: Shelf, rows: NDArray[np.int64]) -> None:
        """The histogram of the images in `rows`, into the shelf's meta."""
        total = np.zeros((self.frame.channels, 256), np.int64)
        for start in range(0, len(rows), AT_ONCE):
            chosen = rows[start : start + AT_ONCE]
            images = np.empty((len(chosen), *self.frame.shape), np.uint8)
            bad = self.decode(chosen, images)
            total += histogram(images[[i for i in range(len(chosen)) if i not in bad]])
        shelf.entry.meta["histogram"] = total.tolist()


def histogram(images: NDArray[np.uint8]) -> Histogram:
    """How often each value occurs in each channel of N × C × H × W images, a few at a time."""
    found = np.zeros((images.shape[1], 256), np.int64)
    for start in range(0, len(images), AT_ONCE):
        for channel in range(images.shape[1]):
            found[channel] += np.bincount(images[start : start + AT_ONCE, channel].ravel(), minlength=256)
    return found


def left_out(listing: Listing, skipped: dict[int, str]) -> str:
    """What to tell of images that were skipped."""
    row, reason = min(skipped.items())
    if len(skipped) == 1:
        return f"1 image that cannot be decoded is left out: {listing.paths[row]} ({reason})"
    return f"{len(skipped)} images that cannot be decoded are left out: {listing.paths[row]} ({reason}) and others"


def smallest(digests: Sequence[bytes] | NDArray[np.uint8], rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The `count` rows whose digests come first: a sample that depends on the contents only."""
    first = np.ascontiguousarray(np.asarray(digests)[rows, :8]).view(">u8")[:, 0]
    return rows[np.argsort(first, kind="stable")[:count]]
