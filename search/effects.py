"""What each choice is worth, from the finished trials of a search.

Marginal effects: the mean quality of the trials that made a choice less that of those it is compared with, with a
bootstrap interval. They are averages over whatever else the trials chose: exact where those choices were drawn
independently, and a description only where a strategy has steered them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from search.resampling import LEAST, Interval, Members, differences
from search.sites import Site

Factor = Literal["stage", "module", "pattern", "reduction"]
FACTORS: tuple[Factor, ...] = ("stage", "module", "pattern", "reduction")
Placements = Mapping[str, Sequence[Mapping[str, Any]]]
NOTHING = ""


@dataclass(frozen=True)
class Finished:
    """A finished trial. placements: as in an architecture's JSON. quality: more is better. macs: multiply-adds."""

    placements: Placements
    quality: float
    macs: int
    on_front: bool = False


@dataclass(frozen=True)
class Effect:
    """What one choice in one stage is worth.

    choice: a module or a stack ("aw+se"), a pattern, a ratio; "" for the stage as a whole. against: what the
    reference trials have there: "nothing", or "others" (something else of the same factor). gain: in the quality's
    unit, None where either side has too few trials. extra_macs: difference of the means; gain_per_mmac: for each 10⁶
    of them, None where the choice costs nothing.
    """

    factor: Factor
    stage: int
    choice: str
    trials: int
    against: Literal["nothing", "others"]
    reference_trials: int
    gain: Interval | None
    extra_macs: float
    gain_per_mmac: Interval | None


@dataclass(frozen=True)
class SiteWorth:
    """One site, over all its positions. block: None for the end of the stage. kind: one module, "" for any.

    front, share: how many of the front's placements use it, and which part of them. gain: over trials with nothing
    in this stage; where they are too few, over those with nothing at this site.
    """

    stage: int
    block: int | None
    kind: str
    trials: int
    front: int
    share: float
    gain: Interval | None


@dataclass(frozen=True)
class Effects:
    """trials: how many were looked at; front: how many of them are on the front."""

    trials: int
    front: int
    choices: tuple[Effect, ...]
    sites: tuple[SiteWorth, ...]


@dataclass(frozen=True)
class StageFill:
    """What an architecture has in one stage. modules: "" for nothing. ratio: None for none, or for several."""

    modules: str = NOTHING
    pattern: str = ""
    ratio: int | None = None
    sites: frozenset[tuple[int | None, str]] = frozenset()


def measure(trials: Sequence[Finished], blocks: Mapping[int, int], seed: int = 0) -> Effects:
    """Effects and sites of the trials. blocks: how many each stage of the backbone has."""
    fills = [fill_stages(trial.placements, blocks) for trial in trials]
    quality = np.asarray([trial.quality for trial in trials], dtype=np.float64)
    macs = np.asarray([trial.macs for trial in trials], dtype=np.float64)
    front = np.asarray([trial.on_front for trial in trials], dtype=np.bool_)
    rng = np.random.default_rng(seed)
    choices, choice_columns = _gather(_choices(fills, blocks), len(trials))
    sites, site_columns = _gather(_sites(fills, blocks), len(trials))
    gains = differences(
        quality,
        np.concatenate([choice_columns[0], site_columns[0]], axis=1),
        np.concatenate([choice_columns[1], site_columns[1]], axis=1),
        rng,
    )
    found = [
        _effect(name, gain, macs, chosen, reference)
        for name, gain, chosen, reference in zip(choices, gains, choice_columns[0].T, choice_columns[1].T, strict=False)
    ]
    on_front = int(front.sum())
    worth = [
        SiteWorth(stage, block, kind, int(mine.sum()), shown, shown / max(1, on_front), gain)
        for (stage, block, kind), gain, mine in zip(sites, gains[len(choices) :], site_columns[0].T, strict=True)
        for shown in [int((mine & front).sum())]
    ]
    return Effects(len(trials), on_front, tuple(found), tuple(worth))


def fill_stages(placements: Placements, blocks: Mapping[int, int]) -> dict[int, StageFill]:
    """What each stage of the backbone holds."""
    parts: dict[int, list[tuple[str, tuple[tuple[str, int | None], ...]]]] = {}
    for site, modules in placements.items():
        listed = tuple((module["kind"], module.get("reduction")) for module in modules)
        parts.setdefault(int(site.partition(".")[0]), []).append((site, listed))
    return {stage: _fill(tuple(parts.get(stage, ())), count) for stage, count in blocks.items()}


