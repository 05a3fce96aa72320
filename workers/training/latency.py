"""How long a network takes for a batch on this device: eval mode, convolutions and batch norms fused, warmed up.

Others may train on the device meanwhile, so several bursts are timed and the least disturbed one counts.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

BURSTS = 5
RUNS = 20
"""Passes in a burst at least: the 95th percentile is the second slowest of them."""
BURST_SECONDS = 0.1
WARM_SECONDS = 0.2
WARM_RUNS = 5


@dataclass(frozen=True)
class Latency:
    """Of one forward pass, in ms."""

    median: float
    p95: float


def latency(network: nn.Module, images: Tensor, autocast: Callable[[], AbstractContextManager[object]]) -> Latency:
    """Median and 95th percentile over passes of `images` (N × C × H × W, as the network takes them, on its device).

    network: in eval mode, with what can be fused fused (see `fused`). autocast: what each pass runs under.
    """
    with torch.inference_mode(), autocast():
        one = _timer(network, images)
        started, runs = time.perf_counter(), 0
        while runs < WARM_RUNS or time.perf_counter() - started < WARM_SECONDS:
            one()
            runs += 1
        bursts = [_burst(one) for _ in range(BURSTS)]
    return min(bursts, key=lambda burst: burst.median)


def _burst(one: Callable[[], float]) -> Latency:
    started = time.perf_counter()
    passes: list[float] = []
    while len(passes) < RUNS or time.perf_counter() - started < BURST_SECONDS:
        passes.append(one())
    return Latency(statistics.median(passes), statistics.quantiles(passes, n=20, method="inclusive")[-1])


def _timer(network: nn.Module, images: Tensor) -> Callable[[], float]:
    """A function that does one pass and tells how long it took, in ms: from the call to the last result."""

    def on_processor() -> float:
        started = time.perf_counter()
        network(images)
        return (time.perf_counter() - started) * 1e3

    def on_gpu() -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(images.device)
        start.record()
        network(images)
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    return on_gpu if images.is_cuda else on_processor


def fused(network: nn.Module, images: Tensor) -> nn.Module:
    """A copy in eval mode in which batch norms are part of the convolutions before them, as exporters leave them.

    images: a batch to look at which norm takes whose output; a convolution whose output anything else takes too, or
    whose norm sees something else, stays as it is.
    """
    made = copy.deepcopy(network).eval()
    reference = _output(made, images)
    pairs = _pairs(made, images)
    if not _fuse(made, pairs, images, reference):  # another path takes the output of one of them: find out which
        for pair in pairs:
            _fuse(made, [pair], images, reference)
    return made


def _fuse(network: nn.Module, pairs: Sequence[tuple[str, str]], images: Tensor, reference: Tensor) -> bool:
    """Fuses all of `pairs`, or none of them if the network's output is another one then; whether it has."""
    before = [(network.get_submodule(convolution), network.get_submodule(norm)) for convolution, norm in pairs]
    for (convolution, norm), (own, its_norm) in zip(pairs, before, strict=True):
        assert isinstance(own, nn.Conv2d)
        assert isinstance(its_norm, nn.BatchNorm2d)
        _put(network, convolution, fuse_conv_bn_eval(own, its_norm))
        _put(network, norm, nn.Identity())
    if torch.allclose(_output(network, images), reference, rtol=1e-3, atol=1e-3 * float(reference.abs().max())):
        return True
    for (convolution, norm), (own, its_norm) in zip(pairs, before, strict=True):
        _put(network, convolution, own)
        _put(network, norm, its_norm)
    return False


@torch.inference_mode()
def _output(network: nn.Module, images: Tensor) -> Tensor:
    found: Tensor = network(images)
    return found.float()


def _pairs(network: nn.Module, images: Tensor) -> list[tuple[str, str]]:
    """Names of convolutions and of the batch norms that are called once, right on the convolution's output."""
    made_by: dict[int, str] = {}
    alive: list[Tensor] = []  # so that no later tensor gets the id of an earlier one
    calls: dict[str, list[str | None]] = {}

    def see_convolution(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            alive.append(output)
            made_by[id(output)] = name

        return hook

    def see_norm(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            calls.setdefault(name, []).append(made_by.get(id(inputs[0])))

        return hook

    with _hooks() as handles:
        for name, module in network.named_modules():
            if type(module) is nn.Conv2d:
                handles.append(module.register_forward_hook(see_convolution(name)))
            elif type(module) is nn.BatchNorm2d:
                handles.append(module.register_forward_pre_hook(see_norm(name)))
        _output(network, images)
    found = [(called[0], norm) for norm, called in calls.items() if len(called) == 1 and called[0] is not None]
    sources = [convolution for convolution, _ in found]
    return [(convolution, norm) for convolution, norm in found if sources.count(convolution) == 1]


@contextmanager
def _hooks() -> Iterator[list[torch.utils.hooks.RemovableHandle]]:
    handles: list[torch.utils.hooks.RemovableHandle] = []
    try:
        yield handles
    finally:
        for handle in handles:
            handle.remove()


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, module)
