"""MobileNets: names, options and geometry (Howard 2017, arXiv 1704.04861; Sandler 2018, arXiv 1801.04381).

Stages change with the resolution. `conv` is every pointwise convolution of a block, as in AW-convolution's
MobileNet (Zhu 2021, table 1): the depthwise one has no input channels to attend to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from search.backbones.geometry import Points, after, after_conv, conv_point, stage_of
from search.backbones.registry import BACKBONES, BackboneInfo
from search.registry import Options
from search.sites import ConvGeometry, Point, Shape, StageGeometry


class MobileNetOptions(Options):
    """MobileNetV1."""

    width: float = Field(1.0, gt=0, le=8, description="Width multiplier of every layer (section 3.3).")


class MobileNetV2Options(Options):
    """MobileNetV2."""

    width: float = Field(1.0, gt=0, le=8, description="Width multiplier; channels are rounded to multiples of 8.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Dropout before the classifier.")


@dataclass(frozen=True)
class Separable:
    """A depthwise 3×3 and a pointwise convolution (V1). stride: of the depthwise."""

    inputs: int
    outputs: int
    stride: int

    @property
    def depthwise(self) -> ConvGeometry:
        return ConvGeometry(self.inputs, self.inputs, 3, self.stride, 1, groups=self.inputs)

    @property
    def pointwise(self) -> ConvGeometry:
        return ConvGeometry(self.inputs, self.outputs, 1)


@dataclass(frozen=True)
class Inverted:
    """An inverted residual (V2): expand 1×1 (None where the factor is 1), depthwise 3×3, project 1×1."""

    inputs: int
    hidden: int
    outputs: int
    stride: int

    @property
    def expand(self) -> ConvGeometry | None:
        return None if self.hidden == self.inputs else ConvGeometry(self.inputs, self.hidden, 1)

    @property
    def depthwise(self) -> ConvGeometry:
        return ConvGeometry(self.hidden, self.hidden, 3, self.stride, 1, groups=self.hidden)

    @property
    def project(self) -> ConvGeometry:
        return ConvGeometry(self.hidden, self.outputs, 1)

    @property
    def has_shortcut(self) -> bool:
        return self.stride == 1 and self.inputs == self.outputs


@dataclass(frozen=True)
class V1Plan:
    stem: int
    stages: tuple[tuple[Separable, ...], ...]


@dataclass(frozen=True)
class V2Plan:
    stem: int
    stages: tuple[tuple[Inverted, ...], ...]
    last: int
    dropout: float


V1_CHANNELS = ((64,), (128, 128), (256, 256), (512,) * 6, (1024, 1024))
V2_BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks, first stride (Sandler 2018, table 2)."""


def v1_plan(options: MobileNetOptions) -> V1Plan:
    stem = channels = max(1, round(32 * options.width))
    stages = []
    for number, widths in enumerate(V1_CHANNELS):
        blocks = []
        for index, width in enumerate(widths):
            outputs = max(1, round(width * options.width))
            blocks.append(Separable(channels, outputs, 2 if number > 0 and index == 0 else 1))
            channels = outputs
        stages.append(tuple(blocks))
    return V1Plan(stem, tuple(stages))


def rounded(channels: float) -> int:
    """To a multiple of 8, at least 8, and never down by more than a tenth (the authors' code)."""
    multiple = max(8, int(channels + 4) // 8 * 8)
    return multiple + 8 if multiple < 0.9 * channels else multiple


def v2_plan(options: MobileNetV2Options) -> V2Plan:
    stem = channels = rounded(32 * options.width)
    stages: list[list[Inverted]] = []
    for expansion, width, count, first_stride in V2_BLOCKS:
        outputs = rounded(width * options.width)
        if first_stride == 2 or not stages:
            stages.append([])
        for index in range(count):
            stages[-1].append(Inverted(channels, channels * expansion, outputs, first_stride if index == 0 else 1))
            channels = outputs
    return V2Plan(stem, tuple(map(tuple, stages)), rounded(1280 * max(1.0, options.width)), options.dropout)


def v1_points(block: Separable, shape: Shape) -> tuple[Points, Shape]:
    """`residual` holds two points: the outputs of the depthwise and of the pointwise convolution."""
    middle = after_conv(shape, block.depthwise)
    outputs = after_conv(middle, block.pointwise)
    return {"residual": (Point(*middle), Point(*outputs)), "conv": (conv_point(middle, block.pointwise),)}, outputs


def v2_points(block: Inverted, shape: Shape) -> tuple[Points, Shape]:
    """Blocks without a shortcut have no `identity`."""
    convs, inputs = [], shape
    if block.expand is not None:
        convs.append(conv_point(shape, block.expand))
        shape = after_conv(shape, block.expand)
    shape = after_conv(shape, block.depthwise)
    convs.append(conv_point(shape, block.project))
    outputs = after_conv(shape, block.project)
    out = (Point(*outputs),)
    points: Points = {"residual": out, "pre": (Point(*inputs),), "post": out, "conv": tuple(convs)}
    if block.has_shortcut:
        points["identity"] = out
    return points, outputs


def geometry_of(
    stem: int, stages: Sequence[Sequence[Any]], points_of: Callable[[Any, Shape], tuple[Points, Shape]], image: Shape
) -> tuple[StageGeometry, ...]:
    """Stages after a 3×3 stem of stride 2."""
    shape, found = after(image, stem, 3, 2, 1), []
    for number, blocks in enumerate(stages, start=1):
        gathered = []
        for block in blocks:
            points, shape = points_of(block, shape)
            gathered.append(points)
        found.append(stage_of(number, gathered, shape))
    return tuple(found)


def v1_geometry(options: MobileNetOptions, image: Shape) -> tuple[StageGeometry, ...]:
    plan = v1_plan(options)
    return geometry_of(plan.stem, plan.stages, v1_points, image)


def v2_geometry(options: MobileNetV2Options, image: Shape) -> tuple[StageGeometry, ...]:
    plan = v2_plan(options)
    return geometry_of(plan.stem, plan.stages, v2_points, image)


BACKBONES.add(
    BackboneInfo(
        "mobilenet_v1",
        "MobileNetV1",
        "Howard 2017, MobileNets (arXiv 1704.04861), section 3, table 1",
        MobileNetOptions,
        v1_geometry,
        "search.backbones.mobilenet:MobileNetV1",
        v1_plan,
    )
)
BACKBONES.add(
    BackboneInfo(
        "mobilenet_v2",
        "MobileNetV2",
        "Sandler 2018, MobileNetV2 (arXiv 1801.04381), section 4, table 2",
        MobileNetV2Options,
        v2_geometry,
        "search.backbones.mobilenet:MobileNetV2",
        v2_plan,
        "mobilenet_v2",
    )
)
