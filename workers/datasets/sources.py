"""The batches of a loaded data set, wherever its images are."""

from __future__ import annotations

from typing import Literal

from workers.datasets.batches import BatchSource, TensorBatches
from workers.datasets.decoding import RandomCrop
from workers.datasets.loading import Splits, StreamedSplits
from workers.datasets.streaming import FileBatches, Share, everything


def training_batches(
    opened: Splits | StreamedSplits,
    size: int,
    seed: int,
    *,
    crop: RandomCrop | None = None,
    epochs: int | None = None,
    workers: int | None = None,
    share: Share = everything,
) -> BatchSource:
    """Training images in an order drawn by (seed, epoch); what does not fill a batch is left out.

    crop: for images in files, a random part of each instead of the centre. Images in memory have one size already,
    and are augmented a whole batch at a time on the device. epochs: the last epoch, so that the next one's images can
    be decoded ahead. workers: processes that decode; default: as the operator set. share: of each batch of files, what
    the caller wants to see; the other images are left undefined, their labels are not.
    """
    if isinstance(opened, Splits):
        return TensorBatches(opened.train, size, seed=seed, drop_last=True)
    return FileBatches(
        opened.train,
        opened.frame,
        size,
        device=opened.device,
        seed=seed,
        drop_last=True,
        crop=crop,
        epochs=epochs,
        workers=workers,
        share=share,
    )


def evaluation_batches(
    opened: Splits | StreamedSplits,
    split: Literal["validation", "test"],
    size: int,
    *,
    epochs: int | None = None,
    workers: int | None = None,
    share: Share = everything,
) -> BatchSource:
    """All images of the split in one order, the centre of each. epochs, workers, share: as above."""
    if isinstance(opened, Splits):
        return TensorBatches(opened.validation if split == "validation" else opened.test, size)
    files = opened.validation if split == "validation" else opened.test
    return FileBatches(files, opened.frame, size, device=opened.device, epochs=epochs, workers=workers, share=share)
