"""Batches decoded from files while training, by worker processes that stay from epoch to epoch.

A worker is sent the names of a few images at a time (a chunk) and sends back their pixels, so that it holds no list of
a million files, several work on one batch, and the first batch is soon there. Whoever says how many epochs there will
be gets the next epoch's first batches decoded while the last ones of this epoch, or the validation, are at work.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from workers.datasets import decoding
from workers.datasets.batches import Batch, batches_in_epoch, epoch_order
from workers.datasets.decoding import Frame, RandomCrop, Status
from workers.datasets.errors import DatasetError
from workers.datasets.settings import data_settings
from workers.datasets.splits import FileSplit
from workers.datasets.splitting import derived_seed

CHUNK = 64
BATCHES_AHEAD = 3


Share = Callable[[int], slice]
"""Which images of a batch of so many are wanted."""


def everything(count: int) -> slice:
    """All of them."""
    return slice(0, count)


class ImageOrder(NamedTuple):
    """An image to be decoded. path: below the folder, "" for one of which only the label is wanted. seed: of
    its random crop, None for the centre."""

    path: str
    status: Status
    label: int
    seed: int | None


@dataclass(frozen=True)
class Decoding(Dataset[Tensor]):
    """What a worker process knows. crop: of orders with a seed."""

    folder: str
    frame: Frame
    crop: RandomCrop

    def __getitem__(self, order: ImageOrder) -> Tensor:
        image = decoding.read(os.path.join(self.folder, order.path), self.frame.colour, order.status)
        if order.seed is None:
            image = decoding.centre(image, self.frame)
        else:
            image = decoding.random_crop(image, self.frame, self.crop, random.Random(order.seed))
        return torch.from_numpy(decoding.to_pixels(image).copy())

    def __getitems__(self, orders: list[ImageOrder]) -> Batch | str:
        """A chunk; or, as an error's own text gets lost on the way between processes, what is wrong with a file."""
        wanted = [order for order in orders if order.path]
        images = torch.empty(len(wanted), *self.frame.shape, dtype=torch.uint8)
        try:
            for number, order in enumerate(wanted):
                images[number] = self[order]
        except DatasetError as error:
            return str(error)
        return images, torch.tensor([order.label for order in orders])


@dataclass
class Plan:
    """Which images a worker is sent, in which order: the sampler of the loader.

    size: of a batch. seed: of the order; None for that of the split. crop: whether images are cropped at random.
    epochs: the last one, or None to plan one at a time. share: the wanted images of a batch; a chunk holds wanted ones
    only, or none. first: the epoch that the next pass starts with.
    """

    split: FileSplit
    size: int
    seed: int | None
    drop_last: bool
    crop: bool
    epochs: int | None
    share: Share = everything
    first: int = 1

    def __len__(self) -> int:
        """Batches in an epoch."""
        return batches_in_epoch(len(self.split), self.size, self.drop_last)

    def sizes(self) -> list[int]:
        """Images in each batch of an epoch."""
        most = len(self) * self.size if self.drop_last else len(self.split)
        return [min(self.size, most - start) for start in range(0, most, self.size)]

    def continues(self, number: int) -> bool:
        """Whether a pass that has done the epoch before `number` goes on with it."""
        return self.epochs is not None and number <= self.epochs

    def __iter__(self) -> Iterator[list[ImageOrder]]:
        last = self.first if self.epochs is None else max(self.first, self.epochs)
        for number in range(self.first, last + 1):
            order = epoch_order(len(self.split), self.seed, number).numpy()
            start = 0
            for size in self.sizes():
                mine = self.share(size)
                for first, end in ((0, mine.start), (mine.start, mine.stop), (mine.stop, size)):
                    for begin in range(start + first, start + end, CHUNK):
                        chosen = order[begin : min(begin + CHUNK, start + end)]
                        yield self._chunk(number, chosen, wanted=first == mine.start and end == mine.stop)
                start += size

    def _chunk(self, number: int, chosen: NDArray[np.int64], *, wanted: bool) -> list[ImageOrder]:
        listing, rows = self.split.listing, self.split.rows[chosen]
        statuses, labels = listing.status[rows].tolist(), listing.labels[rows].tolist()
        return [
            ImageOrder(listing.paths[row] if wanted else "", tuple(status), label, self._image_seed(number, image))
            for image, row, status, label in zip(chosen.tolist(), rows.tolist(), statuses, labels, strict=True)
        ]

    def _image_seed(self, number: int, image: int) -> int | None:
        return derived_seed(self.seed, "crop", number, image) if self.crop else None


