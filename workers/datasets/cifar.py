"""CIFAR-10 and CIFAR-100 as torchvision lays them out: A. Krizhevsky, Learning Multiple Layers of Features from Tiny
Images, 2009 (https://www.cs.toronto.edu/~kriz/cifar.html).

The validation split is drawn from the 50,000 training images by a hash of each one's pixels; the official test images
are the test split.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from search.datasets import DatasetEntry
from workers.datasets import array_cache, options, pickles, places
from workers.datasets.array_cache import Shelf
from workers.datasets.cifar_files import SHAPE, SIZE, Variant, field_of, read_batch
from workers.datasets.decoded import histogram
from workers.datasets.disk import DiskDataset, View, root
from workers.datasets.errors import DatasetError
from workers.datasets.hashing import DIGEST, FRESH_NS, Progress
from workers.datasets.places import Place
from workers.datasets.settings import data_settings
from workers.datasets.splits import ArraySplits, Split
from workers.datasets.splitting import Shares, split_indices

FORMAT = 1
"""To be raised whenever the same files and options would give other images or splits."""
SOURCE = "Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html"


@dataclass(frozen=True)
class Source:
    """What is kept of images once read. labels: N, int64. identities: SHA-256 (hex) of each image's pixels."""

    labels: NDArray[np.int64]
    identities: tuple[str, ...]

    def take(self, rows: list[int], images: NDArray[np.uint8]) -> Split:
        """The samples in `rows`. images: of these rows."""
        return Split(images, self.labels[rows], tuple(self.identities[row] for row in rows))


class CifarView(View):
    """The files of one variant as they were."""

    def __init__(self, variant: Variant, place: Place) -> None:
        self.variant = variant
        self.place = place
        self.status = _status(variant, place)

    def is_current(self, *, fresh: bool) -> bool:
        try:
            return _status(self.variant, self.place) == self.status
        except DatasetError:
            return False

    @property
    def bytes(self) -> int:
        return sum(size for size, *_ in self.status)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        (name,) = self.variant.meta
        path = self.place.path / name
        found = field_of(path, pickles.load(path), self.variant.names, list)
        if len(found) != self.variant.classes or not all(isinstance(one, str) and one.isprintable() for one in found):
            raise DatasetError(f"{path} does not name {self.variant.classes} classes.")
        return tuple(found)

    @cached_property
    def train(self) -> Source:
        return self._source("train")

    @cached_property
    def test(self) -> Source:
        return self._source("test")

    @cached_property
    def _known(self) -> array_cache.Entry:
        """Labels and hashes of all images, kept on disk for as long as sizes and times of the files stay."""
        settings = data_settings()
        if max(max(times) for _, *times in self.status) > time.time_ns() - FRESH_NS:
            shelf = Shelf(None)  # a second change within the clock's tick could not be told from the first
            self._hash(shelf)
            return shelf.entry
        text = json.dumps([FORMAT, str(self.place.path), self.status])
        key = hashlib.sha256(text.encode()).hexdigest()[:32]
        return array_cache.get(settings.cache / "cifar", key, self._hash, settings.data_cache)

    def _hash(self, shelf: Shelf) -> None:
        for part, files in (("train", self.variant.train), ("test", self.variant.test)):
            batches = [read_batch(self.variant, self.place.path / name) for name in files]
            digests = b"".join(hashlib.sha256(image.tobytes()).digest() for images, _ in batches for image in images)
            shelf.array(f"{part}-digests", (len(digests) // DIGEST, DIGEST)).reshape(-1)[:] = np.frombuffer(
                digests, "u1"
            )
            labels = np.concatenate([labels for _, labels in batches]).astype(np.uint8)
            shelf.array(f"{part}-labels", labels.shape)[:] = labels

    def _source(self, part: str) -> Source:
        text = self._known.arrays[f"{part}-digests"].tobytes().hex()
        identities = tuple(text[start : start + 2 * DIGEST] for start in range(0, len(text), 2 * DIGEST))
        return Source(self._known.arrays[f"{part}-labels"].astype(np.int64), identities)

    @cached_property
    def fingerprint(self) -> str:
        parts = (f"{label} {identity}" for part in (self.train, self.test) for label, identity in _rows(part))
        sizes = (len(self.train.labels), len(self.test.labels))
        return hashlib.sha256("\n".join([repr((FORMAT, *sizes, self.class_names)), *parts]).encode()).hexdigest()

    def entry(self) -> DatasetEntry:
        return self.published

    @cached_property
    def published(self) -> DatasetEntry:
        chosen = (
            options.image_size(SIZE, maximum=128),
            options.normalisation(),
            options.validation_share(0.1),
            options.split_seed(),
        )
        train, validation = self.drawn({option.name: option.default for option in chosen})
        counts = np.bincount(self.train.labels[train], minlength=self.variant.classes)
        return DatasetEntry(
            name=self.variant.name,
            title=self.variant.title,
            source=SOURCE,
            input_shape=SHAPE,
            classes=self.variant.classes,
            class_names=self.class_names,
            train_size=len(train),
            validation_size=len(validation),
            test_size=len(self.test.labels),
            class_counts=tuple(counts.tolist()),
            fingerprint=self.fingerprint,
            options=chosen,
        )

    def drawn(self, chosen: Mapping[str, Any]) -> tuple[list[int], list[int]]:
        """Rows of the training and of the validation split among the training images."""
        shares = Shares(validation=float(chosen["validation_share"]), test=0.0)
        found = split_indices(int(chosen["split_seed"]), self.train.identities, shares)
        for name in ("train", "validation"):
            if not found[name]:
                raise DatasetError(f"{self.variant.title} has too few images in {self.place.path} for a {name} split.")
        return found["train"], found["validation"]

    def splits(self, chosen: Mapping[str, Any]) -> ArraySplits:
        train, validation = self.drawn(chosen)
        test = list(range(len(self.test.labels)))
        settings, size = data_settings(), int(chosen["image_size"])

        def fill(shelf: Shelf) -> None:
            images = self._images(self.variant.train)
            _resize(images[train], shelf.array("train", (len(train), 3, size, size)))
            _resize(images[validation], shelf.array("validation", (len(validation), 3, size, size)))
            _resize(self._images(self.variant.test), shelf.array("test", (len(test), 3, size, size)))
            shelf.entry.meta["histogram"] = histogram(shelf.entry.arrays["train"]).tolist()

        decisive = [FORMAT, self.fingerprint, size, chosen["split_seed"], chosen["validation_share"], PIL.__version__]
        key = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:32]
        cached = array_cache.get(settings.cache / "images", key, fill, settings.data_cache)
        return ArraySplits(
            self.train.take(train, cached.arrays["train"]),
            self.train.take(validation, cached.arrays["validation"]),
            self.test.take(test, cached.arrays["test"]),
            histogram=np.array(cached.meta["histogram"], np.int64),
            notes=(cached.problem,) if cached.problem else (),
        )

    def _images(self, files: Mapping[str, str]) -> NDArray[np.uint8]:
        """N × 3 × 32 × 32; DatasetError when the files have changed since they were listed."""
        images = np.concatenate([read_batch(self.variant, self.place.path / name)[0] for name in files])
        if not self.is_current(fresh=True):
            raise DatasetError(f"The files in {self.place.path} have changed while they were read.")
        return images


