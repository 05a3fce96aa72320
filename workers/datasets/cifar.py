"""CIFAR-10 and CIFAR-100 as torchvision lays them out: A. Krizhevsky, Learning Multiple Layers of Features from Tiny
Images, 2009 (https://www.cs.toronto.edu/~kriz/cifar.html).

The validation split is drawn from the 50,000 training images by a hash of each one's pixels; the official test images
are the test split.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from search.datasets import DatasetEntry
from workers.datasets import array_cache, options, pickles, places
from workers.datasets.array_cache import Shelf
from workers.datasets.decoded import histogram
from workers.datasets.disk import DiskDataset, View, root
from workers.datasets.errors import DatasetError
from workers.datasets.hashing import Progress
from workers.datasets.places import Place
from workers.datasets.settings import data_settings
from workers.datasets.splits import ArraySplits, Split
from workers.datasets.splitting import Shares, split_indices

SIZE = 32
SHAPE = (3, SIZE, SIZE)
FORMAT = 1
"""To be raised whenever the same files and options would give other images or splits."""
SOURCE = "Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html"


@dataclass(frozen=True)
class Variant:
    """One of the two. folder: that torchvision's CIFAR10 or CIFAR100 reads. train, test, meta: files with their MD5
    (torchvision's). labels, names: keys in the files. images: of training and test."""

    name: str
    title: str
    folder: str
    archive: str
    train: Mapping[str, str]
    test: Mapping[str, str]
    meta: Mapping[str, str]
    labels: str
    names: str
    classes: int
    images: tuple[int, int] = (50_000, 10_000)

    @property
    def files(self) -> dict[str, str]:
        return {**self.train, **self.test, **self.meta}


CIFAR10 = Variant(
    name="cifar10",
    title="CIFAR-10",
    folder="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    train={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test={"test_batch": "40351d587109b95175f43aff81a1287e"},
    meta={"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
    labels="labels",
    names="label_names",
    classes=10,
)
CIFAR100 = Variant(
    name="cifar100",
    title="CIFAR-100",
    folder="cifar-100-python",
    archive="cifar-100-python.tar.gz",
    train={"train": "16019d7e3df5f24257cddd939b257f8d"},
    test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    meta={"meta": "7973b15100ade9c7d40fb424638fde48"},
    labels="fine_labels",
    names="fine_label_names",
    classes=100,
)


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
        found = _field(path, pickles.load(path), self.variant.names, list)
        if len(found) != self.variant.classes or not all(isinstance(one, str) and one.isprintable() for one in found):
            raise DatasetError(f"{path} does not name {self.variant.classes} classes.")
        return tuple(found)

    @cached_property
    def train(self) -> Source:
        return self._read(self.variant.train)

    @cached_property
    def test(self) -> Source:
        return self._read(self.variant.test)

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

    def _read(self, files: Mapping[str, str]) -> Source:
        parts = [_batch(self.variant, self.place.path / name) for name in files]
        identities = tuple(hashlib.sha256(image.tobytes()).hexdigest() for images, _ in parts for image in images)
        return Source(np.concatenate([labels for _, labels in parts]), identities)

    def _images(self, files: Mapping[str, str]) -> NDArray[np.uint8]:
        """N × 3 × 32 × 32; DatasetError when the files have changed since they were listed."""
        images = np.concatenate([_batch(self.variant, self.place.path / name)[0] for name in files])
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


def _batch(variant: Variant, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N × 3 × 32 × 32) and labels of one file; DatasetError when it holds anything else."""
    data = pickles.load(path)
    pixels = _field(path, data, "data", np.ndarray)
    labels = _field(path, data, variant.labels, list)
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != int(np.prod(SHAPE)):
        raise DatasetError(f"{path}: `data` is {pixels.dtype} of shape {pixels.shape}, not N × 3072 bytes.")
    if len(labels) != len(pixels) or not all(type(one) is int and 0 <= one < variant.classes for one in labels):
        raise DatasetError(f"{path}: `{variant.labels}` is not a label from 0 to {variant.classes - 1} for each image.")
    return pixels.reshape(-1, *SHAPE), np.array(labels, np.int64)


def _field(path: Path, data: Any, key: str, kind: type) -> Any:
    if not isinstance(data, dict) or not isinstance(data.get(key), kind):
        raise DatasetError(f"{path} has no {kind.__name__} called {key!r}: it is not one of CIFAR's files.")
    return data[key]


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


def checksum_problems(variant: Variant, place: Place) -> list[str]:
    """Files whose MD5 is not that of the published archive."""
    found = []
    for name, expected in variant.files.items():
        with (place.path / name).open("rb") as file:
            if hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() != expected:
                found.append(f"{os.path.join(place.path, name)} is not the published file (its MD5 is another).")
    return found
