"""The contract of every data set: what is published is what is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from search.errors import SpecError
from tests.workers.datasets.conftest import write_cifar, write_images
from workers.datasets import DATASETS, ArraySplits, Dataset
from workers.datasets.cifar_files import CIFAR10, CIFAR100
from workers.datasets.loading import channel_statistics, load


@pytest.fixture(params=["digits", "cluttered-digits", "cifar10", "cifar100", "pets"])
def dataset(request: pytest.FixtureRequest, data: Path) -> Dataset:
    write_cifar(data, CIFAR10, per_file=60)
    write_cifar(data, CIFAR100, per_file=1500)
    write_images(data / "pets", {"a": 40, "b": 40}, size=(32, 24))
    return DATASETS.get(request.param)


def test_the_entry_tells_the_truth(dataset: Dataset) -> None:
    entry = dataset.entry()
    made = dataset.splits(entry.resolve().options)
    assert isinstance(made, ArraySplits)
    sizes = [len(split.labels) for split in (made.train, made.validation, made.test)]
    assert sizes == [entry.train_size, entry.validation_size, entry.test_size]
    assert made.train.images.shape == (entry.train_size, *entry.input_shape)
    assert made.train.images.dtype == np.uint8
    assert set(np.unique(made.train.labels)) == set(range(entry.classes))
    assert len(entry.class_names) == entry.classes
    assert entry.class_counts in ((), tuple(np.bincount(made.train.labels)))


@pytest.mark.parametrize("size", [16, 32])
def test_options_that_set_the_image_size_do(dataset: Dataset, size: int) -> None:
    entry = dataset.entry()
    (option,) = (o.name for o in entry.options if o.sets == "image_size")
    splits = load(dataset.name, {option: size})
    assert tuple(splits.test.images.shape[1:]) == splits.resolved.input_shape == (entry.input_shape[0], size, size)


def test_loaded_once_per_process(dataset: Dataset) -> None:
    assert load(dataset.name).train.images is load(dataset.name, {}).train.images


def test_statistics_are_those_of_the_training_pixels(dataset: Dataset) -> None:
    splits = load(dataset.name)
    pixels = splits.train.images.double()
    assert splits.mean.flatten().tolist() == pytest.approx(pixels.mean((0, 2, 3)).tolist(), rel=1e-6)
    assert splits.std.flatten().tolist() == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), rel=1e-6)


def test_statistics_per_channel() -> None:
    images = torch.randint(0, 256, (5, 3, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:, 2] = 9
    mean, std = channel_statistics(images)
    assert mean.flatten().tolist() == pytest.approx(images.double().mean((0, 2, 3)).tolist())
    assert std.flatten().tolist()[:2] == pytest.approx(images.double().std((0, 2, 3), correction=0).tolist()[:2])
    assert std.flatten().tolist()[2] == 1.0


def test_an_unknown_data_set_lists_the_known() -> None:
    with pytest.raises(SpecError) as caught:
        load("../../etc/passwd")
    assert {"digits", "cluttered-digits"} <= set(caught.value.problems[0].choices)


def test_what_is_published_needs_no_torch() -> None:
    code = (
        "import sys; from workers.datasets import DATASETS; "
        "[d.entry() for d in DATASETS]; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
