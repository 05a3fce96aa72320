"""Folders of images: any name below ATTUNE_DATA, and ImageNet.

Layout, with classes in the order of their folders' names as in torchvision's ImageFolder:
`NAME/train/CLASS/…`, `NAME/val/CLASS/…`, `NAME/test/CLASS/…`, or `NAME/CLASS/…`. What has no folder of its own
(validation, test) is drawn from the training images by a hash of each one's content.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import numpy as np

from search.datasets import DatasetOption
from workers.datasets import decoding, hashing, options, places
from workers.datasets.decoded import smallest
from workers.datasets.disk import DiskDataset, root
from workers.datasets.errors import DatasetError
from workers.datasets.files import SPLITS, About, FilesView
from workers.datasets.hashing import Progress
from workers.datasets.places import Place
from workers.datasets.readable import path_of
from workers.datasets.scanning import Listing, Part, class_folders, scan
from workers.datasets.settings import data_settings
from workers.datasets.splitting import SplitName

PART_NAMES: Mapping[str, SplitName] = {
    "train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test",
}  # fmt: skip
LOOKS = 32
"""Images whose headers decide the default size and colour."""
DEFAULT_SIZE = 224
STEP = 32


class ImageFolder(DiskDataset):
    """Images of the operator's own in folders of classes."""

    expected = "folders train/CLASS/…, val/CLASS/…, test/CLASS/… of images, or CLASS/…"

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.title = f"Images in the folder {name}"

    def folder(self) -> Place:
        found = places.find(root(), self.name)
        if found is None:
            raise DatasetError(f"There is no folder {root() / self.name}: expected are {self.expected}.")
        return found

    def within(self, folder: Place) -> Place:
        return folder

    def open(self, place: Place, progress: Progress, most: int | None = None) -> FilesView:
        def relist() -> Listing:
            return scan(place, self.parts(place))

        listing = relist()
        settings = data_settings()
        digests = hashing.content_hashes(listing, settings.cache, settings.decoders, progress, most=most)
        return FilesView(self.about(listing, digests), listing, digests, relist)

    def parts(self, place: Place) -> tuple[Part, ...]:
        """The folders of classes, the training one first."""
        folders = class_folders(place.path)
        if "train" not in folders or not class_folders(place.path / "train"):
            return (Part("train", ""),)
        by_split: dict[SplitName, str] = {}
        for folder in folders:
            split = PART_NAMES.get(folder)
            if split in by_split:
                raise DatasetError(f"{place.path} has two folders of one split: {by_split[split]} and {folder}.")
            if split is not None:
                by_split[split] = folder
        return tuple(Part(split, by_split[split]) for split in SPLITS if split in by_split)

    def about(self, listing: Listing, digests: hashing.Digests) -> About:
        size, colour = _usual(listing, digests)
        there = {part.name for part in listing.parts}
        return About(
            self.name,
            self.title,
            "the operator's folder",
            (
                options.image_size(size),
                options.colour(colour),
                options.crop(1.0),
                options.normalisation(),
                *shares(there, validation=0.15, test=0.15),
                options.skip_corrupt(),
            ),
        )


class ImageNet(ImageFolder):
    """ImageNet-1K (ILSVRC 2012): O. Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, 2015
    (https://arxiv.org/abs/1409.0575). Its validation images are the test split here, as their labels are public and
    the test images' are not; the validation split is drawn from the training images."""

    classes = 1000
    expected = (
        "imagenet/train/n01440764/*.JPEG … and imagenet/val/n01440764/*.JPEG … (1,000 folders named by WordNet ids "
        "in each)"
    )
    wordnet = re.compile(r"n\d{8}")

    def __init__(self) -> None:
        super().__init__("imagenet")
        self.title = "ImageNet-1K (ILSVRC 2012)"

    def folder(self) -> Place:
        found = places.find(root(), self.name)
        if found is None:
            raise DatasetError(
                f"ImageNet-1K is not there: expected in {root()} (ATTUNE_DATA): {self.expected}; or `attune data add "
                "imagenet PATH` for a folder elsewhere with train and val in it."
            )
        return found

    def within(self, folder: Place) -> Place:
        for part in ("train", "val"):
            count = self._count(folder, part)
            if count != self.classes:
                raise DatasetError(
                    f"ImageNet-1K is not complete: {folder.path / part} has {count} folders named by WordNet ids, "
                    f"and {self.classes:,} are expected ({part}/n01440764/*.JPEG …)."
                )
        return folder

    def _count(self, place: Place, part: str) -> int:
        try:
            return sum(self.wordnet.fullmatch(name) is not None for name in class_folders(place.path / part))
        except DatasetError:
            return 0

    def parts(self, place: Place) -> tuple[Part, ...]:
        return (Part("train", "train"), Part("test", "val"))

    def about(self, listing: Listing, digests: hashing.Digests) -> About:
        return About(
            self.name,
            self.title,
            "ILSVRC 2012; Russakovsky et al., https://arxiv.org/abs/1409.0575",
            (
                options.image_size(DEFAULT_SIZE),
                options.colour("rgb"),
                options.crop(0.875),
                options.normalisation("imagenet"),
                *shares({"train", "test"}, validation=0.04, test=0.0),
                options.skip_corrupt(),
            ),
            _imagenet_names(listing),
        )


def shares(there: set[SplitName], *, validation: float, test: float) -> tuple[DatasetOption, ...]:
    """The options of splits that are drawn, as they have no folder."""
    drawn: list[DatasetOption] = []
    if "validation" not in there:
        drawn.append(options.validation_share(validation))
    if "test" not in there:
        drawn.append(options.test_share(test))
    return (*drawn, options.split_seed()) if drawn else ()


def _usual(listing: Listing, digests: hashing.Digests) -> tuple[int, str]:
    """A size that suits most images (at most 224, a multiple of 32 unless smaller), and grey if all are."""
    rows = smallest(digests, np.arange(len(listing)), LOOKS)
    with decoding.quiet():
        seen = [found for row in rows.tolist() if (found := decoding.look(path_of(listing, row))) is not None]
    if not seen:
        return DEFAULT_SIZE, "rgb"
    middle = sorted(short for _, short in seen)[len(seen) // 2]
    size = min(DEFAULT_SIZE, middle - middle % STEP if middle >= STEP else max(8, middle))
    return size, "grey" if all(grey for grey, _ in seen) else "rgb"


def _imagenet_names(listing: Listing) -> tuple[str, ...]:
    """Words for the WordNet ids from the files that come with ImageNet's archives, where they are there."""
    place = listing.place.path
    known: dict[str, str] = {}
    mapping, index = place / "LOC_synset_mapping.txt", place / "imagenet_class_index.json"
    try:
        if mapping.is_file():
            known = dict(line.split(" ", 1) for line in mapping.read_text("utf-8").splitlines() if line)
        elif index.is_file():
            known = dict(json.loads(index.read_text("utf-8")).values())
    except (OSError, ValueError, AttributeError) as error:
        raise DatasetError(f"The names of ImageNet's classes in {place} cannot be read: {error}") from error
    return tuple(known.get(number, number).split(",")[0] for number in listing.classes) if known else ()
