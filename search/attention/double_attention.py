"""A² double attention: gather global descriptors by one attention, distribute them by another.

Chen, Kalantidis, Li, Yan, Feng 2018, "A²-Nets: Double Attention Networks" (arXiv 1810.11579), sections 3.1 to
3.3, equations 3 to 6:

    G = A softmax_L(B)ᵀ,   Z = G softmax_n(V),   y = x + W Z

A: 1×1 C → m; B, V: 1×1 C → n, flattened to N × · × L; G: N × m × n, the descriptors; each row of softmax_L(B)
sums to 1 over the positions, each column of softmax_n(V) over the descriptors; W: 1×1 m → C. m = n = C/4. W
starts at 0, so that the block, which the paper adds to its input, starts as the identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DoubleAttention(nn.Module):
    """N × C × H × W → the same shape. value_ratio: C / m; descriptor_ratio: C / n."""

    def __init__(self, channels: int, value_ratio: int = 4, descriptor_ratio: int = 4) -> None:
        super().__init__()
        values, descriptors = channels // value_ratio, channels // descriptor_ratio
        self.values = nn.Conv2d(channels, values, 1)
        self.gather = nn.Conv2d(channels, descriptors, 1)
        self.distribute = nn.Conv2d(channels, descriptors, 1)
        self.out = nn.Conv2d(values, channels, 1)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        values = self.values(x).flatten(2)  # N × m × L
        gather = self.gather(x).flatten(2).softmax(2)  # N × n × L, over positions
        distribute = self.distribute(x).flatten(2).softmax(1)  # N × n × L, over descriptors
        descriptors = torch.bmm(values, gather.transpose(1, 2))  # N × m × n
        z: Tensor = self.out(torch.bmm(descriptors, distribute).reshape(n, -1, h, w))
        return x + z
