"""Global context block: one attention map for all positions, its pooled vector transformed and added.

Cao, Xu, Lin, Wei, Hu 2019, "GCNet" (arXiv 1904.11492), section 3.3, equation 5, and the authors' code
(xvjiarui/GCNet, mmdet/ops/gcb/context_block.py):

    c = Σ_j softmax_j(w · x_j + b) x_j,   t = W₂ ReLU(LN(W₁ c + b₁)) + b₂,   y = x + t

x_j: C values at one of L positions; c, t: N × C; W₁: C/r × C. Options of section 4.1: pooling by the mean
instead of attention, and y = x · σ(t) instead of the sum. W₂ and b₂ start at 0, as in the code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search.attention.layers import per_channel


class GlobalContext(nn.Module):
    """N × C × H × W → the same shape. pooling: "attention" or "avg"; fusion: "add" or "scale"."""

    def __init__(self, channels: int, reduction: int = 16, pooling: str = "attention", fusion: str = "add") -> None:
        super().__init__()
        self.fusion = fusion
        hidden = channels // reduction
        self.mask = nn.Conv2d(channels, 1, 1) if pooling == "attention" else None
        last = nn.Linear(hidden, channels)
        self.transform = nn.Sequential(nn.Linear(channels, hidden), nn.LayerNorm(hidden), nn.ReLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        term = per_channel(self.transform(self._context(x)))
        return x + term if self.fusion == "add" else x * term.sigmoid()

    def _context(self, x: Tensor) -> Tensor:
        if self.mask is None:
            return x.mean((2, 3))
        weights = self.mask(x).flatten(2).softmax(-1)  # N × 1 × L
        return torch.bmm(x.flatten(2), weights.transpose(1, 2))[:, :, 0]
