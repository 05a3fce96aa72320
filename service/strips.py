"""The placement strip: an architecture as squares, one per block, grouped by stage; and the same in words.

The dashboard draws it as SVG and the command line as Unicode blocks, both from the `Strip` made here, so that a
placement looks and reads the same everywhere. Pure and torch-free.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from search.architecture import Backbone
from search.attention import ATTENTION
from search.errors import SpecError
from search.sites import Shape, Site

NO_ATTENTION = "no attention"
USUAL_SHAPE: Shape = (3, 224, 224)
PALETTE = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#8c6bb1", "#999933", "#cc6677",
    "#44aa99", "#b15928", "#4477aa", "#aa4499", "#6a9f00", "#bbaa66", "#7f7fd5",
)  # fmt: skip
"""Okabe and Ito's colours, told apart by the colour-blind, for the modules used most; then others after Tol, so that
each module that comes with attune has its own. A module keeps its colour everywhere."""

_COLOURS = {"se": 0, "cbam": 1, "bam": 2, "aw": 3, "nonlocal": 4, "danet_dual": 5, "eca": 6}
_NAMES = {"nonlocal": "non-local", "danet_dual": "dual attention", "danet_position": "position attention",
          "danet_channel": "channel attention", "a2": "A² double attention", "gc": "GC"}  # fmt: skip
_PLACES = {
    "residual": "{modules} in {blocks}{details}",
    "pre": "{modules} before the branch of {blocks}{details}",
    "post": "{modules} after {blocks}{details}",
    "identity": "{modules} on the identity of {blocks}{details}",
    "conv": "{modules} as the convolution of {blocks}{details}",
    "stage_end": "{modules} at the end{details}",
    "fpn_lateral": "{modules} on the FPN's lateral{details}",
    "fpn_output": "{modules} on the FPN's output{details}",
}


@dataclass(frozen=True)
class Mark:
    """One module in a square. level: filled share of the height. colour: index into PALETTE.

    details: the options that a reader needs, as in "r = 8".
    """

    kind: str
    name: str
    position: str
    level: float
    colour: int
    details: str


@dataclass(frozen=True)
class Square:
    """One block; several marks are stacked modules, in the order they apply."""

    block: int
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class StageStrip:
    """One stage; ends: the modules after its last block."""

    number: int
    squares: tuple[Square, ...]
    ends: tuple[Mark, ...]


@dataclass(frozen=True)
class Strip:
    """A whole architecture. words: the placement in a sentence without a full stop."""

    stages: tuple[StageStrip, ...]
    words: str

    @property
    def marks(self) -> tuple[Mark, ...]:
        """One mark of each kind that occurs, for a legend."""
        found: dict[str, Mark] = {}
        for stage in self.stages:
            for mark in [m for square in stage.squares for m in square.marks] + list(stage.ends):
                found.setdefault(mark.kind, mark)
        return tuple(found[kind] for kind in sorted(found))


def make_strip(architecture: Mapping[str, Any], shape: Sequence[int] | None = None) -> Strip:
    """The strip of an architecture's JSON.

    shape: C × H × W of the images; only where a backbone's stages depend on it does it change the strip.
    An architecture of a backbone that is not installed here is drawn as far as its placements tell.
    """
    placements = {Site.parse(site): modules for site, modules in architecture["placements"].items()}
    sizes = _sizes(
        architecture["backbone"], placements, USUAL_SHAPE if shape is None else (shape[0], shape[1], shape[2])
    )
    stages = tuple(_stage(number, blocks, placements) for number, blocks in sizes.items())
    return Strip(stages, _words(stages))


def module_name(kind: str) -> str:
    """A module's name as it is written in prose."""
    return _NAMES.get(kind) or (kind.upper() if len(kind) <= 5 else kind.replace("_", " "))


def module_colour(kind: str) -> int:
    """The module's index into PALETTE; modules of other packages share the colours after the first."""
    if kind in _COLOURS:
        return _COLOURS[kind]
    others = [name for name in ATTENTION.names() if name not in _COLOURS]
    place = others.index(kind) if kind in others else sum(kind.encode())
    return len(_COLOURS) + place % (len(PALETTE) - len(_COLOURS))


def level(module: Mapping[str, Any]) -> float:
    """The filled share for a module's strength 1 / r: full at r = 1, a sixth less per doubling, never empty.

    Linear in log r, because at 1 / r itself the usual ratios 8, 16 and 32 would look alike.
    """
    ratio = module.get("reduction", 1)
    return max(1 / 6, 1 - math.log2(ratio) / 6)