class Cifar(DiskDataset):
    """CIFAR-10 or CIFAR-100."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        self.name = variant.name
        self.title = variant.title
        self.expected = f"{variant.folder}/ with {', '.join(variant.files)}"

    def folder(self) -> Place:
        found = places.find(root(), self.name) or places.find(root(), self.variant.folder)
        if found is None:
            raise self._absent(f"expected in {root()}: {self.expected}")
        return found

    def within(self, folder: Place) -> Place:
        """torchvision's folder: `folder` itself, or the one of that name in it."""
        inner = folder.path / self.variant.folder
        if inner.is_dir():
            if not folder.admits(inner.resolve()):
                raise DatasetError(f"{inner} is a symbolic link out of {folder.path}.")
            folder = Place(inner.resolve(), folder.inside, folder.registered)
        missing = [name for name in self.variant.files if not (folder.path / name).is_file()]
        if missing:
            raise self._absent(f"{folder.path} lacks {', '.join(missing)}")
        return folder

    def _absent(self, what: str) -> DatasetError:
        return DatasetError(
            f"{self.title} is not there: {what}. Unpack {self.variant.archive} in {root()} (ATTUNE_DATA), or "
            f"`attune data add {self.name} PATH` for a folder elsewhere."
        )

    def open(self, place: Place, progress: Progress, most: int | None = None) -> CifarView:
        return CifarView(self.variant, place)


def _status(variant: Variant, place: Place) -> tuple[tuple[int, int, int], ...]:
    """Sizes and times of the files; DatasetError when one is gone or a link out of the place."""
    found = []
    for name in variant.files:
        path = place.path / name
        try:
            if path.is_symlink() and not place.admits(path.resolve()):
                raise DatasetError(f"{path} is a symbolic link out of {place.path}.")
            status = path.stat()
        except OSError as error:
            raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error
        found.append((status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return tuple(found)


def _rows(source: Source) -> zip[tuple[int, str]]:
    return zip(source.labels.tolist(), source.identities, strict=True)


def _resize(images: NDArray[np.uint8], into: NDArray[np.uint8]) -> None:
    """Bilinear, antialiased where it shrinks."""
    size = into.shape[-1]
    if size == SIZE:
        into[:] = images
        return
    for number, image in enumerate(images):
        resized = Image.fromarray(image.transpose(1, 2, 0)).resize((size, size), Image.Resampling.BILINEAR)
        into[number] = np.asarray(resized).transpose(2, 0, 1)
