"""Every attention module's time and memory: its backbone block with it against the block alone, and against timm's.

    python benchmarks/modules.py [--channels 128] [--size 14] [--batch 16] [--repeats 5] [--device cuda] [--json FILE]

One training step (forward and backward), float32, one CPU thread; medians of interleaved runs. The block is a ResNet
basic block (two 3×3 convolutions). Memory is what one image's forward pass keeps for the backward pass; on a GPU also
the peak of a step above what was allocated before. timm's column is our module's time over timm's, where timm has the
same one; both compute the same formula with as many parameters, which is checked.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from search import counting
from search.attention import ATTENTION, AttentionInfo
from search.backbones.resnet import Block
from search.sites import ConvGeometry, Point


@dataclass
class Row:
    """One module's figures. Times in ms; ratios of medians; memory in KiB an image, peak in MiB a batch."""

    module: str
    block_ms: float
    with_module_ms: float
    time_ratio: float
    block_kib: float
    with_module_kib: float
    memory_ratio: float
    peak_mib: float | None = None
    timm_time_ratio: float | None = None


def timm_modules(channels: int) -> dict[str, Callable[[], nn.Module]]:
    """timm's modules that compute what ours do with default options."""
    from timm.layers.cbam import CbamModule
    from timm.layers.eca import EcaModule
    from timm.layers.gather_excite import GatherExcite
    from timm.layers.global_context import GlobalContext
    from timm.layers.squeeze_excite import SEModule

    sixteenth: dict[str, Any] = {"rd_ratio": 1 / 16, "rd_divisor": 1}
    return {
        "se": lambda: SEModule(channels, **sixteenth),
        "cbam": lambda: CbamModule(channels, mlp_bias=True, **sixteenth),
        "eca": lambda: EcaModule(channels),
        "gather_excite": lambda: GatherExcite(channels, use_mlp=False),
        "gc": lambda: GlobalContext(channels, fuse_add=True, fuse_scale=False, **sixteenth),
    }


def block(point: Point, info: AttentionInfo | None = None) -> nn.Module:
    """A basic block, with the module in its own place."""
    assert point.conv is not None
    network: nn.Module = Block((point.conv, point.conv), None)
    if info is not None:
        slot = {"conv": "conv1", "residual": "residual"}.get(info.positions[0], "post")
        setattr(network, slot, info.build(info.options(), point))
    return network


def step(network: nn.Module, x: torch.Tensor, gradient: torch.Tensor) -> float:
    """Seconds of a forward and backward pass."""
    network.zero_grad(set_to_none=True)
    wait = torch.cuda.synchronize if x.is_cuda else (lambda: None)
    wait()
    start = time.perf_counter()
    network(x).backward(gradient)
    wait()
    return time.perf_counter() - start


def medians(networks: list[nn.Module], x: torch.Tensor, repeats: int) -> list[float]:
    """Median seconds of a step of each, run in turns after two to warm up."""
    gradient = torch.randn_like(x)
    times: list[list[float]] = [[] for _ in networks]
    for turn in range(repeats + 2):
        for network, taken in zip(networks, times, strict=True):
            seconds = step(network, x, gradient)
            if turn >= 2:
                taken.append(seconds)
    return [statistics.median(taken) for taken in times]


def peak_mib(network: nn.Module, x: torch.Tensor) -> float | None:
    """Peak of a step above what was allocated before it; None on a CPU."""
    if not x.is_cuda:
        return None
    network.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(network, x, torch.randn_like(x))
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def against_timm(info: AttentionInfo, point: Point, x: torch.Tensor, repeats: int) -> float | None:
    """Our time over timm's, or None where timm has not got the module."""
    make = timm_modules(point.channels).get(info.name)
    if make is None:
        return None
    ours: nn.Module = info.build(info.options(), point).to(x.device)
    theirs = make().to(x.device)
    if counting.parameters(ours) != counting.parameters(theirs):
        raise AssertionError(
            f"{info.name}: {counting.parameters(ours)} parameters, {counting.parameters(theirs)} in timm"
        )
    mine, other = medians([ours, theirs], x, 8 * repeats)  # short steps, so more of them
    return mine / other


def measure(info: AttentionInfo, point: Point, x: torch.Tensor, repeats: int) -> Row:
    """The row of one module."""
    plain, attended = block(point).to(x.device), block(point, info).to(x.device)
    base, taken = medians([plain, attended], x, repeats)
    kept = [
        counting.activation_bytes(counting.on_meta(make), point.shape) / 1024
        for make in (lambda: block(point), lambda: block(point, info))
    ]
    return Row(
        info.name,
        base * 1e3,
        taken * 1e3,
        taken / base,
        kept[0],
        kept[1],
        kept[1] / kept[0],
        peak_mib(attended, x),
        against_timm(info, point, x, repeats),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--size", type=int, default=14)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--modules", nargs="*", default=ATTENTION.names())
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    channels, size = arguments.channels, arguments.size
    point = Point(channels, size, size, ConvGeometry(channels, channels, 3, padding=1))
    x = torch.randn(arguments.batch, *point.shape, device=arguments.device, requires_grad=True)
    device = torch.cuda.get_device_name(x.device) if x.is_cuda else "1 CPU thread"
    print(f"{channels} × {size} × {size}, batch {arguments.batch}, float32, {device}, torch {torch.__version__}")
    print(f"{'module':20}{'block ms':>10}{'with ms':>10}{'time ×':>8}{'memory ×':>10}{'peak MiB':>10}{'ours/timm':>11}")
    rows = []
    for name in arguments.modules:
        info = ATTENTION.get(name)
        problems = [str(problem) for problem in info.check(info.options(), point)]
        if problems:
            print(f"{name:20} does not fit: {'; '.join(problems)}")
            continue
        row = measure(info, point, x, arguments.repeats)
        rows.append(row)
        peak = "" if row.peak_mib is None else f"{row.peak_mib:.1f}"
        timm = "" if row.timm_time_ratio is None else f"{row.timm_time_ratio:.2f}"
        print(
            f"{name:20}{row.block_ms:10.2f}{row.with_module_ms:10.2f}{row.time_ratio:8.2f}{row.memory_ratio:10.2f}"
            f"{peak:>10}{timm:>11}"
        )
        sys.stdout.flush()
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
