"""Checks that an attention module does what its descriptor says; for the authors of new ones (needs torch)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from search import counting
from search.attention import ATTENTION, AttentionInfo
from search.registry import Options, parse_options
from search.sites import ConvGeometry, Point

SIZES = ((8, 8), (7, 5), (1, 1))


def verify(name: str, channels: int = 32, **options: Any) -> None:
    """Raises AssertionError with everything that is wrong with the module called `name` on `channels` channels.

    Checked at several sizes: shape, cost on the meta device, independence of a batch's samples in eval mode, gradients,
    state dict, identity at the start. SpecError for an unknown name and for options that are not valid or do not fit.
    """
    info = ATTENTION.get(name)
    chosen = parse_options(info.options, options)
    wrong: list[str] = []
    tried = 0
    for height, width in SIZES:
        point = Point(channels, height, width, ConvGeometry(channels, channels, 3, padding=1))
        problems = tuple(info.check(chosen, point))
        if not problems:
            tried += 1
            wrong += [f"{height} × {width}: {what}" for what in _faults(info, chosen, point)]
        elif height > 1:
            wrong += [f"{height} × {width}: {problem}" for problem in problems]
    if wrong or not tried:
        raise AssertionError(f"{name}: " + "; ".join(wrong))


def _faults(info: AttentionInfo, options: Options, point: Point) -> Iterator[str]:
    module: nn.Module = info.build(options, point).eval()
    x = torch.randn(3, *point.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = module(x)
    if y.shape != x.shape:
        yield f"its output has the shape {tuple(y.shape[1:])} and its input {point.shape}"
        return
    if info.starts_as_identity(options) != torch.equal(x, y):
        yield "it does not start as the identity" if info.identity_at_start else "it starts as the identity, unsaid"
    _open_gates(module)
    yield from _cost_faults(info, options, point, module)
    yield from _running_faults(module, x)
    twin: nn.Module = info.build(options, point).eval()
    twin.load_state_dict(module.state_dict())
    with torch.no_grad():
        if not torch.equal(twin(x), module(x)):
            yield "its state dict does not hold all of its state"
    if point.height > 1:
        yield from _gradient_faults(module, x)


def _cost_faults(info: AttentionInfo, options: Options, point: Point, module: nn.Module) -> Iterator[str]:
    meta = counting.on_meta(lambda: info.build(options, point))
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        module(torch.zeros(1, *point.shape))
    if counting.macs(meta, point.shape) * 2 != counter.get_total_flops():
        yield "it costs something else on the meta device"
    if counting.parameters(meta) != counting.parameters(module):
        yield "it has other parameters on the meta device"


def _running_faults(module: nn.Module, x: torch.Tensor) -> Iterator[str]:
    with torch.no_grad():
        y, again, alone = module(x), module(x), module(x[1:2])
    if not y.isfinite().all():
        yield "its output is not finite"
    if not torch.equal(y, again):
        yield "it is not deterministic in eval mode"
    if not torch.allclose(y[1:2], alone, rtol=1e-3, atol=1e-4):
        yield "a sample's output depends on the others of its batch"


def _gradient_faults(module: nn.Module, x: torch.Tensor) -> Iterator[str]:
    module(x.requires_grad_()).square().sum().backward()
    silent = [name for name, p in module.named_parameters() if p.grad is None]
    if silent:
        yield f"no gradient reaches {', '.join(silent)}"


def _open_gates(module: nn.Module) -> None:
    """Draws every parameter anew: behind a closed gate nothing would be seen."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
