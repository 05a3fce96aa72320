"""Modules with a small network of their own: residual attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from search.attention.entries.options import STAGE_END_FIRST, at_most_channels
from search.attention.registry import ATTENTION, AttentionInfo
from search.errors import Problem
from search.registry import Options
from search.sites import Point


class ResidualAttentionOptions(Options):
    """Options of residual attention (Wang 2017, section 3.2)."""

    depth: int = Field(
        default=1, ge=1, le=5, description="How often the mask halves the map; the paper: 3, 2, 1 at 56, 28, 14."
    )
    gate: Literal["mixed", "channel", "spatial"] = Field(
        default="mixed", description="How the mask is normalised: by value, over channels, or over positions."
    )
    bottleneck: int = Field(default=4, ge=1, description="Inner channels of the mask's units: C divided by this.")


def check_residual_attention(options: ResidualAttentionOptions, point: Point) -> Iterator[Problem]:
    """The units need an inner channel; pooling is padded, so every size can be halved."""
    yield from at_most_channels("bottleneck", options.bottleneck, point)


RESIDUAL_ATTENTION = ATTENTION.add(
    AttentionInfo(
        name="residual_attention",
        title="Residual attention",
        source="Wang, Jiang, Qian, Yang, Li, Zhang, Wang, Tang 2017, Residual Attention Network (arXiv 1704.06904), "
        "section 3",
        implementation="search.attention.residual_attention:ResidualAttention",
        options=ResidualAttentionOptions,
        positions=STAGE_END_FIRST,
        check=check_residual_attention,
    )
)
