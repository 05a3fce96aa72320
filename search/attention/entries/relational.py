"""Modules in which positions or channels attend to each other: non-local, DANet, GC, A², sparse strided attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from search.attention.entries.options import AFTER_BLOCK_FIRST, ANYWHERE, at_most_channels, reduction, reset
from search.attention.registry import ATTENTION, AttentionInfo
from search.errors import Problem
from search.registry import Options
from search.sites import Point


def _ratio(default: int, what: str) -> Any:
    return Field(default=default, ge=1, description=f"{what} C divided by this, rounded down.")


class NonLocalOptions(Options):
    """Options of the non-local block."""

    affinity: Literal["embedded_gaussian", "dot_product"] = Field(
        default="embedded_gaussian", description="How alike positions are: softmax of their product, or the product."
    )
    pool: bool = Field(default=False, description="Attend to the 2×2 max-pooled map: a quarter of the computation.")
    scale: bool = Field(
        default=False, description="Divide products by √(inner channels), as the code does; the paper does not."
    )
    bottleneck: int = _ratio(2, "Inner channels:")

    @model_validator(mode="after")
    def _canonical(self) -> Self:
        if self.affinity == "dot_product":
            reset(self, "scale")
        return self


def check_nonlocal(options: NonLocalOptions, point: Point) -> Iterator[Problem]:
    """An inner channel has to be left, and a position after pooling."""
    yield from at_most_channels("bottleneck", options.bottleneck, point)
    if options.pool and min(point.height, point.width) < 2:
        yield Problem("pool", f"A map of {point.height} × {point.width} cannot be pooled by 2×2.", ("false",))


class PositionOptions(Options):
    """Options of DANet's position attention."""

    key_ratio: int = _ratio(8, "Channels of keys and queries:")


class ChannelOptions(Options):
    """Options of DANet's channel attention."""

    energy: Literal["product", "max_minus_product"] = Field(
        default="product", description="The paper attends to the most alike channels, its code to the least alike."
    )


class DualOptions(Options):
    """Options of both."""

    key_ratio: int = _ratio(8, "Channels of keys and queries:")
    energy: Literal["product", "max_minus_product"] = Field(
        default="product", description="The paper attends to the most alike channels, its code to the least alike."
    )


def check_keys(options: PositionOptions | DualOptions, point: Point) -> Iterator[Problem]:
    """Keys need a channel."""
    yield from at_most_channels("key_ratio", options.key_ratio, point)


class GlobalContextOptions(Options):
    """Options of the global context block (Cao 2019, tables 1e, 1f)."""

    reduction: int = reduction(16)
    pooling: Literal["attention", "avg"] = Field(default="attention", description="How positions become one vector.")
    fusion: Literal["add", "scale"] = Field(
        default="add", description="Add the vector to every position, or gate channels by it."
    )


def check_global_context(options: GlobalContextOptions, point: Point) -> Iterator[Problem]:
    """Layer norm of one value is a constant, so the hidden layer needs two channels."""
    if options.reduction * 2 > point.channels:
        yield Problem(
            "reduction",
            f"Ratio {options.reduction} leaves under two of {point.channels} channels to normalise.",
            tuple(str(2**k) for k in range(point.channels.bit_length() - 1)),
        )


class DoubleAttentionOptions(Options):
    """Options of A² double attention."""

    value_ratio: int = _ratio(4, "Channels m of a descriptor:")
    descriptor_ratio: int = _ratio(4, "Number n of descriptors:")


def check_double_attention(options: DoubleAttentionOptions, point: Point) -> Iterator[Problem]:
    """One value would be left of a descriptor, and two descriptors to choose from."""
    yield from at_most_channels("value_ratio", options.value_ratio, point)
    yield from at_most_channels("descriptor_ratio", options.descriptor_ratio, point)


class SparseOptions(Options):
    """Options of sparse strided self-attention."""

    heads: int = Field(default=2, ge=1, le=64, description="Attention heads; they share the inner channels equally.")
    stride: int | None = Field(
        default=None, ge=1, description="The far step meets each stride-th position; none for the map's width: columns."
    )
    local: int | None = Field(
        default=None, ge=1, description="Positions in a run of the near step; none for the map's width: rows."
    )
    bottleneck: int = _ratio(1, "Inner channels:")


