"""ResNet's names, options and geometry (He 2016, "Deep Residual Learning"; widened: Zagoruyko 2016)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from search.backbones.geometry import Points, after, after_conv, conv_point, residual_points, stage_of
from search.backbones.registry import BACKBONES, BackboneInfo
from search.registry import Options
from search.sites import ConvGeometry, Shape, StageGeometry

Stem = Literal["imagenet", "cifar"]
Shortcut = Literal["projection", "parameter_free"]


class SmallOptions(Options):
    """Small-image ResNet (section 4.2)."""

    width: int = Field(16, ge=1, le=1024, description="Channels of stage 1; each stage doubles them.")
    shortcut: Shortcut = Field(
        "projection",
        description="Where the shape changes: a 1x1 convolution, or "
        "subsampling and zero channels (the paper's option A).",
    )


class BasicOptions(Options):
    """ResNet of two 3×3 convolutions a block (section 4.1)."""

    stem: Stem = Field("imagenet", description="7x7 of stride 2 and max pooling, or one 3x3 for small images.")
    width: int = Field(64, ge=1, le=1024, description="Channels of the stem and of stage 1, before widening.")
    widen: float = Field(1.0, gt=0, le=16, description="Multiplies the channels of every block, not the stem's.")


class BottleneckOptions(BasicOptions):
    """ResNet of 1×1, 3×3, 1×1 bottlenecks (section 4.1)."""

    stride_in_1x1: bool = Field(
        False,
        description="Stride in the first 1x1, as in the paper and its successors' "
        "cost; otherwise in the 3x3, as torchvision does.",
    )


@dataclass(frozen=True)
class StagePlan:
    """blocks: how many. inner: channels of the spatial convolutions. outputs: channels of the blocks.
    stride: of the first block."""

    blocks: int
    inner: int
    outputs: int
    stride: int


@dataclass(frozen=True)
class ResNetPlan:
    """All that a ResNet or ResNeXt is made of."""

    stages: tuple[StagePlan, ...]
    stem_channels: int
    bottleneck: bool
    stem: Stem = "imagenet"
    groups: int = 1
    stride_in_1x1: bool = False
    shortcut: Shortcut = "projection"


def block_convs(plan: ResNetPlan, inputs: int, inner: int, outputs: int, stride: int) -> tuple[ConvGeometry, ...]:
    """The convolutions of one block's residual branch, in order; the network is built from the same list."""
    if not plan.bottleneck:
        return (ConvGeometry(inputs, outputs, 3, stride, 1), ConvGeometry(outputs, outputs, 3, 1, 1))
    in_1x1, in_3x3 = (stride, 1) if plan.stride_in_1x1 else (1, stride)
    return (
        ConvGeometry(inputs, inner, 1, in_1x1),
        ConvGeometry(inner, inner, 3, in_3x3, 1, groups=plan.groups),
        ConvGeometry(inner, outputs, 1),
    )


def stem_shape(plan: ResNetPlan, image: Shape) -> Shape:
    """The shape that enters stage 1."""
    if plan.stem == "cifar":
        return after(image, plan.stem_channels, 3, 1, 1)
    return after(after(image, plan.stem_channels, 7, 2, 3), plan.stem_channels, 3, 2, 1)


def block_points(shape: Shape, convs: tuple[ConvGeometry, ...]) -> tuple[Points, Shape]:
    """The points of one block whose input is `shape`, and the shape of its output."""
    inputs, spatial = shape, []
    for conv in convs:
        if conv.kernel_size > 1:
            spatial.append(conv_point(shape, conv))
        shape = after_conv(shape, conv)
    return residual_points(inputs, shape, spatial), shape


def resnet_geometry(plan: ResNetPlan, image: Shape) -> tuple[StageGeometry, ...]:
    """The stages of a ResNet on an image of C × H × W."""
    shape, stages = stem_shape(plan, image), []
    for number, stage in enumerate(plan.stages, start=1):
        blocks = []
        for index in range(stage.blocks):
            stride = stage.stride if index == 0 else 1
            points, shape = block_points(shape, block_convs(plan, shape[0], stage.inner, stage.outputs, stride))
            blocks.append(points)
        stages.append(stage_of(number, blocks, shape))
    return tuple(stages)


def imagenet_plan(
    blocks: tuple[int, ...], options: BasicOptions, bottleneck: bool, groups: int = 1, group_width: int = 64
) -> ResNetPlan:
    """Four stages; group_width as in torchvision: channels of a group of the 3×3 in stage 1 at width 64."""
    width = max(1, round(options.width * options.widen))
    stages = []
    for index, count in enumerate(blocks):
        planes = width * 2**index
        inner = planes * group_width // 64 * groups if bottleneck else planes
        outputs = planes * 4 if bottleneck else planes
        stages.append(StagePlan(count, inner, outputs, 1 if index == 0 else 2))
    in_1x1 = options.stride_in_1x1 if isinstance(options, BottleneckOptions) else False
    return ResNetPlan(tuple(stages), options.width, bottleneck, options.stem, groups, in_1x1)


def small_plan(blocks: int, options: SmallOptions) -> ResNetPlan:
    """Three stages of `blocks` basic blocks: 6 · blocks + 2 layers."""
    widths = [options.width * 2**index for index in range(3)]
    stages = tuple(StagePlan(blocks, width, width, 1 if i == 0 else 2) for i, width in enumerate(widths))
    return ResNetPlan(stages, options.width, bottleneck=False, stem="cifar", shortcut=options.shortcut)


def add(
    name: str,
    title: str,
    source: str,
    options: type[Options],
    plan: Callable[[Any], ResNetPlan],
    pretrained_as: str | None = None,
) -> None:
    """Registers one name of the family."""

    def geometry(values: Any, image: Shape) -> tuple[StageGeometry, ...]:
        return resnet_geometry(plan(values), image)

    BACKBONES.add(
        BackboneInfo(name, title, source, options, geometry, "search.backbones.resnet:ResNet", plan, pretrained_as)
    )


def add_small(depth: int) -> None:
    add(
        f"resnet{depth}",
        f"ResNet-{depth} for small images",
        "He 2016, Deep Residual Learning, section 4.2",
        SmallOptions,
        lambda options: small_plan((depth - 2) // 6, options),
    )


def add_imagenet(depth: int, blocks: tuple[int, ...], bottleneck: bool) -> None:
    add(
        f"resnet{depth}",
        f"ResNet-{depth}",
        "He 2016, Deep Residual Learning, section 4.1",
        BottleneckOptions if bottleneck else BasicOptions,
        lambda options: imagenet_plan(blocks, options, bottleneck),
        f"resnet{depth}",
    )


for small in (8, 14, 20, 32, 44, 56, 110):
    add_small(small)
add_imagenet(18, (2, 2, 2, 2), bottleneck=False)
add_imagenet(34, (3, 4, 6, 3), bottleneck=False)
add_imagenet(50, (3, 4, 6, 3), bottleneck=True)
add_imagenet(101, (3, 4, 23, 3), bottleneck=True)
add_imagenet(152, (3, 8, 36, 3), bottleneck=True)
