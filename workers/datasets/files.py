"""Image files in folders of classes, as a data set: which file belongs to which split, and the decoded images."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from search.datasets import DatasetEntry, DatasetOption
from search.errors import shown
from workers.datasets import array_cache, hashing
from workers.datasets.decoded import Decoder, left_out, smallest
from workers.datasets.decoding import Frame
from workers.datasets.disk import View
from workers.datasets.errors import DatasetError
from workers.datasets.readable import unreadable
from workers.datasets.scanning import Listing
from workers.datasets.settings import DataSettings, data_settings
from workers.datasets.splits import ArraySplits, FileSplit, FileSplits, Split
from workers.datasets.splitting import Shares, SplitName, split_indices

FORMAT = 1
"""To be raised whenever the same files and options would give other images or splits."""
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
SAMPLE = 4096
"""Training images whose pixels stand for all where decoding all would take too long."""
LOOKED_AT = 50
"""A listing that took t seconds is taken again after t × this; so that looking for changes takes 2 % of the time."""
ALWAYS_LOOKED_AT = 0.2
"""Seconds within which a listing may be taken every time."""
PIXEL_OPTIONS = ("image_size", "colour", "crop", "skip_corrupt", "split_seed", "validation_share", "test_share")

Rows = dict[SplitName, NDArray[np.int64]]


@dataclass(frozen=True)
class About:
    """What is said of a data set, beside its files. class_names: shown instead of the folders' names, if given."""

    name: str
    title: str
    source: str
    options: tuple[DatasetOption, ...]
    class_names: tuple[str, ...] = ()


