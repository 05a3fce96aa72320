"""Augmentation against literal loops and torchvision's own policy."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2

from search.recipes import Recipe
from workers.datasets.decoding import RandomCrop
from workers.training.augment import LEVELS, _boxes, _operations, augmented, crop, flip, shift, trivial


def literal(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """The image read at (row + down, column + right), zeros outside."""
    _, height, width = image.shape
    out = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            if 0 <= row + down < height and 0 <= column + right < width:
                out[:, row, column] = image[:, row + down, column + right]
    return out


def test_every_image_is_one_of_its_shifts_and_all_shifts_occur() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(1, 256, (2, 5, 7), dtype=torch.uint8, generator=generator)
    moved = shift(image.expand(200, -1, -1, -1), 1, generator)
    assert moved.shape == (200, 2, 5, 7)
    assert moved.dtype == torch.uint8
    expected = [literal(image, down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    found = [[index for index, shifted in enumerate(expected) if torch.equal(out, shifted)] for out in moved]
    assert all(len(matches) == 1 for matches in found)
    assert {matches[0] for matches in found} == set(range(9))


def test_the_generator_decides() -> None:
    images = torch.arange(4 * 36, dtype=torch.uint8).view(4, 1, 6, 6)
    first, again, other = (shift(images, 2, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_half_of_the_images_are_mirrored() -> None:
    images = torch.randint(0, 256, (400, 3, 4, 5), dtype=torch.uint8)
    flipped = flip(images, torch.Generator().manual_seed(0))
    mirrored = [torch.equal(after, before.flip(-1)) for before, after in zip(images, flipped, strict=True)]
    kept = [torch.equal(after, before) for before, after in zip(images, flipped, strict=True)]
    assert all(a or b for a, b in zip(mirrored, kept, strict=True))
    assert 150 < sum(mirrored) < 250


TORCHVISION = ["Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast",
               "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize"]  # fmt: skip


@pytest.mark.parametrize("index", range(len(TORCHVISION)), ids=TORCHVISION)
def test_every_operation_is_torchvisions(index: int) -> None:
    policy = v2.TrivialAugmentWide()
    space, signed = policy._AUGMENTATION_SPACE[TORCHVISION[index]]
    strengths = space(LEVELS, 24, 24)
    images = torch.randint(0, 256, (2, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(index))
    ours = _operations()[index]
    assert ours.signed == signed
    for level in range(LEVELS) if strengths is not None else [0]:
        theirs = 0.0 if strengths is None else round(float(strengths[level]), 4)  # 15.99999 is 16
        for sign in (1, -1) if signed else (1,):
            expected = policy._apply_image_or_video_transform(
                images, TORCHVISION[index], sign * theirs, interpolation=policy.interpolation, fill=policy._fill
            )
            changed = ours.change(images, sign * ours.largest * level / (LEVELS - 1))
            # a strength on the border between two pixels may fall on either side
            assert (changed != expected).float().mean() < 0.02, (level, sign)


def test_crops_are_torchvisions_resized_crops() -> None:
    images = torch.randint(0, 256, (50, 3, 32, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    made = crop(images, RandomCrop(), torch.Generator().manual_seed(1))
    boxes = torch.stack(_boxes(50, (24, 32), RandomCrop(), torch.Generator().manual_seed(1)), dim=1)
    for image, ours, box in zip(images, made, boxes.int().tolist(), strict=True):
        left, top, width, height = box
        theirs = v2.functional.resized_crop(image, top, left, height, width, [32, 24], antialias=False)
        assert (ours.int() - theirs.int()).abs().max() <= 1  # the last bit of rounding


def test_parts_lie_within_the_image_and_are_as_large_as_they_may_be() -> None:
    how = RandomCrop(scale=(0.2, 0.9))
    left, top, width, height = _boxes(5000, (40, 30), how, torch.Generator().manual_seed(1))
    assert min(left.min(), top.min()) == 0
    assert (left + width).max() == 40
    assert (top + height).max() == 30
    share = width * height / (40 * 30)
    assert 0.17 < share.min() < 0.22
    assert 0.85 < share.max() <= 1
    theirs = [v2.RandomResizedCrop(8, how.scale, how.ratio).make_params([torch.empty(1, 30, 40)]) for _ in range(2000)]
    expected = sum(box["width"] * box["height"] for box in theirs) / 2000 / (40 * 30)
    assert share.mean() == pytest.approx(expected, abs=0.02)
    assert (width / height).log().abs().max() < 0.45
    wide = _boxes(100, (400, 2), RandomCrop(scale=(0.9, 1.0)), torch.Generator().manual_seed(1))
    assert all(wide[2] == 400)


def test_trivial_draws_every_operation_and_is_the_generators() -> None:
    images = torch.randint(0, 256, (600, 1, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    first, again, other = (trivial(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    same = sum(torch.equal(a, b) for a, b in zip(first, images, strict=True))
    assert 600 / 14 * 0.5 < same < 600 * 0.6  # the identity, saturation of grey and strengths of zero


@pytest.mark.parametrize("name", ["none", "shift", "flip", "shift_flip", "crop_flip", "trivial", "crop_trivial"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_augmentation_keeps_shape_and_kind(name: str, channels: int) -> None:
    images = torch.randint(0, 256, (40, channels, 9, 7), dtype=torch.uint8)
    recipe = Recipe.model_validate({"augment": name})
    changed = augmented(images, recipe, torch.Generator().manual_seed(0))
    assert (changed.shape, changed.dtype) == (images.shape, images.dtype)
    assert torch.equal(changed, images) == (name == "none")
