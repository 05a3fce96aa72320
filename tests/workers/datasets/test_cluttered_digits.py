"""Composed images: what is on the canvas, and that no digit crosses from one split to another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from workers.datasets import DATASETS, ArraySplits
from workers.datasets.cluttered_digits import OPTIONS, compose
from workers.datasets.digits import Source, read_source

DEFAULTS: dict[str, Any] = {option.name: option.default for option in OPTIONS}


def splits(**changed: Any) -> ArraySplits:
    return DATASETS.get("cluttered-digits").splits({**DEFAULTS, **changed})


def test_a_digit_stays_in_its_split() -> None:
    made = splits()
    train, validation, test = (set(split.identities) for split in (made.train, made.validation, made.test))
    assert not train & validation
    assert not train & test
    assert not validation & test
    assert len(train | validation | test) == 1797


def test_fragments_come_from_the_same_split() -> None:
    """Marked sources: a split's images hold no grey value but those of its own digits."""
    source = read_source()
    marked = Source(np.full((3, 8, 8), 7, np.uint8), source.labels[:3], source.identities[:3])
    made = compose(marked, {**DEFAULTS, "fragments": 20}, "test")
    assert set(np.unique(made.images)) == {0, 7}


def test_fragments_come_from_other_digits() -> None:
    """Two sources of two grey values: each image must show both."""
    source = read_source()
    grey = np.array([50, 200], np.uint8)[:, None, None] * np.ones((1, 8, 8), np.uint8)
    made = compose(Source(grey, source.labels[:2], source.identities[:2]), {**DEFAULTS, "canvas": 40}, "train")
    for image in made.images:
        assert set(np.unique(image)) == {0, 50, 200}


def test_without_clutter_the_digit_alone_is_on_the_canvas() -> None:
    source = read_source()
    found = dict(zip(source.identities, source.images, strict=True))
    made = splits(fragments=0, copies=1, canvas=24).train
    for image, identity in zip(made.images[:100, 0], made.identities[:100], strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(image, (8, 8)).reshape(-1, 8, 8)
        assert (windows == found[identity]).all(axis=(1, 2)).any()
        assert image.sum() == found[identity].sum()


def test_places_cover_the_whole_canvas() -> None:
    images = splits(fragments=0).train.images
    assert images.max(axis=(0, 1))[1:-1, 2:-2].min() > 0


def test_the_same_options_give_the_same_images_and_a_seed_others() -> None:
    first, again, other = splits(), splits(), splits(seed=1)
    assert np.array_equal(first.test.images, again.test.images)
    assert first.test.identities != other.test.identities


@pytest.mark.parametrize("name", ["copies", "eval_copies"])
def test_copies_multiply_the_images(name: str) -> None:
    single, triple = splits(**{name: 1}), splits(**{name: 3})
    changed = "train" if name == "copies" else "test"
    assert len(getattr(triple, changed).labels) == 3 * len(getattr(single, changed).labels)
