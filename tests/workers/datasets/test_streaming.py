"""Images decoded by worker processes: the same pixels as in memory, in an order that depends on seed and epoch only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor

from tests.workers.datasets.conftest import write_images
from workers.datasets import DatasetError
from workers.datasets.batches import BatchSource
from workers.datasets.decoding import RandomCrop
from workers.datasets.loading import Splits, StreamedSplits, load, open_dataset
from workers.datasets.sources import evaluation_batches, training_batches

COUNT = 180


@pytest.fixture
def photos(data: Path) -> Path:
    write_images(data / "photos" / "train", {"a": COUNT // 2, "b": COUNT // 2}, size=(24, 20))
    write_images(data / "photos" / "val", {"a": 21, "b": 20}, size=(24, 20), seed=40_000)
    write_images(data / "photos" / "test", {"a": 11, "b": 10}, size=(24, 20), seed=80_000)
    return data / "photos"


@pytest.fixture
def both(photos: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Splits, StreamedSplits]:
    """The data set in memory and in files."""
    in_memory = open_dataset("photos", {"image_size": 16, "crop": 0.9})
    monkeypatch.setenv("ATTUNE_DATA_MEMORY", "1000")
    in_files = open_dataset("photos", {"image_size": 16, "normalisation": "imagenet", "crop": 0.9})
    assert isinstance(in_memory, Splits)
    assert isinstance(in_files, StreamedSplits)
    return in_memory, in_files


@pytest.fixture
def files(both: tuple[Splits, StreamedSplits]) -> StreamedSplits:
    return both[1]


def taken(source: BatchSource, epoch: int) -> tuple[list[int], Tensor, Tensor]:
    """Sizes of the batches, all images, all labels."""
    batches = list(source.epoch(epoch))
    assert len(batches) == len(source)
    images, labels = zip(*batches, strict=True)
    return [len(one) for one in labels], torch.cat(images), torch.cat(labels)


def test_both_ways_give_the_same_pixels_in_the_same_order(both: tuple[Splits, StreamedSplits]) -> None:
    in_memory, in_files = both
    for make in (
        lambda opened: evaluation_batches(opened, "validation", 16, epochs=2),
        lambda opened: evaluation_batches(opened, "test", 100),
        lambda opened: training_batches(opened, 70, seed=3, epochs=2),
    ):
        ours, theirs = make(in_files), make(in_memory)
        for epoch in (1, 2):
            sizes, images, labels = taken(ours, epoch)
            expected_sizes, expected_images, expected_labels = taken(theirs, epoch)
            assert sizes == expected_sizes
            assert torch.equal(images, expected_images)
            assert torch.equal(labels, expected_labels)
            assert images.dtype == torch.uint8
        ours.close()
    assert len(training_batches(in_memory, 70, seed=3)) == COUNT // 70
    assert len(evaluation_batches(in_memory, "validation", 16)) == 3


def test_order_and_crops_depend_on_seed_and_epoch_only(files: StreamedSplits) -> None:
    first = training_batches(files, 30, seed=1, crop=RandomCrop(), epochs=3)
    epochs = {number: taken(first, number) for number in (1, 2, 3)}
    first.close()
    assert not torch.equal(epochs[1][1], epochs[2][1])
    other_workers = training_batches(files, 30, seed=1, crop=RandomCrop(), workers=1)
    again = taken(other_workers, 2)
    other_workers.close()
    assert torch.equal(again[1], epochs[2][1])
    assert torch.equal(again[2], epochs[2][2])
    other_seed = training_batches(files, 30, seed=2, crop=RandomCrop())
    assert not torch.equal(taken(other_seed, 2)[1], epochs[2][1])
    other_seed.close()


def test_every_epoch_takes_every_image_once(files: StreamedSplits) -> None:
    source = training_batches(files, 20, seed=1, epochs=2)
    seen = [{image.numpy().tobytes() for image in taken(source, epoch)[1]} for epoch in (1, 2)]
    source.close()
    assert seen[0] == seen[1]
    assert len(seen[0]) == COUNT


def test_an_epoch_that_is_left_early_spoils_no_other(files: StreamedSplits) -> None:
    source = training_batches(files, 20, seed=1, crop=RandomCrop(), epochs=5)
    expected = {number: taken(source, number)[1] for number in (1, 2, 3, 4, 5)}
    for _ in source.epoch(2):
        break
    for number in (3, 1, 5, 4, 4):
        assert torch.equal(taken(source, number)[1], expected[number])
    source.close()


def test_the_share_of_waiting_is_measured(files: StreamedSplits) -> None:
    source = training_batches(files, 20, seed=1, epochs=2)
    assert source.wait_share == 0.0
    list(source.epoch(1))
    eager = source.wait_share
    for _ in source.epoch(2):
        time.sleep(0.25)  # a consumer that is far slower than decoding
    assert source.wait_share < 0.2 < eager <= 1.0
    source.close()


def test_a_broken_image_ends_the_epoch_with_its_name(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTUNE_DATA_MEMORY", "0")
    (photos / "train" / "a" / "0007.png").write_bytes(b"broken")
    opened = open_dataset("photos", {"normalisation": "inception"})
    source = training_batches(opened, 20, seed=1)
    with pytest.raises(DatasetError, match=r"train/a/0007\.png: no image"):
        list(source.epoch(1))
    source.close()
    skipping = open_dataset("photos", {"normalisation": "inception", "skip_corrupt": True})
    assert skipping.skipped == 1
    assert skipping.class_counts.tolist() == [COUNT // 2 - 1, COUNT // 2]
    source = training_batches(skipping, 20, seed=1)
    assert taken(source, 1)[0] == [20] * 8
    source.close()


def test_an_image_that_changes_while_training_is_told(files: StreamedSplits, photos: Path) -> None:
    source = training_batches(files, 20, seed=1)
    write_images(photos / "train", {"b": 1}, size=(24, 20))
    with pytest.raises(DatasetError, match=r"b/0000\.png has changed"):
        list(source.epoch(1))
    source.close()


def test_closing_ends_the_workers(files: StreamedSplits) -> None:
    def decoders() -> list[psutil.Process]:
        return [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]

    before = len(decoders())
    source = training_batches(files, 20, seed=1, workers=2)
    list(source.epoch(1))
    assert len(decoders()) >= before + 2
    source.close()
    deadline = time.monotonic() + 30
    while len(decoders()) > before + 2:  # the server that starts them, and the tracker of resources, stay
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.raises(ValueError, match="closed"):
        next(source.epoch(2))


SCRIPT = """
import sys, time
from workers.datasets.loading import open_dataset
from workers.datasets.sources import training_batches

