"""Efficient channel attention: a gate per channel from its neighbours' means, k weights in all.

Wang, Wu, Zhu, Li, Zuo, Hu 2020, "ECA-Net" (arXiv 1910.03151), section 3.2.3, equations 9 and 12:

    y = x · σ(Conv1d_k(GAP(x))),   k = |log₂(C)/γ + b/γ|_odd,  γ = 2, b = 1

The convolution runs over the channels with zero padding and has no bias. |t|_odd is ⌊t⌋ when that is odd and
⌊t⌋ + 1 otherwise, and at least 3 here: with k = 1 channels would not interact.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from search.attention.layers import per_channel


def adaptive_kernel(channels: int) -> int:
    """k of equation 12 for C channels, at least 3."""
    floor = int((math.log2(channels) + 1) / 2)
    return max(floor if floor % 2 else floor + 1, 3)


class EfficientChannelAttention(nn.Module):
    """N × C × H × W → the same shape, every channel multiplied by a gate in (0, 1).

    kernel: channels that a gate sees, odd; None for the paper's function of C.
    """

    def __init__(self, channels: int, kernel: int | None = None) -> None:
        super().__init__()
        size = kernel or adaptive_kernel(channels)
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3))[:, None]  # N × 1 × C
        gate: Tensor = self.conv(means).sigmoid()
        return x * per_channel(gate[:, 0])