@dataclass
class FilesView(View):
    """Files of a listing. relist: takes it again. digests: N × 32, SHA-256 of each file."""

    about: About
    listing: Listing
    digests: hashing.Digests
    relist: Callable[[], Listing]
    looked: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.place = self.listing.place

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the content, whatever the options."""
        return hashing.fingerprint(self.listing, self.digests, FORMAT, [part.name for part in self.listing.parts])

    @property
    def bytes(self) -> int:
        return self.listing.bytes

    def identities(self, rows: NDArray[np.int64]) -> list[str]:
        """SHA-256 (hex) of the content of each of these files: a copy under another name stays in the split of the
        first, and no renaming moves an image. Whoever adds images moves none."""
        text, size = self.digests[rows].tobytes().hex(), 2 * hashing.DIGEST
        return [text[start : start + size] for start in range(0, len(text), size)]

    def entry(self) -> DatasetEntry:
        return self.published

    @cached_property
    def published(self) -> DatasetEntry:
        listing, about = self.listing, self.about
        options = {option.name: option.default for option in about.options}
        rows = self.rows(options)
        frame = frame_of(options)
        return DatasetEntry(
            name=about.name,
            title=about.title,
            source=about.source,
            input_shape=frame.shape,
            classes=len(listing.classes),
            class_names=about.class_names or listing.classes,
            train_size=len(rows["train"]),
            validation_size=len(rows["validation"]),
            test_size=len(rows["test"]),
            class_counts=tuple(np.bincount(listing.labels[rows["train"]], minlength=len(listing.classes)).tolist()),
            fingerprint=self.fingerprint,
            options=about.options,
        )

    def is_current(self, *, fresh: bool) -> bool:
        age, cost = time.monotonic() - self.looked, self.listing.seconds
        if not fresh and cost > ALWAYS_LOOKED_AT and age < LOOKED_AT * cost:
            return self.listing.folders_unchanged()
        now = self.relist()
        self.looked = time.monotonic()
        return now.same_files(self.listing)

    def rows(self, options: Mapping[str, Any], without: Sequence[int] = ()) -> Rows:
        """The rows of each split; DatasetError when a split is empty or a class has no image to train on.

        without: rows of unreadable files, which are left out.
        """
        listing = self.listing
        good = np.ones(len(listing), bool)
        good[list(without)] = False
        found: Rows = {}
        for number, part in enumerate(listing.parts):
            found[part.name] = np.flatnonzero((listing.part == number) & good)
        train = found["train"]
        # what has no folder of its own is drawn from the training images
        shares = Shares(
            validation=0.0 if "validation" in found else float(options["validation_share"]),
            test=0.0 if "test" in found else float(options["test_share"]),
        )
        if shares != Shares(0.0, 0.0):
            drawn = split_indices(int(options["split_seed"]), self.identities(train), shares)
            for name in SPLITS:
                if name == "train" or name not in found:
                    found[name] = train[drawn[name]]
        self._check(found)
        return found

    def _check(self, rows: Rows) -> None:
        for name in SPLITS:
            if not len(rows[name]):
                raise DatasetError(f"None of the {len(self.listing)} images falls into the {name} split: add images.")
        counts = np.bincount(self.listing.labels[rows["train"]], minlength=len(self.listing.classes))
        if not counts.all():
            lacking = self.listing.classes[int(np.flatnonzero(counts == 0)[0])]
            raise DatasetError(f"The class {shown(lacking)} has no image to train on: add images of it.")

    def splits(self, options: Mapping[str, Any]) -> ArraySplits | FileSplits:
        settings = data_settings()
        frame = frame_of(options)
        if len(self.listing) * int(np.prod(frame.shape)) > settings.data_memory:
            return self._files(options, frame, settings)
        return self._arrays(options, frame, settings)

    def _key(self, options: Mapping[str, Any]) -> str:
        """Of all that decides pixels and splits; a newer Pillow may decode differently."""
        decisive = {name: options[name] for name in PIXEL_OPTIONS if name in options}
        text = json.dumps([FORMAT, self.fingerprint, decisive, PIL.__version__], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _files(self, options: Mapping[str, Any], frame: Frame, settings: DataSettings) -> FileSplits:
        bad: dict[int, str] = {}
        if options["skip_corrupt"]:
            bad = unreadable(self.listing, self.fingerprint, settings.cache, settings.decoders)
        rows = self.rows(options, list(bad))
        decoder = Decoder(self.listing, frame, settings.decoders)
        sample = smallest(self.digests, rows["train"], SAMPLE)
        notes, counted = [left_out(self.listing, bad)] if bad else [], None
        if options["normalisation"] == "training":
            cached = array_cache.get(
                settings.cache / "statistics",
                self._key(options),
                lambda shelf: decoder.sample_histogram(shelf, sample),
                settings.data_cache,
            )
            counted = np.array(cached.meta["histogram"], np.int64)
            notes += [cached.problem] if cached.problem else []
        splits = (FileSplit(self.listing, rows[name]) for name in SPLITS)
        return FileSplits(frame, *splits, histogram=counted, notes=tuple(notes), skipped=len(bad))

    def _arrays(self, options: Mapping[str, Any], frame: Frame, settings: DataSettings) -> ArraySplits:
        rows = self.rows(options)
        decoder = Decoder(self.listing, frame, settings.decoders, skip=bool(options["skip_corrupt"]))
        cached = array_cache.get(
            settings.cache / "images",
            self._key(options),
            lambda shelf: decoder.fill(shelf, {name: rows[name] for name in SPLITS}),
            settings.data_cache,
        )
        bad = {int(row): str(reason) for row, reason in cached.meta["skipped"]}
        if bad:
            rows = self.rows(options, list(bad))
        notes = [left_out(self.listing, bad)] if bad else []
        notes += [cached.problem] if cached.problem else []
        splits = (self._split(cached.arrays[name], rows[name]) for name in SPLITS)
        counted = np.array(cached.meta["histogram"], np.int64)
        return ArraySplits(*splits, histogram=counted, notes=tuple(notes), skipped=len(bad))

    def _split(self, images: NDArray[np.uint8], rows: NDArray[np.int64]) -> Split:
        return Split(images, self.listing.labels[rows], tuple(self.identities(rows)))


def frame_of(options: Mapping[str, Any]) -> Frame:
    return Frame(int(options["image_size"]), options["colour"], float(options["crop"]))
