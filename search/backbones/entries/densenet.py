"""DenseNet-121: name, options and geometry (Huang 2017, arXiv 1608.06993). Stages are its dense blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import Field

from search.backbones.geometry import Points, after, after_conv, conv_point, stage_of
from search.backbones.registry import BACKBONES, BackboneInfo
from search.registry import Options
from search.sites import ConvGeometry, Point, Shape, StageGeometry

OLD_NAME = re.compile(r"(.*denselayer\d+\.(?:norm|conv))\.(\d\..*)")
LAYERS = (6, 12, 24, 16)
BOTTLENECK = 4
"""A layer's hidden channels, in growth rates (section 3, DenseNet-B)."""


class DenseNetOptions(Options):
    """DenseNet-121."""

    growth: int = Field(32, ge=1, le=256, description="Growth rate k: channels that each layer adds; the stem has 2k.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout after each layer.")


@dataclass(frozen=True)
class DenseNetPlan:
    """layers: of each dense block. growth: channels that a layer adds."""

    layers: tuple[int, ...]
    growth: int
    dropout: float

    def convs(self, channels: int) -> tuple[ConvGeometry, ConvGeometry]:
        """The two convolutions of a layer whose input has `channels`."""
        hidden = BOTTLENECK * self.growth
        return ConvGeometry(channels, hidden, 1), ConvGeometry(hidden, self.growth, 3, 1, 1)


def densenet_plan(options: DenseNetOptions) -> DenseNetPlan:
    return DenseNetPlan(LAYERS, options.growth, options.dropout)


def layer_points(plan: DenseNetPlan, shape: Shape) -> Points:
    """`residual` is a layer's output before it joins the others; `pre` all that it reads."""
    narrow, spatial = plan.convs(shape[0])
    middle = after_conv(shape, narrow)
    outputs = after_conv(middle, spatial)
    return {"residual": (Point(*outputs),), "pre": (Point(*shape),), "conv": (conv_point(middle, spatial),)}


def densenet_geometry(options: DenseNetOptions, image: Shape) -> tuple[StageGeometry, ...]:
    """`stage_end` is a dense block's whole output, before the transition."""
    plan = densenet_plan(options)
    shape = after(after(image, 2 * plan.growth, 7, 2, 3), 2 * plan.growth, 3, 2, 1)
    stages = []
    for number, count in enumerate(plan.layers, start=1):
        blocks = []
        for _ in range(count):
            blocks.append(layer_points(plan, shape))
            shape = (shape[0] + plan.growth, shape[1], shape[2])
        stages.append(stage_of(number, blocks, shape))
        if number < len(plan.layers):
            shape = after(shape, shape[0] // 2, 2, 2, 0)
    return tuple(stages)


def weight_name(name: str) -> str:
    """torchvision's files still write "norm.1" where the module says "norm1"."""
    return OLD_NAME.sub(r"\1\2", name)


BACKBONES.add(
    BackboneInfo(
        "densenet121",
        "DenseNet-121",
        "Huang 2017, Densely Connected Convolutional Networks (arXiv 1608.06993), table 1",
        DenseNetOptions,
        densenet_geometry,
        "search.backbones.densenet:DenseNet",
        densenet_plan,
        "densenet121",
        weight_name,
    )
)
