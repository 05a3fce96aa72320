"""AW-convolution with one map for all input channels, tap by tap: weights are shared by the whole batch.

    out[n, p] = Σ_t S[n, p, t] · shift_t(Y_t)[n, p],   Y_t = K_t x[n]      (t: taps of the kernel, K_t: C₂ × C₁)

Every Y_t comes from one matrix product per chunk of samples, the shifts are views, and no weights are scaled.
A stride splits x into phases, x[:, i::stride, j::stride]; each tap reads exactly one of them, so nothing is
computed that is not used. Worth it where there are few positions per channel (see `aw_conv.prefers_taps`).

Letters in names: n samples, h w positions, t taps, c input channels, p output channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from search.attention.aw_geometry import Geometry, Phase, phases

CHUNK_BYTES = {"cpu": 2 << 20}
"""Bytes of Y worked on at once, or as many as the weights have. On a CPU they stay in the cache."""
CHUNK_BYTES_ACCELERATOR = 256 << 20


@dataclass(frozen=True)
class Part:
    """One phase of a batch.

    x_nhwc: its positions. k_tp_c: the weights of its taps, (taps · C₂) × C₁. taps: their indices in the kernel.
    y_nhwtp: the products of all samples (kept), or room for those of one chunk.
    """

    phase: Phase
    taps: list[int]
    x_nhwc: Tensor
    k_tp_c: Tensor
    y_nhwtp: Tensor
    kept: bool

    def chunks(self) -> Iterator[slice]:
        """Samples to be taken together."""
        n, sample = len(self.x_nhwc), self.phase.positions * len(self.k_tp_c) * self.x_nhwc.element_size()
        weights = self.k_tp_c.numel() * self.k_tp_c.element_size()
        limit = max(weights, CHUNK_BYTES.get(self.x_nhwc.device.type, CHUNK_BYTES_ACCELERATOR))
        m = max(1, limit // sample)
        for start in range(0, n, m):
            yield slice(start, min(n, start + m))

    def multiply(self, at: slice) -> Tensor:
        """Y of a chunk, computed."""
        y = self.y_nhwtp[at] if self.kept else self.y_nhwtp[: at.stop - at.start]
        torch.mm(self.x_nhwc[at].flatten(0, 2), self.k_tp_c.t(), out=y.view(-1, len(self.k_tp_c)))
        return y


def forward(x: Tensor, weight: Tensor, scale: Tensor, geometry: Geometry, kept: Tensor | None) -> Tensor:
    """x: N × C₁ × H × W, weight: C₂ × C₁ × h × w, scale: N × C₂ × h × w → N × H' × W' × C₂.

    kept: N · `products_size` numbers that receive Y for the backward pass, or None to drop it.
    """
    n, _, height, width = x.shape
    c2, _, *kernel = weight.shape
    s_ntp = _taps_first(scale)
    size = [geometry.size(length, taps) for length, taps in zip((height, width), kernel, strict=True)]
    out = torch.zeros(n, *size, c2, dtype=_accumulator(x.dtype), device=x.device)
    for part in _parts(x, weight, geometry, kept):
        rows, columns = part.phase
        shifts = [(i, j) for i in rows.shifts for j in columns.shifts]
        for at in part.chunks():
            y = part.multiply(at)
            for place, (tap, (i, j)) in enumerate(zip(part.taps, shifts, strict=True)):
                read = y[:, rows.source(i), columns.source(j), place]
                out[at, rows.target(i), columns.target(j)].addcmul_(read, s_ntp[at, None, None, tap])
    return out.to(x.dtype)


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, scale: Tensor, geometry: Geometry, kept: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x (N × H × W × C₁), weight and scale (both in their own shape).

    kept: what `forward` put there; Y is computed again without it.
    """
    n, c1, height, width = x.shape
    c2, _, *kernel = weight.shape
    g_nhwp, s_ntp = grad.permute(0, 2, 3, 1).contiguous(), _taps_first(scale)
    dx_nhwc = x.new_zeros(n, height, width, c1)
    dk_tpc = torch.zeros(kernel[0] * kernel[1], c2, c1, dtype=_accumulator(x.dtype), device=x.device)
    ds_ntp = torch.zeros_like(s_ntp)
    for part in _parts(x, weight, geometry, kept):
        rows, columns = part.phase
        g_nhwtp, s_ntp_part = _shifted(g_nhwp, part.phase), s_ntp[:, part.taps]
        dx_part, dk = torch.empty_like(part.x_nhwc), torch.zeros_like(part.k_tp_c, dtype=dk_tpc.dtype)
        room: Tensor | None = None
        for at in part.chunks():
            y = part.y_nhwtp[at] if part.kept else part.multiply(at)
            room = torch.empty_like(y) if room is None else room[: len(y)]
            torch.mul(g_nhwtp[at], y.view(g_nhwtp[at].shape), out=room.view(g_nhwtp[at].shape))
            ds_ntp[at, part.taps] = room.flatten(1, 2).sum(1, dtype=ds_ntp.dtype)
            s = s_ntp_part[at].view(len(y), 1, 1, len(rows.taps), len(columns.taps), c2)
            torch.mul(g_nhwtp[at], s, out=room.view(g_nhwtp[at].shape))
            d = room.view(-1, len(part.k_tp_c))
            torch.mm(d, part.k_tp_c, out=dx_part[at].view(-1, c1))
            _add_product(dk, d.t(), part.x_nhwc[at].flatten(0, 2))
        dx_nhwc[:, rows.start :: geometry.stride, columns.start :: geometry.stride] = dx_part
        dk_tpc[part.taps] = dk.view(-1, c2, c1)
    d_weight = dk_tpc.view(*kernel, c2, c1).permute(2, 3, 0, 1)
    return dx_nhwc, d_weight.to(weight.dtype), ds_ntp.transpose(1, 2).reshape(scale.shape)


