"""What the operator is told of data sets: which there are, whether every file of one is sound, and a new one's name."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from search.datasets import DatasetEntry, UnavailableDataset
from search.errors import shown
from workers.datasets import hashing, places
from workers.datasets.cifar import Cifar, CifarView
from workers.datasets.cifar_files import CIFAR10, CIFAR100, checksum_problems
from workers.datasets.disk import DiskDataset, root
from workers.datasets.errors import DatasetError, NotReadYetError
from workers.datasets.files import SPLITS, FilesView
from workers.datasets.folders import ImageFolder
from workers.datasets.hashing import Progress, no_progress
from workers.datasets.places import NAME_RULE, REGISTRATIONS, Place
from workers.datasets.readable import unreadable
from workers.datasets.registry import DATASETS, Dataset
from workers.datasets.settings import data_settings

EXAMPLES = 20
"""Files named in a report; the others are counted."""


@dataclass
class Found:
    """A data set as `attune data` shows it. status: ready, missing (its files are not there), unread (there is more to
    read than was asked for) or broken.

    bytes: of all its files. where: its folder, None for what comes with a package.
    """

    name: str
    title: str
    status: str
    where: str | None = None
    registered: bool = False
    bytes: int | None = None
    reason: str = ""
    entry: DatasetEntry | None = None

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "entry": self.entry and self.entry.model_dump(mode="json")}


@dataclass
class Report:
    """What `attune data check` has found. problems: why it cannot be used, or not as it is; warnings: what is odd.

    classes: images of each class by split. unreadable, ignored: the first few files with the reason; counted are all.
    """

    found: Found
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    classes: list[dict[str, Any]] = field(default_factory=list)
    files: int = 0
    unreadable: list[dict[str, str]] = field(default_factory=list)
    count_unreadable: int = 0
    ignored: list[str] = field(default_factory=list)
    count_ignored: int = 0

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "found": self.found.to_json()}


def survey(progress: Progress = no_progress, most: int | None = None) -> list[Found]:
    """Every data set that is known or found, by status and name; content that is new is read, at most `most` bytes
    of each."""
    try:
        known = DATASETS.all()
    except DatasetError as error:
        known = [DATASETS.get(name) for name in DATASETS.names()]
        broken = [Found(REGISTRATIONS, "Registered folders", "broken", reason=str(error))]
    else:
        broken = []
    found = [look_at(dataset, progress, most) for dataset in known] + broken + _unusable_names()
    return sorted(found, key=lambda one: (one.status != "ready", one.name))


def published(most: int | None = None) -> tuple[list[DatasetEntry], list[UnavailableDataset]]:
    """What the dispatcher publishes: the data sets that searches can name, and why others cannot be used.

    Cheap while nothing has changed; what is new is read, which for millions of files takes minutes. most: bytes to be
    read of each, beyond which it counts as unavailable yet.
    """
    found = survey(most=most)
    ready = [one.entry for one in found if one.entry is not None]
    rest = [one for one in found if one.entry is None]
    return ready, [
        UnavailableDataset(name=one.name, title=one.title, reason=one.reason, unread=one.status == "unread")
        for one in rest
    ]


def look_at(dataset: Dataset, progress: Progress = no_progress, most: int | None = None) -> Found:
    """One data set, with its entry if it can be used."""
    if not isinstance(dataset, DiskDataset):
        try:
            entry = dataset.entry()
        except DatasetError as error:
            return Found(dataset.name, dataset.name, "broken", reason=str(error))
        return Found(dataset.name, entry.title, "ready", entry=entry)
    found = Found(dataset.name, dataset.title, "missing")
    try:
        place = dataset.place()
        found = Found(dataset.name, dataset.title, "broken", str(place.path), place.registered)
        view = dataset.view(progress=progress, most=most)
        found.bytes, found.entry, found.status = view.bytes, view.entry(), "ready"
    except NotReadYetError as error:
        found.status, found.reason = "unread", str(error)
    except DatasetError as error:
        found.reason = str(error)
    return found


def check(name: str, progress: Progress = no_progress) -> Report:
    """Reads every file of the data set called `name`. SpecError for an unknown name."""
    dataset = DATASETS.get(name, "name")
    report = Report(look_at(dataset, progress))
    if report.found.reason:
        report.problems.append(report.found.reason)
    if not isinstance(dataset, DiskDataset) or report.found.where is None:
        return report
    try:
        view = dataset.view(progress=progress)
        if isinstance(view, FilesView):
            _check_files(view, report, progress)
        elif isinstance(dataset, Cifar) and isinstance(view, CifarView):
            _check_cifar(dataset, view, report)
    except DatasetError as error:
        if str(error) not in report.problems:
            report.problems.append(str(error))
    return report


def add(name: str, path: Path, *, replace: bool = False, progress: Progress = no_progress) -> Report:
    """Registers the folder `path` under `name` and checks it; DatasetError, and nothing is registered, when the name or
    the folder cannot be used."""
    dataset = _dataset_to_add(name)
    if not path.expanduser().is_dir():
        raise DatasetError(f"{path} is no folder on this machine.")
    real = path.expanduser().resolve()
    if real == root().resolve():
        raise DatasetError(f"{real} is the folder of all data sets (ATTUNE_DATA): name one in it.")
    place = Place(real, (real,), registered=True)
    dataset.open(dataset.within(place), progress).entry()
    places.register(root(), name, real, replace=replace)
    return check(name, progress)


def _dataset_to_add(name: str) -> DiskDataset:
    if not places.is_name(name):
        raise DatasetError(f"{shown(name)} cannot be a data set's name: {NAME_RULE}.")
    for variant in (CIFAR10, CIFAR100):
        if name == variant.folder:
            raise DatasetError(f"{name} is the folder of the data set {variant.name}: register it under that name.")
    known = {dataset.name: dataset for dataset in DATASETS.all()}.get(name) or ImageFolder(name)
    if not isinstance(known, DiskDataset):
        raise DatasetError(f"{name} comes with attune or a plug-in: choose another name.")
    return known


def _unusable_names() -> list[Found]:
    """Folders below the root that no request can name."""
    try:
        names = [name for name in places.folder_names(root()) if not places.is_name(name)]
    except DatasetError:
        return []
    reason = f"the name cannot be used in a request: {NAME_RULE}; rename the folder, or `attune data add NAME PATH`"
    return [Found(shown(name), "A folder", "broken", shown(str(root() / name), 200), reason=reason) for name in names]


def _check_files(view: FilesView, report: Report, progress: Progress) -> None:
    settings, listing = data_settings(), view.listing
    digests = hashing.content_hashes(listing, settings.cache, settings.decoders, progress, remembered=False)
    rotten = np.flatnonzero((digests != view.digests).any(axis=1)).tolist()
    report.problems += [
        f"{listing.paths[row]} has another content than before, though its time and size are the same."
        for row in rotten[:EXAMPLES]
    ]
    bad = unreadable(listing, view.fingerprint, settings.cache, settings.decoders, progress, remembered=False)
    report.files = len(listing)
    report.count_unreadable = len(bad)
    report.unreadable = [{"file": listing.paths[row], "reason": bad[row]} for row in sorted(bad)[:EXAMPLES]]
    report.ignored, report.count_ignored = list(listing.ignored), listing.count_ignored
    if bad:
        report.problems.append(
            f"{len(bad)} of {len(listing)} images cannot be decoded: mend or remove them, or let searches say "
            "skip_corrupt: true."
        )
    options = {option.name: option.default for option in view.about.options}
    rows = view.rows(options)
    labels = {name: np.bincount(listing.labels[rows[name]], minlength=len(listing.classes)) for name in SPLITS}
    report.classes = [
        {"name": name, **{split: int(labels[split][number]) for split in SPLITS}}
        for number, name in enumerate(listing.classes)
    ]
    _warn_of_copies(view, report)
    _warn_of_imbalance(report)


def _warn_of_copies(view: FilesView, report: Report) -> None:
    listing = view.listing
    identities = view.identities(np.arange(len(listing)))
    parts: dict[str, set[int]] = {}
    labels: dict[str, set[int]] = {}
    for identity, part, label in zip(identities, listing.part.tolist(), listing.labels.tolist(), strict=True):
        parts.setdefault(identity, set()).add(part)
        labels.setdefault(identity, set()).add(label)
    crossing = sum(len(found) > 1 for found in parts.values())
    if crossing:
        report.warnings.append(f"{crossing} images are in more than one of the split folders: results will flatter.")
    two = sum(len(found) > 1 for found in labels.values())
    if two:
        report.warnings.append(f"{two} images are in more than one class.")
    copies = len(listing) - len(parts)
    if copies:
        report.warnings.append(f"{copies} files are copies of others.")


def _warn_of_imbalance(report: Report) -> None:
    counts = [one["train"] for one in report.classes]
    if max(counts) >= 10 * min(counts):
        smallest = min(report.classes, key=lambda one: int(one["train"]))
        report.warnings.append(
            f"The classes are uneven: {min(counts)} ({smallest['name']}) to {max(counts)} training images."
        )


def _check_cifar(dataset: Cifar, view: CifarView, report: Report) -> None:
    variant = dataset.variant
    report.files = len(variant.files)
    report.warnings += checksum_problems(variant, view.place)
    sizes = (len(view.train.labels), len(view.test.labels))
    if sizes != variant.images:
        report.warnings.append(
            f"{sizes[0]:,} training and {sizes[1]:,} test images; the published files have {variant.images[0]:,} and "
            f"{variant.images[1]:,}."
        )
    train, validation = view.drawn({option.name: option.default for option in view.entry().options})
    labels = {"train": view.train.labels[train], "validation": view.train.labels[validation], "test": view.test.labels}
    counts = {split: Counter(found.tolist()) for split, found in labels.items()}
    report.classes = [
        {"name": name, **{split: counts[split][number] for split in SPLITS}}
        for number, name in enumerate(view.class_names)
    ]