def _sizes(backbone: Mapping[str, Any], placements: Mapping[Site, Any], shape: Shape) -> dict[int, int]:
    """Blocks per stage."""
    try:
        return dict(_geometry(json.dumps(dict(backbone), sort_keys=True), shape))
    except SpecError:
        sizes: dict[int, int] = {}
        for site in placements:
            sizes[site.stage] = max(site.block, sizes.get(site.stage, 0))
        return dict(sorted(sizes.items()))


@lru_cache(maxsize=256)
def _geometry(backbone: str, shape: Shape) -> tuple[tuple[int, int], ...]:
    stages = Backbone.make(**json.loads(backbone)).stages(shape)
    return tuple((stage.number, len(stage.blocks)) for stage in stages)


def _stage(number: int, blocks: int, placements: Mapping[Site, Sequence[Mapping[str, Any]]]) -> StageStrip:
    marks: dict[int, list[Mark]] = {block: [] for block in range(1, blocks + 1)}
    ends: list[Mark] = []
    for site, modules in sorted(placements.items()):
        if site.stage == number:
            target = ends if site.position == "stage_end" else marks[site.block]
            target.extend(_mark(module, site.position) for module in modules)
    return StageStrip(number, tuple(Square(block, tuple(found)) for block, found in marks.items()), tuple(ends))


def _mark(module: Mapping[str, Any], position: str) -> Mark:
    kind = module["kind"]
    return Mark(kind, module_name(kind), position, level(module), module_colour(kind), _details(module))


def _details(module: Mapping[str, Any]) -> str:
    """The reduction ratio, and every other option that is not at its default."""
    kind = module["kind"]
    fields = ATTENTION.get(kind).options.model_fields if kind in ATTENTION else {}
    parts = [f"r = {module['reduction']}"] if "reduction" in module else []
    for name, value in module.items():
        if name not in ("kind", "reduction") and (name not in fields or fields[name].default != value):
            parts.append(f"{name.replace('_', ' ')} = {value}")
    return ", ".join(parts)


def _words(stages: Sequence[StageStrip]) -> str:
    """Stages that hold the same are told together."""
    told: dict[str, list[int]] = {}
    for stage in stages:
        text = _stage_words(stage)
        if text:
            told.setdefault(text, []).append(stage.number)
    if not told:
        return NO_ATTENTION
    return "; ".join(f"{_stage_names(numbers, len(stages))}: {text}" for text, numbers in told.items())


def _stage_names(numbers: Sequence[int], total: int) -> str:
    if len(numbers) == 1:
        return f"stage {numbers[0]}"
    return "all stages" if len(numbers) == total else f"stages {_listed(numbers)}"


def _stage_words(stage: StageStrip) -> str:
    groups: dict[tuple[str, tuple[Mark, ...]], list[int]] = {}
    for square in stage.squares:
        for position in dict.fromkeys(mark.position for mark in square.marks):
            marks = tuple(mark for mark in square.marks if mark.position == position)
            groups.setdefault((position, marks), []).append(square.block)
    if stage.ends:
        groups[("stage_end", stage.ends)] = [len(stage.squares)]
    return ", ".join(
        _PLACES[position].format(blocks=_block_words(blocks, len(stage.squares)), **_module_words(marks))
        for (position, marks), blocks in groups.items()
    )


def _module_words(marks: Sequence[Mark]) -> dict[str, str]:
    if len(marks) == 1:
        return {"modules": marks[0].name, "details": f", {marks[0].details}" if marks[0].details else ""}
    names = (f"{mark.name} ({mark.details})" if mark.details else mark.name for mark in marks)
    return {"modules": " + ".join(names), "details": ""}


def _block_words(blocks: Sequence[int], total: int) -> str:
    chosen = list(blocks)
    if len(chosen) == total:
        return "every block" if total > 1 else "its block"
    if chosen == [1]:
        return "the first block"
    if chosen == [total]:
        return "the last block"
    if chosen == list(range(1, total + 1, 2)):
        return "every other block"
    return f"block {chosen[0]}" if len(chosen) == 1 else f"blocks {_listed(chosen)}"


def _listed(numbers: Sequence[int]) -> str:
    """1, 2 and 4."""
    *head, last = map(str, numbers)
    return f"{', '.join(head)} and {last}"
