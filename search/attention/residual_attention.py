"""Residual attention: a soft mask from an hourglass, added to 1.

Wang, Jiang, Qian, Yang, Li, Zhang, Wang, Tang 2017, "Residual Attention Network for Image Classification"
(arXiv 1704.06904), sections 3.1 to 3.3, equations 3 to 6, and the authors' models
(fwang91/residual-attention-network, Attention-56-deploy.prototxt). With the backbone's own blocks as the trunk:

    y = (1 + M(x)) · x,   M = f(linear₂(linear₁(hourglass(x))))

hourglass of depth d: d times 3×3 max pooling of stride 2 and a residual unit (two at the bottom); then d times
bilinear enlargement, with a skip unit from the same size added and one more unit between two enlargements.
A unit is a pre-activation bottleneck C → C/4 → C/4 → C; linear: BN, ReLU, 1×1 C → C without bias. The paper
has d = 3, 2, 1 at 56, 28, 14 pixels. f, section 3.2:

    mixed: σ(m)        channel: m_c / ‖m‖ over the channels of a position
    spatial: σ((m − mean) / s.d.) over the positions of a channel
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _activated(inputs: int, outputs: int, kernel: int = 1) -> list[nn.Module]:
    """BN, ReLU and a convolution that keeps the size."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return [nn.BatchNorm2d(inputs), nn.ReLU(), conv]


class ResidualUnit(nn.Module):
    """x + 1×1 C/b → C of 3×3 of 1×1 C → C/b, each after BN and ReLU."""

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        inner = channels // bottleneck
        self.branch = nn.Sequential(
            *_activated(channels, inner), *_activated(inner, inner, 3), *_activated(inner, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.branch(x)
        return y


class Hourglass(nn.Module):
    """N × C × H × W → the same shape; level 1 is the outermost of `depth`."""

    def __init__(self, channels: int, depth: int, bottleneck: int) -> None:
        super().__init__()
        self.down = ResidualUnit(channels, bottleneck)
        self.skip = ResidualUnit(channels, bottleneck) if depth > 1 else None
        self.inner = Hourglass(channels, depth - 1, bottleneck) if depth > 1 else None
        self.up = ResidualUnit(channels, bottleneck)

    def forward(self, x: Tensor) -> Tensor:
        small = self.down(F.max_pool2d(x, 3, stride=2, padding=1))
        if self.inner is not None and self.skip is not None:
            small = self.inner(small) + self.skip(small)
        return F.interpolate(self.up(small), size=x.shape[-2:], mode="bilinear", align_corners=True)


class ResidualAttention(nn.Module):
    """N × C × H × W → the same shape. gate: "mixed", "channel" or "spatial"; depth: times the map is halved."""

    def __init__(self, channels: int, depth: int = 1, gate: str = "mixed", bottleneck: int = 4) -> None:
        super().__init__()
        self.gate = gate
        self.hourglass = Hourglass(channels, depth, bottleneck)
        self.linear = nn.Sequential(*_activated(channels, channels), *_activated(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + self._mask(self.linear(self.hourglass(x))))

    def _mask(self, logits: Tensor) -> Tensor:
        match self.gate:
            case "mixed":
                return logits.sigmoid()
            case "channel":
                return F.normalize(logits, dim=1)
            case "spatial":
                mean = logits.mean((2, 3), keepdim=True)
                variance = (logits - mean).square().mean((2, 3), keepdim=True)
                return ((logits - mean) * torch.rsqrt(variance + 1e-5)).sigmoid()
        raise ValueError(f"unknown gate {self.gate!r}")
