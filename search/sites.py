"""Where attention can go: the stages, blocks and positions of a backbone, and the patterns that pick blocks.

Torch-free: shapes are computed in closed form, so a request is checked before anything is built.
Stages and blocks count from 1, as the papers do (`layer1` of a ResNet is stage 1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from search.errors import SpecError, shown

Position = Literal["residual", "pre", "post", "identity", "conv", "stage_end", "fpn_lateral", "fpn_output"]
POSITIONS: tuple[Position, ...] = get_args(Position)

PatternName = Literal["every", "first", "last", "alternate"]
PATTERN_NAMES: tuple[PatternName, ...] = get_args(PatternName)
Pattern = PatternName | tuple[int, ...]

_SITE = re.compile(rf"([1-9][0-9]{{0,3}})\.([1-9][0-9]{{0,3}})\.({'|'.join(POSITIONS)})")

Shape = tuple[int, int, int]
"""Channels, height, width of one image."""


class Site(NamedTuple):
    """A place for a module. A `stage_end` site carries the number of the stage's last block."""

    stage: int
    block: int
    position: Position

    def __str__(self) -> str:
        return f"{self.stage}.{self.block}.{self.position}"

    @classmethod
    def parse(cls, text: str, field: str = "site") -> Site:
        """The site written "stage.block.position", as `str` writes it and in no other way."""
        found = _SITE.fullmatch(text)
        if found is None:
            raise SpecError.one(
                field, f"{shown(text)} is not a site; write stage.block.position, as in 3.1.residual.", POSITIONS
            )
        return cls(int(found[1]), int(found[2]), found[3])  # type: ignore[arg-type]


@dataclass(frozen=True)
class ConvGeometry:
    """A convolution that a module may replace (square kernels; kernel, stride, padding in pixels)."""

    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    bias: bool = False


@dataclass(frozen=True)
class Point:
    """One tensor that a module is put on: its channels and size, and for `conv` what is replaced.

    channels, height, width are of the module's input; for `conv` that is the convolution's input.
    """

    channels: int
    height: int
    width: int
    conv: ConvGeometry | None = None

    @property
    def shape(self) -> Shape:
        return (self.channels, self.height, self.width)


@dataclass(frozen=True)
class BlockGeometry:
    """What one block offers. A position may hold several points (MobileNet: after the depthwise and the
    pointwise convolution); a module placed there is built once for each."""

    points: Mapping[Position, tuple[Point, ...]]


@dataclass(frozen=True)
class StageGeometry:
    """The blocks at one resolution; `stage_end` belongs to the last of them."""

    number: int
    blocks: tuple[BlockGeometry, ...]

    @property
    def positions(self) -> tuple[Position, ...]:
        """Every position that some block of this stage offers, in the order of POSITIONS."""
        return tuple(p for p in POSITIONS if any(p in block.points for block in self.blocks))

    def points(self, site: Site) -> tuple[Point, ...]:
        return self.blocks[site.block - 1].points[site.position]


def pattern_blocks(pattern: Pattern | str, blocks: int, field: str = "pattern") -> tuple[int, ...]:
    """The blocks (from 1) that `pattern` picks in a stage of `blocks` blocks.

    `alternate` is 1, 3, 5 …. Raises SpecError for an unknown name and for numbers outside the stage.
    """
    match pattern:
        case "every":
            return tuple(range(1, blocks + 1))
        case "first":
            return (1,)
        case "last":
            return (blocks,)
        case "alternate":
            return tuple(range(1, blocks + 1, 2))
        case str():
            names = [*PATTERN_NAMES, "a list of block numbers"]
            raise SpecError.one(field, f"Unknown pattern {shown(pattern)}.", names)
    chosen = tuple(sorted(set(pattern)))
    if not chosen or chosen[0] < 1 or chosen[-1] > blocks:
        raise SpecError.one(
            field,
            f"Blocks {shown(list(pattern))} do not fit a stage of {blocks} blocks (they count from 1).",
            [*PATTERN_NAMES, *map(str, range(1, blocks + 1))],
        )
    return chosen


def find_stage(stages: tuple[StageGeometry, ...], number: int, field: str = "stages") -> StageGeometry:
    """The stage called `number`; SpecError listing the stages of the backbone otherwise."""
    for stage in stages:
        if stage.number == number:
            return stage
    raise SpecError.one(field, f"The backbone has no stage {number}.", [str(stage.number) for stage in stages])
