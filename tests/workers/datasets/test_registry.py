"""The contract of every data set: what is published is what is loaded."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from search.errors import SpecError
from workers.datasets import DATASETS, Dataset
from workers.datasets.loading import channel_statistics, load


@pytest.fixture(params=["digits", "cluttered-digits"])
def dataset(request: pytest.FixtureRequest) -> Dataset:
    return DATASETS.get(request.param)


def test_the_entry_tells_the_truth(dataset: Dataset) -> None:
    entry = dataset.entry()
    made = dataset.splits(entry.resolve().options)
    sizes = [len(split.labels) for split in (made.train, made.validation, made.test)]
    assert sizes == [entry.train_size, entry.validation_size, entry.test_size]
    assert made.train.images.shape == (entry.train_size, *entry.input_shape)
    assert made.train.images.dtype == np.uint8
    assert set(np.unique(made.train.labels)) == set(range(entry.classes))
    assert len(entry.class_names) == entry.classes


@pytest.mark.parametrize("size", [16, 32])
def test_options_that_set_the_image_size_do(dataset: Dataset, size: int) -> None:
    entry = dataset.entry()
    (option,) = (o.name for o in entry.options if o.sets == "image_size")
    splits = load(dataset.name, {option: size})
    assert tuple(splits.test.images.shape[1:]) == splits.resolved.input_shape == (1, size, size)


def test_loaded_once_per_process(dataset: Dataset) -> None:
    assert load(dataset.name).train.images is load(dataset.name, {}).train.images


def test_statistics_are_those_of_the_training_pixels(dataset: Dataset) -> None:
    splits = load(dataset.name)
    pixels = splits.train.images.double()
    assert splits.mean.item() == pytest.approx(pixels.mean().item(), rel=1e-6)
    assert splits.std.item() == pytest.approx(pixels.std(correction=0).item(), rel=1e-6)


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
