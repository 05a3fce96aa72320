"""What the options of several attention modules have in common (torch-free)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from search.errors import Problem
from search.registry import Options
from search.sites import Point, Position

BLOCK_POSITIONS: tuple[Position, ...] = ("residual", "pre", "post", "identity")
"""The four places in a residual block that the SE paper compares (Hu 2018, section 6.6); the branch comes first."""

FPN_POSITIONS: tuple[Position, ...] = ("fpn_lateral", "fpn_output")

ANYWHERE: tuple[Position, ...] = (*BLOCK_POSITIONS, "stage_end", *FPN_POSITIONS)
"""Every position that keeps the backbone's own layers, a residual branch first."""

AFTER_BLOCK_FIRST: tuple[Position, ...] = ("post", "residual", "pre", "identity", "stage_end", *FPN_POSITIONS)
"""The same for modules with their own residual connection, which their papers put after a block."""

STAGE_END_FIRST: tuple[Position, ...] = ("stage_end", *BLOCK_POSITIONS, *FPN_POSITIONS)
"""The same for modules that their papers put between stages."""


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("The size of the kernel must be odd, so that the map keeps its size")
    return value


OddKernel = Annotated[int, Field(ge=1, le=31), AfterValidator(_odd)]


def reduction(default: int) -> Any:
    """The field of a reduction ratio."""
    return Field(default=default, ge=1, description="Reduction ratio r: the hidden layer has ⌊C / r⌋ channels.")


def reset(options: Options, *names: str) -> None:
    """Puts fields that have no effect back to their defaults, in place, for validators.

    Modules that compute the same then have equal options, canonical JSON and keys.
    """
    for name in names:
        options.__dict__[name] = type(options).model_fields[name].default


def at_most_channels(field: str, value: int, point: Point) -> Iterator[Problem]:
    """The option `field` divides the channels: at least one channel has to be left."""
    if value > point.channels:
        yield Problem(
            field,
            f"{value} is over the {point.channels} channels there.",
            tuple(str(2**k) for k in range(1, point.channels.bit_length())),
        )