@lru_cache(maxsize=20_000)
def _fill(parts: tuple[tuple[str, tuple[tuple[str, int | None], ...]], ...], blocks: int) -> StageFill:
    if not parts:
        return StageFill()
    kinds: dict[str, None] = {}
    ratios: set[int] = set()
    chosen: set[int] = set()
    sites: set[tuple[int | None, str]] = set()
    for text, modules in sorted((Site.parse(text), modules) for text, modules in parts):
        block = None if text.position == "stage_end" else text.block
        chosen |= set() if block is None else {block}
        for kind, ratio in modules:
            kinds[kind] = None
            ratios |= {ratio} if ratio is not None else set()
            sites |= {(block, kind), (block, "")}
    ratio = ratios.pop() if len(ratios) == 1 else None
    return StageFill("+".join(kinds), pattern_name(sorted(chosen), blocks), ratio, frozenset(sites))


def pattern_name(chosen: Sequence[int], blocks: int) -> str:
    """The pattern that picks these blocks of a stage, else their numbers; "" for none of them."""
    if not chosen:
        return ""
    known = {
        "every": range(1, blocks + 1), "first": (1,), "last": (blocks,), "alternate": range(1, blocks + 1, 2),
    }  # fmt: skip
    for name, picked in known.items():
        if list(chosen) == list(picked):
            return name
    return ",".join(map(str, chosen))


Rows = Sequence[int]
Fills = Sequence[Mapping[int, StageFill]]
ChoiceName = tuple[Factor, int, str, Literal["nothing", "others"]]


def _choices(fills: Fills, blocks: Mapping[int, int]) -> Iterator[tuple[ChoiceName, Rows, Rows]]:
    """Every choice that was made, the trials that made it, and those that it is compared with."""
    for stage in blocks:
        empty = [row for row, fill in enumerate(fills) if not fill[stage].modules]
        filled = [row for row, fill in enumerate(fills) if fill[stage].modules]
        if filled:
            yield ("stage", stage, NOTHING, "nothing"), filled, empty
        for choice, rows in _grouped(filled, [fill[stage].modules for fill in fills]):
            # where a stage is hardly ever empty, its modules are still told from each other
            against: Literal["nothing", "others"] = "nothing" if len(empty) >= LEAST else "others"
            yield ("module", stage, choice, against), rows, empty if len(empty) >= LEAST else _without(filled, rows)
        for factor, names in (
            ("pattern", [fill[stage].pattern for fill in fills]),
            ("reduction", [str(fill[stage].ratio or "") for fill in fills]),
        ):
            able = [row for row in filled if names[row]]
            groups = list(_grouped(able, names))
            if len(groups) > 1:
                for choice, rows in groups:
                    yield (factor, stage, choice, "others"), rows, _without(able, rows)  # type: ignore[misc]


def _sites(fills: Fills, blocks: Mapping[int, int]) -> Iterator[tuple[tuple[int, int | None, str], Rows, Rows]]:
    for stage in blocks:
        used: dict[tuple[int | None, str], list[int]] = {}
        for row, fill in enumerate(fills):
            for site in fill[stage].sites:
                used.setdefault(site, []).append(row)
        empty = [row for row, fill in enumerate(fills) if not fill[stage].modules]
        for (block, kind), rows in sorted(used.items(), key=_site_order):
            reference = empty if len(empty) >= LEAST else _without(range(len(fills)), used[block, ""])
            yield (stage, block, kind), rows, reference


def _site_order(item: tuple[tuple[int | None, str], Rows]) -> tuple[bool, int, str]:
    """Blocks, then the end of the stage."""
    block, kind = item[0]
    return block is None, block or 0, kind


def _grouped(rows: Rows, names: Sequence[str]) -> Iterator[tuple[str, Rows]]:
    groups: dict[str, list[int]] = {}
    for row in rows:
        groups.setdefault(names[row], []).append(row)
    yield from sorted(groups.items(), key=lambda item: (len(item[0]), item[0]))


def _without(rows: Sequence[int], left_out: Sequence[int]) -> list[int]:
    out = set(left_out)
    return [row for row in rows if row not in out]


def _gather(found: Iterator[tuple[Any, Rows, Rows]], count: int) -> tuple[list[Any], tuple[Members, Members]]:
    """Names, and for each of the two sides n × c who belongs to it."""
    items = list(found)
    sides = (np.zeros((count, len(items)), dtype=np.bool_), np.zeros((count, len(items)), dtype=np.bool_))
    for column, (_, *rows) in enumerate(items):
        for side, mine in zip(sides, rows, strict=True):
            side[mine, column] = True
    return [name for name, *_ in items], sides


def _effect(name: ChoiceName, gain: Interval | None, macs: Any, chosen: Members, reference: Members) -> Effect:
    factor, stage, choice, against = name
    extra = float(macs[chosen].mean() - macs[reference].mean()) if chosen.any() and reference.any() else 0.0
    per_mmac = gain.scaled(1e6 / extra) if gain is not None and extra > 0 else None
    return Effect(factor, stage, choice, int(chosen.sum()), against, int(reference.sum()), gain, extra, per_mmac)
