"""What a trial is shown, from memory and from files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from search.recipes import Recipe
from tests.workers.datasets.conftest import write_images
from workers.datasets.loading import Splits, StreamedSplits, TensorSplit, open_dataset
from workers.training.feeding import MemoryFeed, training_feed


def numbered(count: int) -> TensorSplit:
    """Images that carry their own index."""
    index = torch.arange(count)
    return TensorSplit(index.to(torch.uint8).view(-1, 1, 1, 1), index)


def test_an_epoch_shows_each_image_at_most_once_in_full_batches() -> None:
    feed = MemoryFeed(numbered(103), Recipe(batch_size=10), seed=1)
    batches = list(feed.epoch(1))
    assert [len(labels) for _, labels in batches] == [10] * len(feed) == [10] * 10
    seen = torch.cat([labels for _, labels in batches])
    assert len(set(seen.tolist())) == 100
    assert seen.tolist() != sorted(seen.tolist())
    assert all(torch.equal(images.flatten().long(), labels) for images, labels in batches)
    again, other = (torch.cat([labels for _, labels in feed.epoch(number)]) for number in (1, 2))
    assert torch.equal(again, seen)
    assert not torch.equal(other, seen)


def test_a_batch_larger_than_the_data_is_all_of_it() -> None:
    ((_, labels),) = MemoryFeed(numbered(7), Recipe(batch_size=64), seed=1).epoch(1)
    assert sorted(labels.tolist()) == list(range(7))


@pytest.mark.parametrize("at_once", [1, 25, 10_000])
def test_how_much_is_done_at_once_changes_no_order(at_once: int) -> None:
    split, recipe = numbered(103), Recipe(batch_size=10)
    expected = [labels.tolist() for _, labels in MemoryFeed(split, recipe, seed=1).epoch(3)]
    batches = list(MemoryFeed(split, recipe, seed=1, at_once=at_once).epoch(3))
    assert [labels.tolist() for _, labels in batches] == expected
    assert all(torch.equal(images.flatten().long(), labels) for images, labels in batches)


@pytest.fixture
def both(data: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Splits, StreamedSplits]:
    """The data set in memory and in files."""
    for name, count, seed in (("train", 60, 0), ("val", 20, 40_000), ("test", 20, 80_000)):
        write_images(data / "photos" / name, {"a": count // 2, "b": count // 2}, size=(24, 20), seed=seed)
    in_memory = open_dataset("photos", {"image_size": 16})
    monkeypatch.setenv("ATTUNE_DATA_MEMORY", "1000")
    in_files = open_dataset("photos", {"image_size": 16, "normalisation": "imagenet"})
    assert isinstance(in_memory, Splits)
    assert isinstance(in_files, StreamedSplits)
    return in_memory, in_files


def test_without_augmentation_files_and_memory_show_the_same(both: tuple[Splits, StreamedSplits]) -> None:
    recipe = Recipe(batch_size=16)
    feeds = [training_feed(opened, recipe, seed=3, epochs=2) for opened in both]
    for number in (1, 2):
        shown = [list(feed.epoch(number)) for feed in feeds]
        assert [len(batches) for batches in shown] == [len(feed) for feed in feeds] == [3, 3]
        for (images, labels), (others, known) in zip(*shown, strict=True):
            assert torch.equal(images, others)
            assert torch.equal(labels, known)
    for feed in feeds:
        feed.close()


@pytest.mark.parametrize("augment", ["shift_flip", "crop_flip"])
def test_files_are_augmented_as_the_recipe_says_by_seed_and_epoch(
    both: tuple[Splits, StreamedSplits], augment: str
) -> None:
    plain, changed = Recipe(batch_size=30), Recipe.model_validate({"batch_size": 30, "augment": augment})
    shown = []
    for recipe in (plain, changed, changed):
        feed = training_feed(both[1], recipe, seed=3, epochs=1)
        shown.append(next(feed.epoch(1)))
        feed.close()
    (centre, known), (first, labels), (again, _) = shown
    assert torch.equal(known, labels)
    assert first.shape == centre.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, centre)
