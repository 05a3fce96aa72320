"""Small layers and helpers that several attention modules share."""

from __future__ import annotations

from torch import Tensor, nn


def channel_mlp(channels: int, hidden: int) -> nn.Sequential:
    """W₂ ReLU(W₁ s + b₁) + b₂ for s: N × C; (2 · hidden + 1) · C + hidden parameters."""
    return nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))


def per_channel(values: Tensor) -> Tensor:
    """N × C as N × C × 1 × 1, to be broadcast over positions."""
    return values[:, :, None, None]
