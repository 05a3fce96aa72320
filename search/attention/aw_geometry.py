"""How a convolution reads its input: which positions each tap of the kernel meets, and where they go."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import NamedTuple

from torch import Tensor


class Geometry(NamedTuple):
    """How a convolution steps over its input, the same in both directions, in pixels."""

    stride: int
    padding: int
    dilation: int
    groups: int

    def size(self, length: int, kernel: int) -> int:
        """Output length of `length` positions."""
        return (length + 2 * self.padding - self.dilation * (kernel - 1) - 1) // self.stride + 1


class Axis(NamedTuple):
    """The positions start::stride of one axis, and the taps that read them: out[i] += tap(x[start::stride][i + shift]).

    length: number of those positions. out: output length.
    taps, shifts: from the largest shift to the smallest, in equal steps.
    """

    start: int
    length: int
    out: int
    taps: tuple[int, ...]
    shifts: tuple[int, ...]

    def target(self, shift: int) -> slice:
        """The outputs that a tap of `shift` reaches."""
        return slice(max(0, -shift), min(self.out, self.length - shift))

    def source(self, shift: int) -> slice:
        """The positions that it reads for them."""
        return slice(max(0, shift), min(self.length, self.out + shift))

    @property
    def padding(self) -> tuple[int, int]:
        """Zeros to put before and after the outputs, so that every position finds one at each shift's distance."""
        return max(0, self.shifts[0]), max(0, self.length - self.shifts[-1] - self.out)

    @property
    def step(self) -> int:
        return self.shifts[0] - self.shifts[1] if len(self.shifts) > 1 else 1


class Phase(NamedTuple):
    """The positions that a stride splits off, along both axes."""

    rows: Axis
    columns: Axis

    @property
    def positions(self) -> int:
        return self.rows.length * self.columns.length

    def taps(self, kernel_width: int) -> list[int]:
        """Indices into the flattened kernel, in the order of the axes' taps."""
        return [a * kernel_width + b for a, b in product(self.rows.taps, self.columns.taps)]


def axes(length: int, kernel: int, geometry: Geometry) -> list[Axis]:
    """One axis for every phase of the stride that some tap reads; taps that meet only padding are left out."""
    out = geometry.size(length, kernel)
    found: dict[int, list[tuple[int, int]]] = {}
    for tap in reversed(range(kernel)):
        shift, start = divmod(tap * geometry.dilation - geometry.padding, geometry.stride)
        if max(0, -shift) < min(out, _held(length, start, geometry) - shift):
            found.setdefault(start, []).append((tap, shift))
    return [Axis(start, _held(length, start, geometry), out, *zip(*read, strict=True)) for start, read in found.items()]


def _held(length: int, start: int, geometry: Geometry) -> int:
    return -((start - length) // geometry.stride)


@cache
def phases(height: int, width: int, kernel: tuple[int, int], geometry: Geometry) -> tuple[Phase, ...]:
    """The phases of a convolution over height × width positions; one if the stride is 1."""
    return tuple(Phase(*pair) for pair in product(axes(height, kernel[0], geometry), axes(width, kernel[1], geometry)))


def products_size(height: int, width: int, weight: Tensor, geometry: Geometry) -> int:
    """Room for what all taps of `weight` (C₂ × … × h × w) make of the positions of one sample.

    In closed form, so that it holds for symbolic sizes; more than enough where a tap meets only padding or the
    stride does not divide the sizes.
    """
    c2, _, *kernel = weight.shape
    positions = ((height - 1) // geometry.stride + 1) * ((width - 1) // geometry.stride + 1)
    return c2 * kernel[0] * kernel[1] * positions
