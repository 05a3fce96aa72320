"""BAM: one map over channels and positions at a bottleneck of the network.

Park, Woo, Lee, Kweon 2018, "BAM: Bottleneck Attention Module" (arXiv 1807.06514), section 3, equations 1 to 5:

    y = x · (1 + σ(M_c ∘ M_s)),   ∘ a sum (the paper; its official code multiplies)
    M_c: N × C × 1 × 1: global mean, linear C → C/r, BN, ReLU, linear C/r → C
    M_s: N × 1 × H × W: 1×1 C → C/r, two 3×3 with dilation d, 1×1 C/r → 1; BN and ReLU between the convolutions

Layers and biases are those of the official code (Jongchan/attention-module, MODELS/bam.py), whose parameters
are the published 25.92 M of ResNet50 with three BAMs. Options are the choices of section 4.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search.attention.layers import per_channel


def _channel_branch(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, channels))


def _spatial_branch(channels: int, hidden: int, dilation: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden), nn.ReLU()]
    for _ in range(2):
        layers += [nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation), nn.BatchNorm2d(hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(hidden, 1, 1))


class BAM(nn.Module):
    """N × C × H × W → the same shape, multiplied by a map in (1, 2).

    branches: "both", "channel" or "spatial". combine: "sum", "product" or "max" of the two maps.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        dilation: int = 4,
        branches: str = "both",
        combine: str = "sum",
    ) -> None:
        super().__init__()
        self.combine = combine
        hidden = channels // reduction
        self.channel = None if branches == "spatial" else _channel_branch(channels, hidden)
        self.spatial = None if branches == "channel" else _spatial_branch(channels, hidden, dilation)

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + self._logits(x).sigmoid())

    def _logits(self, x: Tensor) -> Tensor:
        if self.channel is None:
            assert self.spatial is not None, "BAMOptions leaves a branch"
            positions: Tensor = self.spatial(x)
            return positions
        channels = per_channel(self.channel(x.mean((2, 3))))
        if self.spatial is None:
            return channels
        positions = self.spatial(x)
        match self.combine:
            case "sum":
                return channels + positions
            case "product":
                return channels * positions
            case "max":
                return torch.maximum(channels, positions)
        raise ValueError(f"unknown combination {self.combine!r}")
