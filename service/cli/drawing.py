"""What the terminal shows: strips in Unicode blocks, the front as a table, a search in a few lines."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from service.strips import PALETTE, Mark, Strip
from service.summaries import NOISE, ROLES, FrontView, Row

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


def front_table(view: FrontView) -> Table:
    """The front from the cheapest to the most accurate, then baseline and controls that are not on it."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
    table.add_column("placement", no_wrap=True)
    table.add_column("in words", ratio=1, overflow="fold")
    for heading in ("top-1", "gain", "MACs", "extra"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in view.rows:
        table.add_row(*_cells(row), style="bold" if row is view.rows[-1] and row.role != "baseline" else "")
    on_front = {row.trial_id for row in view.rows}
    for beside in (view.baseline, *view.controls):
        if beside is not None and beside.trial_id not in on_front:
            table.add_row(*_cells(beside), style="bright_black")
    return table


def _cells(row: Row) -> tuple[Text, Text, str, str, str, str]:
    words = Text(row.strip.words)
    if row.role in ROLES:
        words.append(f" ({ROLES[row.role]})", style="bright_black")
    return strip_text(row.strip), words, row.top1_text, row.gain_text, row.macs_text, row.extra_text


def front_report(view: FrontView, finished: bool = True) -> RenderableType:
    """Table, legend and what it says; what it does not say as well."""
    if not view.rows:
        return Text("No trial has finished yet.", style="bright_black")
    parts: list[RenderableType] = [front_table(view), Text(), legend([row.strip for row in view.rows])]
    parts.append(Text(f"gain in points of validation accuracy over the baseline · {NOISE}", style="bright_black"))
    if view.hypervolume is not None:
        parts.append(Text(f"hypervolume {view.hypervolume:.4f}", style="bright_black"))
    if view.headline and finished:
        parts += [Text(), Text(view.headline, style="bold")]
    return Group(*parts)
