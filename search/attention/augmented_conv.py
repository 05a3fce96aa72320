"""Attention-augmented convolution: some output channels come from self-attention with relative positions.

Bello, Zoph, Vaswani, Shlens, Le 2019, "Attention Augmented Convolutional Networks" (arXiv 1904.09925), sections
3.1 to 3.3, equations 1 to 4, and the code in its appendix:

    y = [conv(x); W_o concat_h(O_h)],   O_h = softmax((Q K^T + S_H + S_W) / √d_k^h) V
    S_W[i, j] = q_i · r^W[j_x − i_x],   S_H[i, j] = q_i · r^H[j_y − i_y]

conv: the replaced convolution with C₂ − d_v outputs; Q, K, V: one 1×1 convolution C₁ → 2 d_k + d_v with the same
stride; W_o: 1×1 d_v → d_v; r^W: 2W − 1, r^H: 2H − 1 vectors of d_k^h = d_k / heads values, shared by the heads,
drawn with s.d. 1/√d_k^h. d_k ≈ κ C₂ and d_v ≈ υ C₂, κ = 2υ = 0.2, 8 heads, at least 20 key channels in a head.
`relative: false` leaves out S_H and S_W (section 4.4).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search.attention.widths import augmented_widths
from search.sites import ConvGeometry


class AttentionAugmentedConv(nn.Module):
    """N × C₁ × H × W → N × C₂ × H′ × W′, the shape that the replaced convolution gives.

    size: height and width of the input, which fix the relative positions.
    """

    def __init__(
        self,
        conv: ConvGeometry,
        size: tuple[int, int],
        key_ratio: float = 0.2,
        value_ratio: float = 0.1,
        heads: int = 8,
        min_key: int = 20,
        relative: bool = True,
    ) -> None:
        super().__init__()
        keys, values = augmented_widths(conv.out_channels, key_ratio, value_ratio, heads, min_key)
        self.heads, self.keys, self.values = heads, keys, values
        self.conv = nn.Conv2d(
            conv.in_channels,
            conv.out_channels - values,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
            conv.bias,
        )
        self.qkv = nn.Conv2d(conv.in_channels, 2 * keys + values, 1, conv.stride, bias=conv.bias)
        self.out = nn.Conv2d(values, values, 1, bias=conv.bias)
        height, width = (-(-side // conv.stride) for side in size)
        head = keys // heads
        self.rows = nn.Parameter(torch.randn(2 * height - 1, head) * head**-0.5) if relative else None
        self.columns = nn.Parameter(torch.randn(2 * width - 1, head) * head**-0.5) if relative else None

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.conv(x), self._attention(x)), 1)

    def _attention(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x)
        n, _, h, w = qkv.shape
        q, k, v = (  # N × heads × L × d
            part.reshape(n, self.heads, -1, h * w).transpose(2, 3)
            for part in qkv.split((self.keys, self.keys, self.values), 1)
        )
        q = q * (self.keys // self.heads) ** -0.5
        logits = torch.matmul(q, k.transpose(2, 3))
        if self.rows is not None and self.columns is not None:
            logits = logits + self._relative(q.unflatten(2, (h, w)), self.rows, self.columns)
        attended = torch.matmul(logits.softmax(-1), v)
        y: Tensor = self.out(attended.transpose(2, 3).reshape(n, -1, h, w))
        return y

    def _relative(self, q: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """S_H + S_W: N × heads × L × L from q: N × heads × H × W × d."""
        h, w = q.shape[2:4]
        vertical = torch.einsum("nhyxd,yzd->nhyxz", q, _table(rows, h))[..., :, None]
        horizontal = torch.einsum("nhyxd,xzd->nhyxz", q, _table(columns, w))[..., None, :]
        return (vertical + horizontal).flatten(4).flatten(2, 3)


def _table(embeddings: Tensor, side: int) -> Tensor:
    """side × side × d: at [i, j] the embedding of the offset j − i. embeddings: (2 · side − 1) × d."""
    if embeddings.shape[0] != 2 * side - 1:
        raise ValueError(f"relative positions were built for {(embeddings.shape[0] + 1) // 2} pixels, not for {side}")
    index = torch.arange(side, device=embeddings.device)
    return F.embedding(index[None, :] - index[:, None] + side - 1, embeddings)
