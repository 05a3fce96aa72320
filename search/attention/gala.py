"""GALA: global (which channel) and local (where) attention, combined by learned sums and products.

Linsley, Shiebler, Eberhardt, Serre 2019, "Learning what and where to attend" (arXiv 1805.08819), section 3,
equations 1 to 4, and the authors' code (serre-lab/gala_tpu, resnet_helpers.py):

    y = x · tanh(a (g + s) + m (g · s))

    g: N × C × 1 × 1, W₂ ReLU(W₁ GAP(x) + b₁) + b₂ with C/r hidden channels (SE without its sigmoid)
    s: N × 1 × H × W, 1×1 C → C/r, ReLU, 1×1 → 1
    a, m: C learned weights each, drawn from N(0, 1)

The paper's shrinkage is r = 4. `interaction` as in the code: both, or tanh(g + s), or tanh(g · s), without a and m.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search.attention.layers import channel_mlp, per_channel


class GALA(nn.Module):
    """N × C × H × W → the same shape, multiplied by a map in (−1, 1)."""

    def __init__(self, channels: int, reduction: int = 4, interaction: str = "both") -> None:
        super().__init__()
        hidden = channels // reduction
        self.interaction = interaction
        self.mlp = channel_mlp(channels, hidden)
        self.local = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, 1, 1))
        if interaction == "both":
            self.additive = nn.Parameter(torch.randn(channels, 1, 1))
            self.multiplicative = nn.Parameter(torch.randn(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        where: Tensor = self.local(x)
        what = per_channel(self.mlp(x.mean((2, 3))))
        match self.interaction:
            case "both":
                logits = self.additive * (what + where) + self.multiplicative * (what * where)
            case "additive":
                logits = what + where
            case "multiplicative":
                logits = what * where
            case _:
                raise ValueError(f"unknown interaction {self.interaction!r}")
        return x * logits.tanh()
