"""Squeeze-and-excitation: a gate per channel, computed from the global mean of every channel.

Hu, Shen, Sun 2018, "Squeeze-and-Excitation Networks" (arXiv 1709.01507), section 3, equations 2 to 4:

    s = σ(W₂ ReLU(W₁ GAP(x) + b₁) + b₂),   y = x · s

x, y: N × C × H × W; GAP(x), s: N × C; W₁: C/r × C; W₂: C × C/r. 2C²/r + C + C/r parameters, as in the
paper's tables (with biases).
"""

from __future__ import annotations

from torch import Tensor, nn

from search.attention.layers import channel_mlp, per_channel


class SqueezeExcitation(nn.Module):
    """N × C × H × W → the same shape, every channel multiplied by a gate in (0, 1)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.mlp = channel_mlp(channels, channels // reduction)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.mlp(x.mean((2, 3))).sigmoid()
        return x * per_channel(gate)
