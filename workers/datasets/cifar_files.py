"""The files of CIFAR-10 and CIFAR-100 as published, which are those that torchvision reads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.datasets import pickles
from workers.datasets.errors import DatasetError
from workers.datasets.places import Place

SIZE = 32
SHAPE = (3, SIZE, SIZE)


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


def read_batch(variant: Variant, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N × 3 × 32 × 32) and labels of one file; DatasetError when it holds anything else."""
    data = pickles.load(path)
    pixels = field_of(path, data, "data", np.ndarray)
    labels = field_of(path, data, variant.labels, list)
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != int(np.prod(SHAPE)):
        raise DatasetError(f"{path}: `data` is {pixels.dtype} of shape {pixels.shape}, not N × 3072 bytes.")
    if len(labels) != len(pixels) or not all(type(one) is int and 0 <= one < variant.classes for one in labels):
        raise DatasetError(f"{path}: `{variant.labels}` is not a label from 0 to {variant.classes - 1} for each image.")
    return pixels.reshape(-1, *SHAPE), np.array(labels, np.int64)


def field_of(path: Path, data: Any, key: str, kind: type) -> Any:
    if not isinstance(data, dict) or not isinstance(data.get(key), kind):
        raise DatasetError(f"{path} has no {kind.__name__} called {key!r}: it is not one of CIFAR's files.")
    return data[key]


def checksum_problems(variant: Variant, place: Place) -> list[str]:
    """Files whose MD5 is not that of the published archive."""
    found = []
    for name, expected in variant.files.items():
        with (place.path / name).open("rb") as file:
            if hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() != expected:
                found.append(f"{os.path.join(place.path, name)} is not the published file (its MD5 is another).")
    return found
