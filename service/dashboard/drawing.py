"""The placement strip as SVG shapes; templates write them out, CSS gives the colours (no inline style)."""

from __future__ import annotations

from dataclasses import dataclass

from service.strips import Mark, Strip

SIDE = 12
GAP = 2
STAGE_GAP = 7
END = 5


@dataclass(frozen=True)
class Shape:
    """A rectangle, or with `path` an outline. kind: its CSS classes; units are pixels."""

    kind: str
    x: float = 0
    y: float = 0
    width: float = 0
    height: float = 0
    path: str = ""


@dataclass(frozen=True)
class Drawing:
    """What stands in the <svg>. words: its accessible name."""

    width: float
    height: float
    shapes: tuple[Shape, ...]
    words: str


def draw(strip: Strip) -> Drawing:
    """Squares side by side, a wider gap between stages, a wedge for what stands at a stage's end."""
    shapes: list[Shape] = []
    x = 0.0
    for stage in strip.stages:
        x += STAGE_GAP - GAP if x else 0
        for square in stage.squares:
            shapes += _square(x, square.marks)
            x += SIDE + GAP
        for mark in stage.ends:
            shapes.append(Shape(f"m m{mark.colour}", path=f"M{x:g} 0l{END} {SIDE / 2:g}l-{END} {SIDE / 2:g}z"))
            x += END + GAP
    return Drawing(max(x - GAP, 1), SIDE, tuple(shapes), strip.words)


def _square(x: float, marks: tuple[Mark, ...]) -> list[Shape]:
    """An outline with a filled part per module, side by side where modules are stacked."""
    shapes = [Shape("cell" if marks else "cell none", x + 0.5, 0.5, SIDE - 1, SIDE - 1)]
    for index, mark in enumerate(marks):
        width, height = SIDE / len(marks), round(mark.level * SIDE, 2)
        shapes.append(Shape(f"m m{mark.colour}", round(x + index * width, 2), SIDE - height, round(width, 2), height))
    return shapes


def sample(colour: int | None, level: float) -> Drawing:
    """One square, for the legend."""
    marks = () if colour is None else (Mark("", "", "", level, colour, ""),)
    return Drawing(SIDE, SIDE, tuple(_square(0, marks)), "")
