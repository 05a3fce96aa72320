"""Modules that attend to the weights of the convolution whose place they take: AW-convolution."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from search.attention.entries.options import reduction
from search.attention.registry import ATTENTION, AttentionInfo
from search.errors import Problem
from search.registry import Options
from search.sites import Point


class AWOptions(Options):
    """Options of AW-convolution: the reductions of section 3.3 and both F₂ of section 3.2 (Zhu 2021)."""

    reduction: int = reduction(16)
    r_c1: Annotated[int, Field(ge=1)] | Literal["C1"] = Field(
        default="C1",
        description="How many neighbouring input channels share a number of the map; C1: all that a filter sees. "
        "The map's own cost grows with C1 / r_c1.",
    )
    r_c2: int = Field(default=1, ge=1, description="How many neighbouring output channels share a number of the map.")
    r_hw: int = Field(
        default=1, ge=1, description="How many neighbouring taps of the kernel, each way, share a number of the map."
    )
    form: Literal["residual", "scale"] = Field(
        default="residual", description="The weights of a sample: K + A ⊙ K (residual) or A ⊙ K (scale)."
    )
    hidden: Literal["in", "out"] = Field(
        default="in",
        description="What the reduction divides: the convolution's input channels, as in the text, or its output "
        "channels, the only reading that gives the parameters printed for MobileNet.",
    )


def check_aw(options: AWOptions, point: Point) -> Iterator[Problem]:
    """The map's numbers divide the weights into equal blocks, and its hidden layer has a channel."""
    conv = point.conv
    if conv is None:
        yield Problem("", "There is no convolution to take the place of.")
        return
    across = {"in": conv.in_channels, "out": conv.out_channels}[options.hidden]
    if options.reduction > across:
        side = {"in": "input", "out": "output"}[options.hidden]
        yield Problem(
            "reduction",
            f"Reduction ratio {options.reduction} is over the {across} {side} channels there.",
            tuple(str(2**k) for k in range(across.bit_length())),
        )
    shares = (
        ("r_c1", options.r_c1, conv.in_channels // conv.groups, "input channels of a filter"),
        ("r_c2", options.r_c2, conv.out_channels, "output channels"),
        ("r_hw", options.r_hw, conv.kernel_size, "taps of the kernel along a side"),
    )
    for field, share, whole, what in shares:
        if share != "C1" and whole % share:
            yield Problem(
                field,
                f"{share} does not divide the {whole} {what} there.",
                tuple(str(part) for part in range(1, whole + 1) if whole % part == 0),
            )


AW = ATTENTION.add(
    AttentionInfo(
        name="aw",
        title="AW-convolution",
        source="Zhu, Hofstee, Lee, Al-Ars 2021, An Attention Module for Convolutional Neural Networks "
        "(arXiv 2108.08205), section 3",
        implementation="search.attention.aw:AWConv2d",
        options=AWOptions,
        positions=("conv",),
        takes="conv",
        check=check_aw,
    )
)
