"""AW-convolution: attention on the weights of a convolution instead of its activations.

Zhu, Hofstee, Lee, Al-Ars 2021, "An Attention Module for Convolutional Neural Networks" (ICANN 2021,
arXiv 2108.08205), section 3, equations 4 to 8:

    A = Expand(σ BN(W₂ ReLU(BN(W₁ AvgPool_{h×w}(x))))),    out[n] = conv(x[n], K + A[n] ⊙ K)

x: N × C₁ × H × W; K: C₂ × C₁/g × h × w; A[n] has K's shape. W₁: hidden × C₁ and
W₂: C₂ (C₁/g) / (r_C1 r_C2) × hidden are pointwise and without bias. With the defaults (one number for all input
channels of a filter) that adds C₁²/r + C₁C₂/r weights and the BatchNorms' 2 C₁/r + 2 C₂. `form="scale"` is
conv(x, A ⊙ K), the other F₂ of section 3.2.

In a grouped convolution a filter sees C₁/g channels, and r_C1 counts among those. The text's hidden width is C₁/r;
the parameters printed for MobileNet (Table 1: + 0.45 M) are those of C₂/r on all 13 pointwise convolutions, which is
`hidden="out"`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search.attention.aw_conv import aw_conv
from search.attention.aw_geometry import Geometry
from search.attention.aw_plain import plain_aw_conv
from search.attention.layers import per_channel
from search.sites import ConvGeometry


class AWConv2d(nn.Conv2d):
    """N × C₁ × H × W → N × C₂ × H' × W', in the place of the convolution `conv`, whose weights it can take over.

    reduction: r; the map's hidden layer has C₁/r channels, or C₂/r with hidden="out" (rounded down).
    r_c1, r_c2, r_hw: how many neighbouring input channels, output channels and taps (each way) share a number
        of the map. "C1" shares it among all input channels of a filter. They divide what they are of.
    """

    def __init__(
        self,
        conv: ConvGeometry,
        reduction: int = 16,
        r_c1: int | Literal["C1"] = "C1",
        r_c2: int = 1,
        r_hw: int = 1,
        form: Literal["residual", "scale"] = "residual",
        hidden: Literal["in", "out"] = "in",
    ) -> None:
        c = conv
        super().__init__(
            c.in_channels, c.out_channels, c.kernel_size, c.stride, c.padding, c.dilation, c.groups, c.bias
        )
        seen = c.in_channels // c.groups
        self.form = form
        self.map_shape = (c.out_channels // r_c2, 1 if r_c1 == "C1" else seen // r_c1, c.kernel_size // r_hw)
        self.geometry = Geometry(c.stride, c.padding, c.dilation, c.groups)
        width = (c.in_channels if hidden == "in" else c.out_channels) // reduction
        numbers = self.map_shape[0] * self.map_shape[1]
        self.squeeze = nn.Sequential(nn.Conv2d(c.in_channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.excite = nn.Sequential(nn.Conv2d(width, numbers, 1, bias=False), nn.BatchNorm2d(numbers), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        scale = self.scale(x)
        _, q, size = self.map_shape
        if q == size == 1:
            # One number for a whole filter: it may as well multiply what the filter gives.
            gate = per_channel(scale.flatten(1).repeat_interleave(self.out_channels // scale.shape[1], 1))
            out: Tensor = gate * self._conv_forward(x, self.weight, None)
        elif torch.compiler.is_exporting():
            out = plain_aw_conv(x, self.weight, scale, self.geometry)
        else:
            out = aw_conv(_autocast(x), self.weight, scale, self.geometry)
        return out if self.bias is None else out + self.bias.to(out.dtype)[:, None, None]

    def scale(self, x: Tensor) -> Tensor:
        """What the weights are multiplied by, 1 + A or A, before it is expanded: N × C₂/r_C2 × Q × h/r_hw × w/r_hw."""
        p, q, size = self.map_shape
        attention: Tensor = self.excite(self.squeeze(F.adaptive_avg_pool2d(x, size))).unflatten(1, (p, q))
        return 1 + attention if self.form == "residual" else attention


def _autocast(x: Tensor) -> Tensor:
    """x in the type that autocast gives to convolutions, where it is on: torch does so for its own operators only."""
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return x.to(torch.get_autocast_dtype(device))
    return x
