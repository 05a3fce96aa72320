"""AW-convolution against a plain 3×3 convolution: time and peak memory of forward + backward, the whole module.

    python benchmarks/aw_conv.py [--samples 32] [--rounds 15] [--shapes 64x28 512x7] [--channels-last] [--naive]

One thread; seconds are those of the processor (user and system), so that time in which other processes run does not
count. Rounds are interleaved and medians are compared. The limits: at most
1.7 times the plain convolution's time, and at most 5 times its memory or 64 MiB, whichever is more. Memory is what
the resident set grows by at its peak (Linux), each measured in a process of its own: output, gradients, what
autograd keeps and every library's scratch. --naive adds the usual per-sample grouped convolution.
Exits with 1 if a shape is over a limit.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from search.attention.aw import AWConv2d
from search.attention.aw_plain import expand
from search.sites import ConvGeometry

SHAPES = ("64x28", "128x28", "128x14", "256x14", "256x7", "512x7")
TIME_LIMIT, MEMORY_LIMIT, MEMORY_FLOOR = 1.7, 5.0, 64.0
MIB = 2**20


class Naive(AWConv2d):
    """All samples' weights at once, as one grouped convolution with N groups."""

    def forward(self, x: Tensor) -> Tensor:
        scale = expand(self.scale(x), self.weight)
        own = (self.weight * scale).flatten(0, 1)
        out = nn.functional.conv2d(x.reshape(1, -1, *x.shape[2:]), own, None, 1, 1, groups=len(x))
        return out.view(x.shape)


def make(kind: str, channels: int) -> nn.Module:
    conv = ConvGeometry(channels, channels, 3, padding=1)
    match kind:
        case "plain":
            return nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        case "aw":
            return AWConv2d(conv)
        case "naive":
            return Naive(conv)
    raise ValueError(f"no such variant: {kind}")


def prepare(kind: str, shape: str, samples: int, channels_last: bool) -> Callable[[], None]:
    """One forward and backward pass, gradients made anew."""
    channels, side = map(int, shape.split("x"))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    torch.manual_seed(0)
    module = make(kind, channels)
    x = torch.randn(samples, channels, side, side).contiguous(memory_format=layout).requires_grad_()
    upstream = torch.randn(x.shape).contiguous(memory_format=layout)

    def step() -> None:
        module.zero_grad()
        x.grad = None
        module(x).backward(upstream)

    return step


def resident(field: str) -> float:
    """VmRSS or VmHWM of this process, MiB."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, f"{field} is not in /proc/self/status"
    return int(found.group(1)) / 1024


def measure_memory(kind: str, shape: str, samples: int, channels_last: bool) -> float:
    """Peak growth of this process over one pass, MiB, after a small pass that loads the libraries."""
    prepare(kind, "32x8", 2, channels_last)()
    step = prepare(kind, shape, samples, channels_last)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    step()
    return resident("VmHWM") - before


def memory_apart(kind: str, shape: str, arguments: argparse.Namespace) -> float:
    """`measure_memory` in a fresh process whose freed memory goes back to the system at once."""
    command = [sys.executable, __file__, "--memory-of", kind, "--shapes", shape, "--samples", str(arguments.samples)]
    command += ["--channels-last"] if arguments.channels_last else []
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=300)
    return float(done.stdout)


def measure_times(kinds: list[str], shape: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Median processor milliseconds of each variant, rounds interleaved."""
    steps = {kind: prepare(kind, shape, arguments.samples, arguments.channels_last) for kind in kinds}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for step in steps.values():
        step()
    for _ in range(arguments.rounds):
        for kind, step in steps.items():
            start = time.process_time()
            step()
            times[kind].append((time.process_time() - start) * 1e3)
    return {kind: statistics.median(taken) for kind, taken in times.items()}


def report(arguments: argparse.Namespace) -> bool:
    """Prints a row per shape and variant; True if AW-convolution is within both limits everywhere."""
    kinds = ["plain", "aw", *(["naive"] if arguments.naive else [])]
    print(f"{'C x H':>8} {'variant':>8} {'ms':>8} {'ratio':>6} {'MiB':>7} {'limit':>7}  verdict")
    good = True
    for shape in arguments.shapes:
        times = measure_times(kinds, shape, arguments)
        memory = {kind: memory_apart(kind, shape, arguments) for kind in kinds}
        allowed = max(MEMORY_LIMIT * memory["plain"], MEMORY_FLOOR)
        for kind in kinds:
            ratio = times[kind] / times["plain"]
            fits = ratio <= TIME_LIMIT and memory[kind] <= allowed
            good = good and (fits or kind != "aw")
            verdict = "" if kind == "plain" else "within" if fits else "over"
            row = f"{shape:>8} {kind:>8} {times[kind]:8.1f} {ratio:6.2f} {memory[kind]:7.1f} {allowed:7.1f}  {verdict}"
            print(row, flush=True)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description="AW-convolution against a plain 3x3 convolution, on one CPU thread.")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), metavar="CxH")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--naive", action="store_true", help="the per-sample grouped convolution beside it")
    parser.add_argument("--memory-of", choices=["plain", "aw", "naive"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory_of:
        print(measure_memory(arguments.memory_of, arguments.shapes[0], arguments.samples, arguments.channels_last))
        return 0
    return 0 if report(arguments) else 1


if __name__ == "__main__":
    sys.exit(main())
