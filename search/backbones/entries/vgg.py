"""VGG16 with BatchNorm: name, options and geometry (Simonyan 2015, arXiv 1409.1556).

A block is one convolution with its BatchNorm and ReLU; a stage ends at its pooling.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from search.backbones.geometry import Points, after, after_conv, conv_point, stage_of
from search.backbones.registry import BACKBONES, BackboneInfo
from search.registry import Options
from search.sites import ConvGeometry, Point, Shape, StageGeometry

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGGOptions(Options):
    """VGG16 with BatchNorm."""

    head: Literal["vgg", "linear"] = Field(
        "vgg",
        description="Two hidden layers of 4096 on a 7x7 map, or one linear "
        "layer on the mean of the map (usual for small images).",
    )
    dropout: float = Field(0.5, ge=0, lt=1, description="Dropout between the layers of the vgg head.")


def unit(inputs: int, outputs: int) -> ConvGeometry:
    """The one convolution of a block; biased, as torchvision's."""
    return ConvGeometry(inputs, outputs, 3, 1, 1, bias=True)


def vgg_geometry(options: VGGOptions, image: Shape) -> tuple[StageGeometry, ...]:
    """`residual` is after the non-linearity; `stage_end` before the pooling, as BAM's bottlenecks are."""
    shape, stages = image, []
    for number, widths in enumerate(STAGES, start=1):
        blocks: list[Points] = []
        for width in widths:
            conv = conv_point(shape, unit(shape[0], width))
            shape = after_conv(shape, unit(shape[0], width))
            blocks.append({"residual": (Point(*shape),), "conv": (conv,)})
        stages.append(stage_of(number, blocks, shape))
        shape = after(shape, shape[0], 2, 2, 0)
    return tuple(stages)


BACKBONES.add(
    BackboneInfo(
        "vgg16_bn",
        "VGG16 with BatchNorm",
        "Simonyan 2015, Very Deep Convolutional Networks (arXiv 1409.1556), table 1, D",
        VGGOptions,
        vgg_geometry,
        "search.backbones.vgg:VGG",
        pretrained_as="vgg16_bn",
    )
)
