"""Sparse strided self-attention: a dense local step, then a strided one, together reaching every position.

Child, Gray, Radford, Sutskever 2019, "Generating Long Sequences with Sparse Transformers" (arXiv 1904.10509),
sections 4.2, 4.3, equations 2 to 6, the strided pattern, without the causal mask that images do not need:

    z = x + W₁ attend(x; i, j in the same run of `local` positions)
    y = z + W₂ attend(z; i ≡ j modulo `stride`)

Positions are counted in raster order, so with both at the width of the map, the default, the first step is over
rows, the second over columns, and a position meets H + W others instead of L = H · W. attend is softmax(qᵀk/√d) v
with heads of d channels; q, k, v: 1×1 C → C/b with biases; W: 1×1 C/b → C, which starts at 0 (the paper adds every
step to its input), so that the module starts as the identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SparseStep(nn.Module):
    """x + W attend(x): attention within groups of positions; N × C × L → the same shape."""

    def __init__(self, channels: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Conv1d(channels, 3 * inner, 1)
        self.out = nn.Conv1d(inner, channels, 1)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, run: int, strided: bool) -> Tensor:
        """run: positions in a row that form one group, or, if strided, that belong to different groups."""
        n, _, length = x.shape
        run = min(run, length)
        runs = -(-length // run)
        padding = runs * run - length
        # N × L × 3·inner → 3 × N × groups × heads × members × d
        qkv = F.pad(self.qkv(x), (0, padding)).reshape(n, 3, self.heads, -1, runs, run)
        qkv = qkv.permute(1, 0, 5, 2, 4, 3) if strided else qkv.permute(1, 0, 4, 2, 5, 3)
        q, k, v = qkv.unbind(0)
        mask = self._real(runs, run, length, strided, x.device) if padding else None
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        back = attended.permute(0, 2, 4, 3, 1) if strided else attended.permute(0, 2, 4, 1, 3)
        y: Tensor = self.out(back.reshape(n, -1, runs * run)[:, :, :length])
        return x + y

    @staticmethod
    def _real(runs: int, run: int, length: int, strided: bool, device: torch.device) -> Tensor:
        """Which keys are positions and not padding: groups × 1 × 1 × members; every group has one at least."""
        real = (torch.arange(runs * run, device=device) < length).reshape(runs, run)
        return (real.T if strided else real)[:, None, None, :]


class SparseStridedAttention(nn.Module):
    """N × C × H × W → the same shape. stride, local: in positions; None for the width of the map."""

    def __init__(
        self,
        channels: int,
        heads: int = 2,
        stride: int | None = None,
        local: int | None = None,
        bottleneck: int = 1,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.local = local
        inner = channels // bottleneck
        self.near = SparseStep(channels, inner, heads)
        self.far = SparseStep(channels, inner, heads)

    def forward(self, x: Tensor) -> Tensor:
        width = x.shape[-1]
        flat = self.near(x.flatten(2), self.local or width, strided=False)
        y: Tensor = self.far(flat, self.stride or width, strided=True)
        return y.reshape(x.shape)
