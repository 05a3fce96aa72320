"""Augmentation of many images at once, on the device, in uint8.

Every function draws from a CPU generator of its own, so the draws are the same on every device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from search.recipes import Recipe
from workers.datasets.decoding import RandomCrop


def augmented(images: Tensor, recipe: Recipe, generator: Generator, *, cropped: bool = False) -> Tensor:
    """`images` (N × C × H × W, uint8) as the recipe's `augment` changes them. cropped: whether a recipe's random crop
    and flip have been done already, as files were decoded."""
    if recipe.crops:
        if not cropped:
            images = flip(crop(images, RandomCrop(), generator), generator)
    else:
        if recipe.augment in ("shift", "shift_flip", "trivial"):
            images = shift(images, recipe.shift_pixels, generator)
        if recipe.augment in ("flip", "shift_flip", "trivial"):
            images = flip(images, generator)
    return trivial(images, generator) if recipe.augment in ("trivial", "crop_trivial") else images


TRIES = 10
"""Shapes that are drawn before the whole image is taken, as torchvision does."""


def crop(images: Tensor, how: RandomCrop, generator: Generator) -> Tensor:
    """A random part of each image (N × C × H × W, uint8), resized to H × W (bilinear): torchvision's
    RandomResizedCrop. Mirroring is left to `flip`."""
    height, width = images.shape[-2:]
    left, top, w, h = (edge.to(images.device)[:, None] for edge in _boxes(len(images), (width, height), how, generator))
    # of the middle of each new pixel; what lies beyond the part's own pixels is their border, not their neighbour
    columns = _between(left + (torch.arange(width, device=images.device) + 0.5) * (w / width), left, w)
    rows = _between(top + (torch.arange(height, device=images.device) + 0.5) * (h / height), top, h)
    grid = torch.stack(
        [
            (2 * columns / width - 1)[:, None, :].expand(-1, height, -1),
            (2 * rows / height - 1)[:, :, None].expand(-1, -1, width),
        ],
        dim=-1,
    )
    sampled = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.round_().clamp_(0, 255).to(torch.uint8)


def _between(points: Tensor, start: Tensor, length: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(points, start + 0.5), start + length - 0.5)


def _boxes(count: int, size: tuple[int, int], how: RandomCrop, generator: Generator) -> tuple[Tensor, ...]:
    """Left, top, width and height of `count` parts of an image of `size` (width, height), float32, on the CPU."""
    width, height = size
    draws = torch.rand(TRIES, 2, count, generator=generator)
    area = width * height * (how.scale[0] + draws[:, 0] * (how.scale[1] - how.scale[0]))
    low, high = math.log(how.ratio[0]), math.log(how.ratio[1])
    ratio = torch.exp(low + draws[:, 1] * (high - low))
    w, h = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.int().argmax(0)  # of the tries; the first of all where none fits
    everyone = torch.arange(count)
    none = ~fits.any(0)
    w = torch.where(none, float(width), w[first, everyone])
    h = torch.where(none, float(height), h[first, everyone])
    across, down = torch.rand(2, count, generator=generator)
    return (across * (width - w + 1)).floor(), (down * (height - h + 1)).floor(), w, h


def shift(images: Tensor, pixels: int, generator: Generator) -> Tensor:
    """Each image (N × C × H × W, any dtype) moved by −pixels … +pixels in both directions, zeros moved in."""
    count, _, height, width = images.shape
    moves = torch.randint(0, 2 * pixels + 1, (2, count), generator=generator, device=generator.device)
    rows = moves[0, :, None].to(images.device) + torch.arange(height, device=images.device)
    columns = moves[1, :, None].to(images.device) + torch.arange(width, device=images.device)
    padded = F.pad(images, (pixels, pixels, pixels, pixels))
    image = torch.arange(count, device=images.device)[:, None, None]
    # advanced indices around a slice put the channels last
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def flip(images: Tensor, generator: Generator) -> Tensor:
    """Each image (N × C × H × W, any dtype) mirrored left to right with probability 1/2."""
    mirrored = torch.rand(len(images), generator=generator, device=generator.device) < 0.5
    return torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(-1), images)


LEVELS = 31
"""Strengths to choose from, as in the paper's code."""


def trivial(images: Tensor, generator: Generator) -> Tensor:
    """TrivialAugment with its wide space (S. Müller and F. Hutter, 2021, section 3 and table 1): for each image
    (N × C × H × W, uint8) one operation, one strength and one sign, all drawn uniformly.

    Images that drew the same are changed together by torchvision's functions.
    """
    operations = _operations()
    device = generator.device
    operation, level, negative = (
        torch.randint(0, most, (len(images),), generator=generator, device=device)
        for most in (len(operations), LEVELS, 2)
    )
    # what has no strength, or no sign, is one group
    level *= torch.tensor([o.largest > 0 for o in operations], device=device)[operation]
    negative *= torch.tensor([o.signed for o in operations], device=device)[operation]
    kinds, members = torch.unique(torch.stack([operation, level, negative]), dim=1, return_inverse=True)
    changed = torch.empty_like(images)
    for number, (which, steps, minus) in enumerate(kinds.T.tolist()):
        chosen = (members == number).nonzero()[:, 0].to(images.device)
        strength = operations[which].largest * steps / (LEVELS - 1)
        changed[chosen] = operations[which].change(images[chosen], -strength if minus else strength)
    return changed


@dataclass(frozen=True)
class Operation:
    """largest: its greatest strength, 0 if it has none. signed: whether the strength may be negative."""

    name: str
    largest: float
    signed: bool
    change: Callable[[Tensor, float], Tensor]


@cache
def _operations() -> tuple[Operation, ...]:
    """The wide space. torchvision's transforms take long to import, so only who augments like this does it."""
    from torchvision.transforms.v2 import functional as T

    def shear(images: Tensor, x: float, y: float) -> Tensor:
        degrees = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
        sheared: Tensor = T.affine(images, 0.0, [0, 0], 1.0, degrees, center=[0, 0])
        return sheared

    def move(images: Tensor, x: float, y: float) -> Tensor:
        moved: Tensor = T.affine(images, 0.0, [int(x), int(y)], 1.0, [0.0, 0.0])
        return moved

    return (
        Operation("identity", 0.0, False, lambda images, s: images),
        Operation("shear x", 0.99, True, lambda images, s: shear(images, s, 0.0)),
        Operation("shear y", 0.99, True, lambda images, s: shear(images, 0.0, s)),
        Operation("translate x", 32.0, True, lambda images, s: move(images, s, 0.0)),
        Operation("translate y", 32.0, True, lambda images, s: move(images, 0.0, s)),
        Operation("rotate", 135.0, True, T.rotate),
        Operation("brightness", 0.99, True, lambda images, s: T.adjust_brightness(images, 1 + s)),
        Operation("color", 0.99, True, lambda images, s: T.adjust_saturation(images, 1 + s)),
        Operation("contrast", 0.99, True, lambda images, s: T.adjust_contrast(images, 1 + s)),
        Operation("sharpness", 0.99, True, lambda images, s: T.adjust_sharpness(images, 1 + s)),
        Operation("posterize", 6.0, False, lambda images, s: T.posterize(images, round(8 - s))),
        Operation("solarize", 1.0, False, lambda images, s: T.solarize(images, 255 * (1 - s))),
        Operation("auto contrast", 0.0, False, lambda images, s: T.autocontrast(images)),
        Operation("equalize", 0.0, False, lambda images, s: T.equalize(images)),
    )