class FileBatches:
    """Batches of images in files, on `device`; as `TensorBatches` otherwise.

    crop: a random part of each image instead of the centre; drawn by (seed, epoch, number of the image), so that it
    needs a seed. epochs: the last one that will be asked for, if that is known. workers: processes, default as set.
    share: of each batch, what is to be decoded; the rest is left undefined, but for its labels.
    """

    def __init__(
        self,
        split: FileSplit,
        frame: Frame,
        size: int,
        *,
        device: torch.device,
        seed: int | None = None,
        drop_last: bool = False,
        crop: RandomCrop | None = None,
        epochs: int | None = None,
        workers: int | None = None,
        share: Share = everything,
    ) -> None:
        if crop is not None and seed is None:
            raise ValueError("random crops need a seed")
        settings = data_settings()
        workers = workers or settings.decoders
        self._plan = Plan(split, min(size, len(split)), seed, drop_last, crop is not None, epochs, share)
        self._frame = frame
        self._device = device
        self._loader: DataLoader[Tensor] | None = DataLoader(
            Decoding(str(split.listing.place.path), frame, crop or RandomCrop()),
            batch_sampler=self._plan,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=device.type == "cuda",
            timeout=settings.data_timeout,
            worker_init_fn=_start_worker,
            multiprocessing_context=_context(),
            prefetch_factor=max(2, -(-BATCHES_AHEAD * -(-self._plan.size // CHUNK) // workers)),
            persistent_workers=True,
        )
        self._chunks: Iterator[Batch | str] | None = None
        self._next_epoch = 0
        self._waited = self._seconds = 0.0

    def __len__(self) -> int:
        return len(self._plan)

    @property
    def wait_share(self) -> float:
        return self._waited / self._seconds if self._seconds else 0.0

    def epoch(self, number: int) -> Iterator[Batch]:
        if self._loader is None:
            raise ValueError("the source is closed")
        started = time.perf_counter()
        self._waited = self._seconds = 0.0
        if self._chunks is None or number != self._next_epoch:  # else its first images are on their way already
            self._plan.first = number
            self._chunks = iter(self._loader)
            self._waited = time.perf_counter() - started  # for the processes to start
        self._next_epoch = 0  # if this epoch is left before its end, the next one starts anew
        for count in self._plan.sizes():
            yield self._batch(self._chunks, count)
            self._seconds = time.perf_counter() - started
        self._next_epoch = number + 1 if self._plan.continues(number + 1) else 0

    def close(self) -> None:
        self._chunks = self._loader = None

    def _batch(self, chunks: Iterator[Batch | str], count: int) -> Batch:
        """The next `count` images, put together on the device."""
        images = torch.empty(count, *self._frame.shape, dtype=torch.uint8, device=self._device)
        labels = torch.empty(count, dtype=torch.int64, device=self._device)
        start = 0
        while start < count:
            asked = time.perf_counter()
            chunk = next(chunks)
            self._waited += time.perf_counter() - asked
            if isinstance(chunk, str):
                raise DatasetError(chunk)
            end = start + len(chunk[1])
            if len(chunk[0]):  # else of the share of somebody else
                images[start:end].copy_(chunk[0], non_blocking=True)
            labels[start:end].copy_(chunk[1], non_blocking=True)
            start = end
        return images, labels


def _context() -> ForkServerContext:
    """Workers start from a clean process that has torch imported: a fork of this one, with its threads and its GPU,
    could hang."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__])
    forkserver.ensure_running()  # it imports torch while the caller builds its network
    return context


def _start_worker(number: int) -> None:
    warnings.simplefilter("ignore")  # Pillow's, about odd files
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()


def _end_with_parent() -> None:
    """torch ends its workers with the process that forked them, which is the server here and not the trial."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _as_it_is(chunk: Any) -> Any:
    return chunk
