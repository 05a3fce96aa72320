"""What the terminal shows: strips in Unicode blocks, the front as a table, a search in a few lines."""

from __future__ import annotations

from rich.text import Text

from service.strips import PALETTE, Mark, Strip

_LEVELS = "▁▂▃▄▅▆▇█"
_EMPTY = "·"


def strip_text(strip: Strip) -> Text:
    """One character per block, its height the module's strength; ▐ after a stage holds what is at its end."""
    text = Text()
    for stage in strip.stages:
        if text:
            text.append(" ")
        for square in stage.squares:
            text.append_text(_square(square.marks))
        for mark in stage.ends:
            text.append("▐", style=_style(mark))
    return text


def _square(marks: tuple[Mark, ...]) -> Text:
    if not marks:
        return Text(_EMPTY, style="bright_black")
    if len(marks) == 1:
        return Text(_LEVELS[round(marks[0].level * 8) - 1], style=_style(marks[0]))
    # two tones: the first module below, the second above
    return Text("▄", style=f"{_style(marks[0])} on {_style(marks[1])}")


def _style(mark: Mark) -> str:
    return PALETTE[mark.colour]


def legend(strips: list[Strip]) -> Text:
    """The colour of every module that occurs."""
    marks = {mark.kind: mark for strip in strips for mark in strip.marks}
    text = Text()
    for kind in sorted(marks):
        text.append("█ ", style=_style(marks[kind])).append(f"{marks[kind].name}   ")
    return text.append("height = strength (1 / r), · = none", style="bright_black") if marks else text