if __name__ == "__main__":
    source = training_batches(open_dataset("photos", {"normalisation": "imagenet"}), 20, seed=1, epochs=9)
    next(source.epoch(1))
    print("started", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow  # three processes import torch
def test_the_workers_of_a_killed_process_end(photos: Path, home: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"ATTUNE_DATA_MEMORY": "0", "PYTHONPATH": os.getcwd()}
    process = subprocess.Popen([sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 3
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=10)
    process.stdout.close()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


def test_data_that_is_too_large_is_not_loaded_as_tensors(files: StreamedSplits) -> None:
    with pytest.raises(DatasetError, match="ATTUNE_DATA_MEMORY"):
        load("photos", {"image_size": 16})


@pytest.mark.parametrize("options", [{}, {"normalisation": "imagenet"}, {"normalisation": "inception"}])
def test_what_is_loaded_has_its_normalisation_and_weights(
    photos: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    for index in range(60):
        (photos / "train" / "b" / f"{index:04d}.png").unlink()
    opened = load("photos", {"image_size": 16, **options})
    expected = {
        "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        "inception": ([0.5] * 3, [0.5] * 3),
    }.get(options.get("normalisation", ""))
    pixels = opened.train.images.double() / 255
    mean, std = expected or (pixels.mean((0, 2, 3)).tolist(), pixels.std((0, 2, 3), correction=0).tolist())
    assert (opened.mean.flatten() / 255).tolist() == pytest.approx(mean)
    assert (opened.std.flatten() / 255).tolist() == pytest.approx(std)
    assert opened.class_counts.tolist() == [90, 30]
    from sklearn.utils.class_weight import compute_class_weight

    balanced = compute_class_weight("balanced", classes=np.array([0, 1]), y=opened.train.labels.numpy())
    assert opened.class_weights().tolist() == pytest.approx(balanced.tolist())
    monkeypatch.setenv("ATTUNE_DATA_MEMORY", "0")
    streamed = open_dataset("photos", {"image_size": 16, **options})
    assert streamed.mean.flatten().tolist() == pytest.approx(opened.mean.flatten().tolist())


def test_a_data_set_that_has_changed_is_loaded_again(photos: Path) -> None:
    first = load("photos", {"image_size": 16})
    assert load("photos", {"image_size": 16}).train.images is first.train.images
    write_images(photos / "train", {"c": 30}, size=(24, 20), seed=99_000)
    second = load("photos", {"image_size": 16})
    assert second.resolved.fingerprint != first.resolved.fingerprint
    assert len(second.train) == COUNT + 30
