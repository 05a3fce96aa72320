"""Shifting against a literal loop."""

from __future__ import annotations

import torch

from workers.training.augment import shift


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
