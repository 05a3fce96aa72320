"""AW-convolution with any map, a few samples at a time: each has its own weights K ⊙ S, made and dropped on the way.

A chunk of m samples is one grouped convolution with m times the groups. The weights' gradient G of a sample
serves twice: dS = Σ (G ⊙ K) over the weights that share a number of the map, dK = Σ over samples (S ⊙ G).
Worth it where the work of a convolution outweighs the handling of its weights: many positions, few channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from search.attention.aw_geometry import Geometry

CHUNK_BYTES = {"cpu": 128 << 10}
"""Bytes of weights made at once. Enough to hide the cost of calls, few enough to stay in a CPU's cache."""
CHUNK_BYTES_ACCELERATOR = 256 << 20


def forward(x: Tensor, weight: Tensor, scale: Tensor, geometry: Geometry) -> Tensor:
    """x: N × C₁ × H × W, weight: C₂ × C₁/g × h × w, scale: N × P × Q × a × b → N × C₂ × H' × W'.

    P, Q, a, b divide C₂, C₁/g, h, w: a number of the map serves a block of neighbouring weights.
    """
    n, m = x.shape[0], _samples(x, weight)
    layout = _layout(x, weight, m)
    weight = weight.contiguous(memory_format=layout)
    k, s = _split(weight, scale), _spread(scale)
    size = [geometry.size(length, kernel) for length, kernel in zip(x.shape[2:], weight.shape[2:], strict=True)]
    out = torch.empty((n, weight.shape[0], *size), dtype=x.dtype, device=x.device, memory_format=_format(x))
    for start in range(0, n, m):
        at = slice(start, min(n, start + m))
        own = _own_weights(k, s[at], weight, x.dtype)
        y = torch.ops.aten.convolution(_joined(x[at], layout), own, None, *_arguments(geometry, at))
        out[at] = y if m == 1 else y.view(-1, *out.shape[1:])
    return out


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, scale: Tensor, geometry: Geometry
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and scale, each in its shape."""
    n, m = x.shape[0], _samples(x, weight)
    layout = _layout(x, weight, m)
    weight = weight.contiguous(memory_format=layout)
    k, s = _split(weight, scale), _spread(scale)
    dx, dk, ds = torch.empty_like(x, memory_format=_format(x)), torch.zeros_like(weight), torch.empty_like(scale)
    dk_split = _split(dk, scale)
    for start in range(0, n, m):
        at = slice(start, min(n, start + m))
        own = _own_weights(k, s[at], weight, x.dtype)
        dx_part, g, _ = torch.ops.aten.convolution_backward(
            _joined(grad[at], layout), _joined(x[at], layout), own, None, *_arguments(geometry, at), [True, True, False]
        )
        dx[at] = dx_part if m == 1 else dx_part.view(-1, *x.shape[1:])
        if m == 1:
            g_split = _split(g, scale)[None]
            dk_split.addcmul_(g_split[0], s[start])
        else:
            g_split = g.view(-1, *k.shape)
            dk_split += (g_split * s[at]).sum(0)
        ds[at] = (g_split * k).sum((2, 4, 6, 8))
    return dx, dk, ds


def _samples(x: Tensor, weight: Tensor) -> int:
    """Samples in a chunk."""
    limit = CHUNK_BYTES.get(x.device.type, CHUNK_BYTES_ACCELERATOR)
    return max(1, min(x.shape[0], limit // (weight.numel() * weight.element_size())))


def _layout(x: Tensor, weight: Tensor, samples: int) -> torch.memory_format:
    """Channels last gives the map's numbers runs of weights to multiply, but x may have to be turned for it."""
    if samples > 1:
        return torch.contiguous_format
    turned = _format(x) == torch.channels_last
    return torch.channels_last if turned or weight.numel() > 2 * x[0].numel() else torch.contiguous_format


def _format(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _split(weight: Tensor, scale: Tensor) -> Tensor:
    """A view of C₂ × C₁/g × h × w as P × C₂/P × Q × (C₁/g)/Q × a × h/a × b × w/b."""
    parts = zip(weight.shape, scale.shape[1:], strict=True)
    return weight.view([size for full, shared in parts for size in (shared, full // shared)])


def _spread(scale: Tensor) -> Tensor:
    """N × P × Q × a × b as N × P × 1 × Q × 1 × a × 1 × b × 1, to be broadcast over split weights."""
    return scale[:, :, None, :, None, :, None, :, None]


def _own_weights(k: Tensor, s: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weights of every sample of a chunk, (m · C₂) × C₁/g × h × w."""
    if s.shape[0] == 1:
        return (k * s[0]).view(weight.shape).to(dtype)
    return (k * s).view(-1, *weight.shape[1:]).to(dtype)


def _joined(x: Tensor, layout: torch.memory_format) -> Tensor:
    """m × C × H × W as 1 × mC × H × W. Turned here and not for the whole batch, so that it stays in the cache."""
    x = x.contiguous(memory_format=layout)
    return x if x.shape[0] == 1 else x.view(1, -1, *x.shape[2:])


def _arguments(geometry: Geometry, at: slice) -> tuple[list[int], list[int], list[int], bool, list[int], int]:
    """What follows the bias in aten's convolution, for a chunk."""
    g = geometry
    return [g.stride] * 2, [g.padding] * 2, [g.dilation] * 2, False, [0, 0], g.groups * (at.stop - at.start)
