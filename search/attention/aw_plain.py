"""AW-convolution in torch's own operators only, for exported programs: they run where attune is not installed."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from search.attention.aw_geometry import Geometry


def plain_aw_conv(x: Tensor, weight: Tensor, scale: Tensor, geometry: Geometry) -> Tensor:
    """What `aw_conv` computes, for any batch size; needs more memory and time.

    One map for all input channels: a convolution for each tap. Otherwise the weights of all samples are made,
    N × C₂ × C₁/g × h × w.
    """
    return _by_tap(x, weight, scale, geometry) if scale.shape[2] == 1 else _unfolded(x, weight, scale, geometry)


def expand(scale: Tensor, weight: Tensor) -> Tensor:
    """Equation 8 along every axis: N × P × Q × a × b as N × C₂ × C₁/g × h × w, except that Q = 1 stays."""
    for dim, size in enumerate(weight.shape, 1):
        if scale.shape[dim] != size and not (dim == 2 and scale.shape[dim] == 1):
            scale = scale.repeat_interleave(size // scale.shape[dim], dim)
    return scale


def _by_tap(x: Tensor, weight: Tensor, scale: Tensor, geometry: Geometry) -> Tensor:
    stride, padding, dilation, groups = geometry
    padded = F.pad(x, (padding,) * 4)
    height, width = (geometry.size(length, taps) for length, taps in zip(x.shape[2:], weight.shape[2:], strict=True))
    full = expand(scale, weight)
    total: Tensor | None = None
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            read = padded[:, :, i * dilation :: stride, j * dilation :: stride][:, :, :height, :width]
            part = F.conv2d(read, weight[:, :, i : i + 1, j : j + 1], groups=groups) * full[:, :, :, i, j, None]
            total = part if total is None else total + part
    assert total is not None, "a kernel has a tap"
    return total


def _unfolded(x: Tensor, weight: Tensor, scale: Tensor, geometry: Geometry) -> Tensor:
    stride, padding, dilation, groups = geometry
    height, width = (geometry.size(length, taps) for length, taps in zip(x.shape[2:], weight.shape[2:], strict=True))
    columns = F.unfold(x, (weight.shape[2], weight.shape[3]), dilation, padding, stride)
    columns = columns.reshape(x.shape[0], groups, -1, height * width)
    own = (weight * expand(scale, weight)).reshape(x.shape[0], groups, weight.shape[0] // groups, -1)
    out: Tensor = own.to(x.dtype) @ columns
    return out.reshape(x.shape[0], -1, height, width)
