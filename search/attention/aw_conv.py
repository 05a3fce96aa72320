"""Convolution with weights K ⊙ S that every sample has for itself, as an operator of torch.

`aw_conv` takes the faster of two exact forms (`aw_taps`, `aw_samples`); neither keeps the N × C₂ × C₁ × h × w weights.
It is an operator (attune::aw_conv) so that compilers, exporters and cost counters see one node.
Second derivatives are not defined.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

from search.attention import aw_samples, aw_taps
from search.attention.aw_geometry import Geometry, products_size

KEEP_RATIO = 0.5
"""Positions per input channel up to which the products of the taps are kept for the backward pass.

They are 9 times the output: less than the weights' own traffic where positions are few, and a third of
the time to make again.
"""


def aw_conv(x: Tensor, weight: Tensor, scale: Tensor, geometry: Geometry) -> Tensor:
    """N × C₁ × H × W → N × C₂ × H' × W', sample n convolved with weight ⊙ expand(scale[n]).

    weight: C₂ × C₁/groups × h × w. scale: N × P × Q × a × b, where P, Q, a, b divide C₂, C₁/groups, h, w and every
    number serves a block of neighbouring weights.
    The output has x's type and memory format; weight and scale may be of a higher precision.
    """
    keep = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad or scale.requires_grad)
    out: Tensor = _aw_conv(x, weight, scale, *geometry, keep)[0]
    return out


def prefers_taps(x: Tensor, weight: Tensor, scale: Tensor, geometry: Geometry) -> bool:
    """Whether tap by tap is the faster form.

    The rule says that against a plain convolution one sample at a time costs 1 + 70 / positions (its weights are
    handled for every sample) and tap by tap 1.2 + 45 / C₁ (its products pass through the cache). These are round
    numbers and no fit of record: on the six shapes of `benchmarks/aw_conv.py` (float32, 32 samples, one thread of a
    shared x86 CPU) what was measured is up to 0.5 away, but the form that it picks is the faster on all six, by 0.45
    of a plain convolution or more. Other shapes and machines were not measured. On an accelerator small convolutions
    leave most of it idle, so taps are taken wherever they can be: reasoned, never measured.
    """
    if geometry.groups > 1 or scale.shape[2] > 1:
        return False
    if x.device.type not in ("cpu", "meta"):
        return True
    height, width = _output_size(x, weight, geometry)
    return 70 / (height * width) > 0.2 + 45 / x.shape[1]


def _kept_size(x: Tensor, weight: Tensor, scale: Tensor, geometry: Geometry, keep: bool) -> int:
    """Numbers kept per sample for the backward pass: the products of the taps where they are few beside the weights."""
    if not keep or not prefers_taps(x, weight, scale, geometry):
        return 0
    height, width = _output_size(x, weight, geometry)
    return products_size(x.shape[2], x.shape[3], weight, geometry) if height * width <= KEEP_RATIO * x.shape[1] else 0


def _output_size(x: Tensor, weight: Tensor, geometry: Geometry) -> tuple[int, int]:
    return geometry.size(x.shape[2], weight.shape[2]), geometry.size(x.shape[3], weight.shape[3])


def _like(x: Tensor, y: Tensor) -> Tensor:
    """y in the memory format of x: channels last only where x is that and nothing else."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return y.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def _full_map(weight: Tensor, scale: Tensor) -> Tensor:
    """N × P × 1 × a × b as N × C₂ × h × w."""
    full = scale.flatten(1, 2)
    for dim, (size, whole) in enumerate(zip(full.shape[1:], (weight.shape[0], *weight.shape[2:]), strict=True), 1):
        full = full if size == whole else full.repeat_interleave(whole // size, dim)
    return full


@torch.library.custom_op("attune::aw_conv", mutates_args=())
def _aw_conv(
    x: Tensor, weight: Tensor, scale: Tensor, stride: int, padding: int, dilation: int, groups: int, keep: bool
) -> tuple[Tensor, Tensor]:
    geometry = Geometry(stride, padding, dilation, groups)
    kept = x.new_empty(x.shape[0] * _kept_size(x, weight, scale, geometry, keep))
    if prefers_taps(x, weight, scale, geometry):
        full = _full_map(weight, scale)
        out = aw_taps.forward(x, weight, full, geometry, kept if len(kept) else None).permute(0, 3, 1, 2)
    else:
        out = aw_samples.forward(x, weight, scale, geometry)
    return _like(x, out), kept


@_aw_conv.register_fake
def _(
    x: Tensor, weight: Tensor, scale: Tensor, stride: int, padding: int, dilation: int, groups: int, keep: bool
) -> tuple[Tensor, Tensor]:
    geometry = Geometry(stride, padding, dilation, groups)
    out = x.new_empty(x.shape[0], weight.shape[0], *_output_size(x, weight, geometry))
    return _like(x, out), x.new_empty(x.shape[0] * _kept_size(x, weight, scale, geometry, keep))


@torch.library.custom_op("attune::aw_conv_backward", mutates_args=())
def _aw_conv_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    kept: Tensor,
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
) -> tuple[Tensor, Tensor, Tensor]:
    geometry = Geometry(stride, padding, dilation, groups)
    if prefers_taps(x, weight, scale, geometry):
        full = _full_map(weight, scale)
        dx, dk, ds = aw_taps.backward(grad, x, weight, full, geometry, kept if len(kept) else None)
        dx, ds = dx.permute(0, 3, 1, 2), _shared_sum(ds, scale)
    else:
        dx, dk, ds = aw_samples.backward(grad, x, weight, scale, geometry)
    return _like(x, dx), dk.contiguous(), ds.contiguous()


@_aw_conv_backward.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    kept: Tensor,
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
) -> tuple[Tensor, Tensor, Tensor]:
    return _like(x, torch.empty_like(x)), weight.new_empty(weight.shape), scale.new_empty(scale.shape)


def _shared_sum(full: Tensor, scale: Tensor) -> Tensor:
    """N × C₂ × h × w summed over the blocks that share a number of the map, N × P × 1 × a × b."""
    n, p, _, a, b = scale.shape
    blocks = full.view(n, p, full.shape[1] // p, a, full.shape[2] // a, b, full.shape[3] // b)
    return blocks.sum((2, 4, 6)).view(scale.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, scale, *geometry, _ = inputs
    ctx.save_for_backward(x, weight, scale, output[1])
    ctx.geometry = geometry
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, _: None) -> tuple[Any, ...]:
    if grad is None:
        return (None,) * 8
    gradients = _aw_conv_backward(grad, *ctx.saved_tensors, *ctx.geometry)
    return (*gradients, *[None] * 5)


_aw_conv.register_autograd(_differentiate, setup_context=_save)


@register_flop_formula(torch.ops.attune.aw_conv)
def _count(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Multiply–adds as the papers count them, times two: those of the plain convolution."""
    return conv_flop_count(x, weight, out_shape[0])
