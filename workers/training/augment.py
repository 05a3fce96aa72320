"""Augmentation of a whole epoch or batch at once, on the device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def shift(images: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Each image (N × C × H × W, any dtype) moved by −pixels … +pixels in both directions, zeros moved in.

    The moves are drawn on the generator's device and are the same on every device.
    """
    count, _, height, width = images.shape
    moves = torch.randint(0, 2 * pixels + 1, (2, count), generator=generator, device=generator.device)
    rows = moves[0, :, None].to(images.device) + torch.arange(height, device=images.device)
    columns = moves[1, :, None].to(images.device) + torch.arange(width, device=images.device)
    padded = F.pad(images, (pixels, pixels, pixels, pixels))
    image = torch.arange(count, device=images.device)[:, None, None]
    # advanced indices around a slice put the channels last
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