def _parts(x: Tensor, weight: Tensor, geometry: Geometry, kept: Tensor | None) -> Iterator[Part]:
    n, _, height, width = x.shape
    c2, kernel = weight.shape[0], (weight.shape[2], weight.shape[3])
    x_nhwc, k_tpc = x.permute(0, 2, 3, 1), weight.flatten(2).permute(2, 0, 1)
    filled = 0
    for phase in phases(height, width, kernel, geometry):
        taps = phase.taps(kernel[1])
        x_part = x_nhwc[:, phase.rows.start :: geometry.stride, phase.columns.start :: geometry.stride].contiguous()
        k_part = k_tpc[taps].flatten(0, 1).to(x.dtype)
        shape = (phase.rows.length, phase.columns.length, len(taps), c2)
        part = Part(phase, taps, x_part, k_part, x.new_empty(0, *shape), kept is not None)
        if kept is None:
            samples = max(at.stop - at.start for at in part.chunks())
            y = x.new_empty(samples, *shape)
        else:
            y = kept[filled : filled + n * phase.positions * len(k_part)].view(n, *shape)
            filled += y.numel()
        yield Part(phase, taps, x_part, k_part, y, kept is not None)


def _shifted(g_nhwp: Tensor, phase: Phase) -> Tensor:
    """For every position of the phase and every tap, the output's gradient that it goes to, zero where there is none.

    N × H' × W' × C₂ → a view, N × rows × columns × vertical taps × horizontal taps × C₂.
    """
    rows, columns = phase
    padded = F.pad(g_nhwp, (0, 0, *columns.padding, *rows.padding))
    n_stride, row, column, _ = padded.stride()
    first = (rows.padding[0] - rows.shifts[0]) * row + (columns.padding[0] - columns.shifts[0]) * column
    return padded.as_strided(
        (len(padded), rows.length, columns.length, len(rows.taps), len(columns.taps), padded.shape[-1]),
        (n_stride, row, column, rows.step * row, columns.step * column, 1),
        first,
    )


def _taps_first(scale: Tensor) -> Tensor:
    """N × C₂ × h × w as N × taps × C₂, so that neighbours in memory are multiplied alike."""
    return scale.flatten(2).transpose(1, 2).contiguous()


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
