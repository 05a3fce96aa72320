"""Modules that weigh channels, some of them positions as well: SE, CBAM."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, model_validator

from search.attention.entries.options import ANYWHERE, OddKernel, at_most_channels, reduction, reset
from search.attention.registry import ATTENTION, AttentionInfo, check_reduction
from search.errors import Problem
from search.registry import Options
from search.sites import Point


class SEOptions(Options):
    """Options of squeeze-and-excitation."""

    reduction: int = reduction(16)


class CBAMOptions(Options):
    """Options of CBAM: the choices that its ablations compare (Woo 2018, tables 1 to 3)."""

    reduction: int = reduction(16)
    branches: Literal["both", "channel", "spatial"] = Field(
        default="both", description="Attend to channels, to positions, or to both. `channel` is `spatial: none`.")
    pool: Literal["both", "avg", "max"] = Field(
        default="both", description="What describes a channel: its mean, its maximum, or both through one shared MLP.")
    spatial: Literal["pooling", "conv1x1", "none"] = Field(
        default="pooling",
        description="What describes a position: maximum and mean over channels, or a learned 1×1 convolution to one channel.")
    kernel: OddKernel = Field(default=7, description="Size of the spatial convolution, in pixels; odd. The paper has 3 and 7.")
    order: Literal["channel_spatial", "spatial_channel", "parallel"] = Field(
        default="channel_spatial", description="Which map is applied first; parallel: both maps are made of the input.")

    @model_validator(mode="after")
    def _canonical(self) -> Self:
        if self.spatial == "none" or self.branches == "channel":
            if self.branches == "spatial":
                raise ValueError("Nothing is left of CBAM with branches 'spatial' and spatial 'none'")
            self.__dict__.update(branches="channel", spatial="none")
            reset(self, "kernel", "order")
        if self.branches == "spatial":
            reset(self, "reduction", "pool", "order")
        return self


def check_cbam(options: CBAMOptions, point: Point) -> Iterator[Problem]:
    """The channel branch needs a hidden channel; the spatial branch fits everywhere."""
    if options.branches != "spatial":
        yield from at_most_channels("reduction", options.reduction, point)


SE = ATTENTION.add(AttentionInfo(
    name="se",
    title="Squeeze-and-excitation",
    source="Hu, Shen, Sun 2018, Squeeze-and-Excitation Networks (arXiv 1709.01507), sections 3.1, 3.2; positions 6.6",
    implementation="search.attention.se:SqueezeExcitation",
    options=SEOptions,
    positions=ANYWHERE,
    check=check_reduction,
))

CBAM = ATTENTION.add(AttentionInfo(
    name="cbam",
    title="Convolutional block attention",
    source="Woo, Park, Lee, Kweon 2018, CBAM (arXiv 1807.06521), section 3; ablations section 4.1",
    implementation="search.attention.cbam:CBAM",
    options=CBAMOptions,
    positions=ANYWHERE,
    check=check_cbam,
))
