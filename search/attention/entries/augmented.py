"""The attention-augmented convolution, which takes a convolution's place."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from search.attention.registry import ATTENTION, AttentionInfo
from search.attention.widths import augmented_widths
from search.errors import Problem
from search.registry import Options
from search.sites import Point


class AugmentedConvOptions(Options):
    """Options of the attention-augmented convolution (Bello 2019, sections 4.1, 4.4)."""

    key_ratio: float = Field(
        default=0.2, gt=0, le=4, description="Key channels d_k of all heads, as a share of the outputs: κ."
    )
    value_ratio: float = Field(default=0.1, gt=0, le=1, description="Outputs that come from attention, as a share: υ.")
    heads: int = Field(default=8, ge=1, le=64, description="Attention heads.")
    min_key: int = Field(default=20, ge=1, le=512, description="Key channels that a head has at least.")
    relative: bool = Field(default=True, description="Learned relative positions, for rows and columns.")


def check_augmented(options: AugmentedConvOptions, point: Point) -> Iterator[Problem]:
    """Convolution and attention both keep outputs, of the same size; groups divide what the convolution keeps."""
    conv = point.conv
    if conv is None:
        yield Problem("", "There is no convolution to replace.")
        return
    if 2 * conv.padding != conv.dilation * (conv.kernel_size - 1):
        yield Problem(
            "",
            f"The convolution (kernel {conv.kernel_size}, padding {conv.padding}) changes the size "
            "of the map, which attention cannot follow.",
        )
    outputs = conv.out_channels
    values = augmented_widths(outputs, options.key_ratio, options.value_ratio, options.heads, options.min_key)[1]
    if values >= outputs:
        yield Problem(
            "heads" if values == options.heads else "value_ratio",
            f"Attention would take {values} of {outputs} output channels and leave none to the convolution.",
            tuple(str(heads) for heads in (1, 2, 4, 8, 16, 32) if heads < outputs),
        )
    elif (outputs - values) % conv.groups:
        yield Problem("value_ratio", f"{outputs - values} channels are left, which {conv.groups} groups cannot share.")


AUGMENTED_CONV = ATTENTION.add(
    AttentionInfo(
        name="augmented_conv",
        title="Attention-augmented convolution",
        source="Bello, Zoph, Vaswani, Shlens, Le 2019, Attention Augmented Convolutional Networks (arXiv 1904.09925), "
        "section 3",
        implementation="search.attention.augmented_conv:AttentionAugmentedConv",
        options=AugmentedConvOptions,
        positions=("conv",),
        takes="conv_size",
        check=check_augmented,
    )
)