def check_sparse(options: SparseOptions, point: Point) -> Iterator[Problem]:
    """Heads divide the inner channels, of which one at least is left."""
    yield from at_most_channels("bottleneck", options.bottleneck, point)
    inner = point.channels // options.bottleneck
    if inner and inner % options.heads:
        yield Problem(
            "heads",
            f"{options.heads} heads cannot share {inner} inner channels equally.",
            tuple(str(heads) for heads in range(1, min(inner, 64) + 1) if inner % heads == 0),
        )


NONLOCAL = ATTENTION.add(
    AttentionInfo(
        name="nonlocal",
        title="Non-local block",
        source="Wang, Girshick, Gupta, He 2018, Non-local Neural Networks (arXiv 1711.07971), sections 3.2, 3.3",
        implementation="search.attention.nonlocal_block:NonLocal",
        options=NonLocalOptions,
        positions=AFTER_BLOCK_FIRST,
        identity_at_start=True,
        check=check_nonlocal,
    )
)

DANET_POSITION = ATTENTION.add(
    AttentionInfo(
        name="danet_position",
        title="DANet position attention",
        source="Fu, Liu, Tian, Li, Bao, Fang, Lu 2019, Dual Attention Network (arXiv 1809.02983), section 3.2",
        implementation="search.attention.danet:PositionAttention",
        options=PositionOptions,
        positions=AFTER_BLOCK_FIRST,
        identity_at_start=True,
        check=check_keys,
    )
)

DANET_CHANNEL = ATTENTION.add(
    AttentionInfo(
        name="danet_channel",
        title="DANet channel attention",
        source="Fu, Liu, Tian, Li, Bao, Fang, Lu 2019, Dual Attention Network (arXiv 1809.02983), section 3.3",
        implementation="search.attention.danet:ChannelAttention",
        options=ChannelOptions,
        positions=AFTER_BLOCK_FIRST,
        identity_at_start=True,
    )
)

DANET_DUAL = ATTENTION.add(
    AttentionInfo(
        name="danet_dual",
        title="DANet dual attention",
        source="Fu, Liu, Tian, Li, Bao, Fang, Lu 2019, Dual Attention Network (arXiv 1809.02983), section 3.4",
        implementation="search.attention.danet:DualAttention",
        options=DualOptions,
        positions=AFTER_BLOCK_FIRST,
        identity_at_start=True,
        check=check_keys,
    )
)

GLOBAL_CONTEXT = ATTENTION.add(
    AttentionInfo(
        name="gc",
        title="Global context block",
        source="Cao, Xu, Lin, Wei, Hu 2019, GCNet (arXiv 1904.11492), section 3.3",
        implementation="search.attention.global_context:GlobalContext",
        options=GlobalContextOptions,
        positions=ANYWHERE,
        identity_at_start=True,
        identity_if=lambda options: options.fusion == "add",
        check=check_global_context,
    )
)

DOUBLE_ATTENTION = ATTENTION.add(
    AttentionInfo(
        name="a2",
        title="A² double attention",
        source="Chen, Kalantidis, Li, Yan, Feng 2018, A²-Nets: Double Attention Networks (arXiv 1810.11579), section 3",
        implementation="search.attention.double_attention:DoubleAttention",
        options=DoubleAttentionOptions,
        positions=AFTER_BLOCK_FIRST,
        identity_at_start=True,
        check=check_double_attention,
    )
)

SPARSE = ATTENTION.add(
    AttentionInfo(
        name="sparse_attention",
        title="Sparse strided self-attention",
        source="Child, Gray, Radford, Sutskever 2019, Sparse Transformers (arXiv 1904.10509), section 4.3",
        implementation="search.attention.sparse_attention:SparseStridedAttention",
        options=SparseOptions,
        positions=AFTER_BLOCK_FIRST,
        identity_at_start=True,
        check=check_sparse,
    )
)
