"""DANet's attention over positions, over channels, and both.

Fu, Liu, Tian, Li, Bao, Fang, Lu 2019, "Dual Attention Network for Scene Segmentation" (arXiv 1809.02983),
sections 3.2 to 3.4, equations 1 to 4, and the authors' code (junfu1115/DANet, encoding/nn/da_att.py):

    position: y_j = α Σ_i s_ji D_i + x_j,   s_j = softmax_i(B_i · C_j)     B, C: 1×1 C → C/8; D: 1×1 C → C
    channel:  y_j = β Σ_i z_ji x_i + x_j,   z_j = softmax_i(x_i · x_j)     x_i: a channel's H · W values
    dual:     y = x + α (position's sum) + β (channel's sum)

α and β start at 0. The official code takes softmax_i(max_k(x_k · x_j) − x_i · x_j) over channels: attention to
the least alike; option `energy`. The paper's head puts a 3×3 convolution before and after each branch and sums
their outputs; the dual module here is that sum on one input, which is counted once, so it starts as the identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PositionAttention(nn.Module):
    """N × C × H × W → the same shape. key_ratio: B and C have C / key_ratio channels."""

    def __init__(self, channels: int, key_ratio: int = 8) -> None:
        super().__init__()
        inner = channels // key_ratio
        self.query = nn.Conv2d(channels, inner, 1)
        self.key = nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.alpha = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual(x)

    def residual(self, x: Tensor) -> Tensor:
        """α times the attended values, N × C × H × W."""
        query, key, value = (conv(x).flatten(2).transpose(1, 2) for conv in (self.query, self.key, self.value))
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)  # N × L × C
        return self.alpha * attended.transpose(1, 2).reshape(x.shape)


class ChannelAttention(nn.Module):
    """N × C × H × W → the same shape; one parameter. energy: "product", or "max_minus_product" as the code."""

    def __init__(self, channels: int, energy: str = "product") -> None:
        super().__init__()
        self.energy = energy
        self.beta = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual(x)

    def residual(self, x: Tensor) -> Tensor:
        """β times the attended channels, N × C × H × W."""
        flat = x.flatten(2)  # N × C × L
        energy = torch.bmm(flat, flat.transpose(1, 2))
        if self.energy == "max_minus_product":
            energy = energy.amax(-1, keepdim=True) - energy
        return self.beta * torch.bmm(energy.softmax(-1), flat).reshape(x.shape)


class DualAttention(nn.Module):
    """N × C × H × W → the same shape; both branches in parallel, summed."""

    def __init__(self, channels: int, key_ratio: int = 8, energy: str = "product") -> None:
        super().__init__()
        self.position = PositionAttention(channels, key_ratio)
        self.channel = ChannelAttention(channels, energy)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.position.residual(x) + self.channel.residual(x)
