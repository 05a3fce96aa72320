"""Modules that weigh channels or positions by what pooling says: SE, CBAM, BAM, ECA, gather-excite, GALA, SCA."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, model_validator

from search.attention.entries.options import ANYWHERE, STAGE_END_FIRST, OddKernel, at_most_channels, reduction, reset
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
        default="both", description="Attend to channels, to positions, or to both. `channel` is `spatial: none`."
    )
    pool: Literal["both", "avg", "max"] = Field(
        default="both", description="What describes a channel: its mean, its maximum, or both through one shared MLP."
    )
    spatial: Literal["pooling", "conv1x1", "none"] = Field(
        default="pooling",
        description="What describes a position: maximum and mean over channels, or a learned 1×1 convolution.",
    )
    kernel: OddKernel = Field(default=7, description="Size of the spatial convolution, odd; the paper has 3 and 7.")
    order: Literal["channel_spatial", "spatial_channel", "parallel"] = Field(
        default="channel_spatial", description="Which map is applied first; parallel: both maps are made of the input."
    )

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


class BAMOptions(Options):
    """Options of BAM: the choices of its ablations (Park 2018, table 1)."""

    reduction: int = reduction(16)
    dilation: int = Field(
        default=4, ge=1, le=32, description="Dilation of the two 3×3 convolutions; the paper has 1, 2, 4, 6."
    )
    branches: Literal["both", "channel", "spatial"] = Field(
        default="both", description="Which maps make up the attention."
    )
    combine: Literal["sum", "product", "max"] = Field(
        default="sum", description="How the maps are joined: sum as in the paper, product as in its code, or max."
    )

    @model_validator(mode="after")
    def _canonical(self) -> Self:
        if self.branches != "both":
            reset(self, "combine")
        if self.branches == "channel":
            reset(self, "dilation")
        return self


class ECAOptions(Options):
    """Options of efficient channel attention."""

    kernel: OddKernel | None = Field(
        default=None, description="Channels that a gate is computed from, odd; none for the paper's function of C."
    )


class GatherExciteOptions(Options):
    """Options of gather-excite (Hu 2018, tables 1 to 4)."""

    variant: Literal["minus", "theta", "plus"] = Field(
        default="minus", description="θ⁻: no parameters; θ: gathers by depthwise convolutions; θ⁺: and an MLP."
    )
    extent: Literal[2, 4, 8, "global"] = Field(
        default="global", description="Pixels between gathered values; global: the whole map."
    )
    reduction: int = reduction(16)

    @model_validator(mode="after")
    def _canonical(self) -> Self:
        if self.variant != "plus":
            reset(self, "reduction")
        return self


def check_gather_excite(options: GatherExciteOptions, point: Point) -> Iterator[Problem]:
    """Only θ⁺ has a hidden layer."""
    if options.variant == "plus":
        yield from at_most_channels("reduction", options.reduction, point)


class GALAOptions(Options):
    """Options of global-and-local attention."""

    reduction: int = reduction(4)
    interaction: Literal["both", "additive", "multiplicative"] = Field(
        default="both", description="How the maps are joined: a learned mix of sum and product, or one of them."
    )


class SCAOptions(Options):
    """Options of SCA-CNN's channel and spatial attention."""

    hidden: int = Field(default=512, ge=1, le=4096, description="Size k of the space that scores are computed in.")
    order: Literal["channel_spatial", "spatial_channel"] = Field(
        default="channel_spatial", description="Which softmax is applied first (C-S or S-C)."
    )


SE = ATTENTION.add(
    AttentionInfo(
        name="se",
        title="Squeeze-and-excitation",
        source="Hu, Shen, Sun 2018, Squeeze-and-Excitation Networks (arXiv 1709.01507), section 3; positions 6.6",
        implementation="search.attention.se:SqueezeExcitation",
        options=SEOptions,
        positions=ANYWHERE,
        check=check_reduction,
    )
)

CBAM = ATTENTION.add(
    AttentionInfo(
        name="cbam",
        title="Convolutional block attention",
        source="Woo, Park, Lee, Kweon 2018, CBAM (arXiv 1807.06521), section 3; ablations section 4.1",
        implementation="search.attention.cbam:CBAM",
        options=CBAMOptions,
        positions=ANYWHERE,
        check=check_cbam,
    )
)

BAM = ATTENTION.add(
    AttentionInfo(
        name="bam",
        title="Bottleneck attention",
        source="Park, Woo, Lee, Kweon 2018, BAM (arXiv 1807.06514), section 3; ablations section 4.1",
        implementation="search.attention.bam:BAM",
        options=BAMOptions,
        positions=STAGE_END_FIRST,
        check=check_reduction,
    )
)

ECA = ATTENTION.add(
    AttentionInfo(
        name="eca",
        title="Efficient channel attention",
        source="Wang, Wu, Zhu, Li, Zuo, Hu 2020, ECA-Net (arXiv 1910.03151), section 3.2",
        implementation="search.attention.eca:EfficientChannelAttention",
        options=ECAOptions,
        positions=ANYWHERE,
    )
)

GATHER_EXCITE = ATTENTION.add(
    AttentionInfo(
        name="gather_excite",
        title="Gather-excite",
        source="Hu, Shen, Albanie, Sun, Vedaldi 2018, Gather-Excite (arXiv 1810.12348), section 3",
        implementation="search.attention.gather_excite:GatherExcite",
        options=GatherExciteOptions,
        positions=ANYWHERE,
        takes="size",
        check=check_gather_excite,
    )
)

GALA = ATTENTION.add(
    AttentionInfo(
        name="gala",
        title="Global-and-local attention",
        source="Linsley, Shiebler, Eberhardt, Serre 2019, Learning what and where to attend (arXiv 1805.08819), "
        "section 3",
        implementation="search.attention.gala:GALA",
        options=GALAOptions,
        positions=ANYWHERE,
        check=check_reduction,
    )
)

SCA = ATTENTION.add(
    AttentionInfo(
        name="sca",
        title="SCA-CNN's channel and spatial softmax",
        source="Chen, Zhang, Xiao, Nie, Shao, Liu, Chua 2017, SCA-CNN (arXiv 1611.05594), sections 3.2, 3.3",
        implementation="search.attention.sca:SCA",
        options=SCAOptions,
        positions=ANYWHERE,
    )
)
