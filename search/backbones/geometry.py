"""Shapes in closed form: what the families' geometries are made of (torch-free)."""

from __future__ import annotations

from collections.abc import Sequence

from search.errors import SpecError
from search.sites import BlockGeometry, ConvGeometry, Point, Position, Shape, StageGeometry

Points = dict[Position, tuple[Point, ...]]


def window(size: int, kernel: int, stride: int, padding: int) -> int:
    """Output length of a convolution or a pooling along one axis (may be 0 or less: the image is too small)."""
    return (size + 2 * padding - kernel) // stride + 1


def after(shape: Shape, channels: int, kernel: int, stride: int, padding: int) -> Shape:
    """The shape after a square convolution or pooling with `channels` outputs; SpecError if nothing is left."""
    _, height, width = shape
    result = (channels, window(height, kernel, stride, padding), window(width, kernel, stride, padding))
    if min(result) < 1:
        raise SpecError.one(
            "input_shape",
            f"Images of this size are too small: a map of {height} × {width} is left "
            f"for a {kernel} × {kernel} window of stride {stride}.",
        )
    return result


def after_conv(shape: Shape, conv: ConvGeometry) -> Shape:
    """The shape after `conv` (dilation 1)."""
    return after(shape, conv.out_channels, conv.kernel_size, conv.stride, conv.padding)


def conv_point(shape: Shape, conv: ConvGeometry) -> Point:
    """The point of a convolution that may be replaced; `shape` is its input."""
    return Point(*shape, conv=conv)


def residual_points(inputs: Shape, outputs: Shape, convs: Sequence[Point]) -> Points:
    """The positions of the SE paper (Hu 2018, section 6.4) around one residual block, and its convolutions."""
    out = (Point(*outputs),)
    return {"residual": out, "pre": (Point(*inputs),), "post": out, "identity": out, "conv": tuple(convs)}


def stage_of(number: int, blocks: Sequence[Points], outputs: Shape) -> StageGeometry:
    """A stage whose last block also offers `stage_end`, on the stage's output."""
    *others, last = blocks
    ends: Points = {**last, "stage_end": (Point(*outputs),)}
    return StageGeometry(number, tuple(BlockGeometry(points) for points in [*others, ends]))
