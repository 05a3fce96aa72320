"""CBAM: a gate per channel, then a gate per position.

Woo, Park, Lee, Kweon 2018, "CBAM: Convolutional Block Attention Module" (arXiv 1807.06521), section 3,
equations 1 to 3, with the parts its code adds (Jongchan/attention-module, MODELS/cbam.py: biases in the MLP,
batch norm after the spatial convolution, whose weight starts at 0):

    M_c = σ(MLP(mean over positions) + MLP(max over positions)),     N × C, one shared MLP C → C/r → C
    M_s = σ(BN(conv_k×k [max over channels; mean over channels])),   N × 1 × H × W, 2k² weights, no bias
    y = M_s(x′) · x′  with  x′ = M_c(x) · x

Options are the choices of section 4.1 (tables 1 to 3): one pooling instead of both, a 1×1 convolution
C → 1 in place of the channel pooling, k, the order (or both maps from x: y = M_c(x) · M_s(x) · x), one branch only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search.attention.layers import channel_mlp, per_channel


class ChannelGate(nn.Module):
    """M_c: N × C × H × W → N × C × 1 × 1 in (0, 1).

    pool: "avg", "max", or "both" for the sum of the shared MLP's two answers.
    """

    def __init__(self, channels: int, reduction: int = 16, pool: str = "both") -> None:
        super().__init__()
        self.pool = pool
        self.mlp = channel_mlp(channels, channels // reduction)

    def forward(self, x: Tensor) -> Tensor:
        pooled = []
        if self.pool != "max":
            pooled.append(x.mean((2, 3)))
        if self.pool != "avg":
            pooled.append(x.amax((2, 3)))
        logits: Tensor = sum(self.mlp(descriptor) for descriptor in pooled)
        return per_channel(logits.sigmoid())


class SpatialGate(nn.Module):
    """M_s: N × C × H × W → N × 1 × H × W in (0, 1).

    descriptor: "pooling" (max and mean over channels) or "conv1x1" (a learned combination, C weights).
    """

    def __init__(self, channels: int, descriptor: str = "pooling", kernel: int = 7) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, 1, 1, bias=False) if descriptor == "conv1x1" else None
        inputs = 1 if descriptor == "conv1x1" else 2
        self.conv = nn.Conv2d(inputs, 1, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(1, momentum=0.01)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        if self.squeeze is None:
            descriptor = torch.cat((x.amax(1, keepdim=True), x.mean(1, keepdim=True)), 1)
        else:
            descriptor = self.squeeze(x)
        gate: Tensor = self.norm(self.conv(descriptor)).sigmoid()
        return gate


class CBAM(nn.Module):
    """N × C × H × W → the same shape, gated per channel and per position in the chosen order."""

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        branches: str = "both",
        pool: str = "both",
        spatial: str = "pooling",
        kernel: int = 7,
        order: str = "channel_spatial",
    ) -> None:
        super().__init__()
        self.order = order
        self.channel = None if branches == "spatial" else ChannelGate(channels, reduction, pool)
        without_spatial = branches == "channel" or spatial == "none"
        self.spatial = None if without_spatial else SpatialGate(channels, spatial, kernel)

    def forward(self, x: Tensor) -> Tensor:
        if self.channel is None or self.spatial is None:
            gate = self.channel or self.spatial
            assert gate is not None, "refused by CBAMOptions"
            only: Tensor = x * gate(x)
            return only
        if self.order == "parallel":
            both: Tensor = x * self.channel(x) * self.spatial(x)
            return both
        channel_first = self.order == "channel_spatial"
        first, second = (self.channel, self.spatial) if channel_first else (self.spatial, self.channel)
        x = x * first(x)
        y: Tensor = x * second(x)
        return y
