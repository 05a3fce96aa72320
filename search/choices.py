"""What one stage may choose: the request's modules, options, positions and patterns multiplied out into sites."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, ClassVar

from search.architecture import Module, Placement, conv_clash, site_problems
from search.attention import ATTENTION
from search.attention.registry import AttentionInfo
from search.errors import Problem, SpecError, shown
from search.json_values import MOST_PROBLEMS
from search.registry import Options, parse_options
from search.sites import PATTERN_NAMES, Pattern, Position, Site, StageGeometry, pattern_blocks
from search.spec import StageSpec

NONE = "none"
MOST_CHOICES = 5_000
"""Choices written for one stage; beyond it the request is refused, as every choice is held in memory."""
MOST_STACKED = 8
Traits = tuple[str, str, str, str, str]


@dataclass(frozen=True)
class Choice:
    """One way to fill a stage (or, merged, all stages).

    placements: sites and modules, sorted by site. traits: how it was written, one text per name in TRAITS;
    two choices that differ in one trait are close to each other.
    """

    TRAITS: ClassVar[tuple[str, ...]] = ("module", "reduction", "options", "position", "pattern")

    placements: tuple[Placement, ...]
    traits: Traits

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset(module.kind for _, modules in self.placements for module in modules)

    @property
    def positions(self) -> frozenset[Position]:
        return frozenset(site.position for site, _ in self.placements)

    @property
    def sites(self) -> int:
        return len(self.placements)

    @property
    def strength(self) -> float:
        """Mean of 1 / reduction over its modules (1 for a module without reduction, 0 for none)."""
        values = [1 / getattr(m.options, "reduction", 1) for _, modules in self.placements for m in modules]
        return sum(values) / len(values) if values else 0.0

    def differences(self, other: Choice) -> int:
        """The number of traits in which two choices differ.

        `none` is one step from everything. Between different modules their further options do not count, as each
        has its own.
        """
        mine, theirs = self.traits, other.traits
        if NONE in (mine[0], theirs[0]):
            return int(mine[0] != theirs[0])
        pairs = list(zip(mine, theirs, strict=True))
        if mine[0] != theirs[0]:
            pairs = [(a, b) for name, (a, b) in zip(self.TRAITS, pairs, strict=True) if name != "options"]
        return sum(a != b for a, b in pairs)

    @classmethod
    def merge(cls, choices: Sequence[Choice]) -> Choice:
        """The same decision taken in several stages."""
        return cls(tuple(sorted((p for c in choices for p in c.placements), key=lambda p: p[0])), choices[0].traits)


@dataclass(frozen=True)
class _Placed:
    """A module with its position in the block.

    written: where in the request it stands. sources: where each of its options stands, if not there.
    """

    module: Module
    position: Position
    written: str
    sources: Mapping[str, str]

    def field(self, option: str) -> str:
        """The path of an option, or of "position"."""
        return self.sources.get(option) or f"{self.written}.{option}".rstrip(".")


def stage_choices(spec: StageSpec, stage: StageGeometry, fields: Mapping[str, str]) -> tuple[Choice, ...]:
    """Every choice that `spec` (all settings given) allows in `stage`, in the order written, duplicates included.

    fields: where each setting stands in the request, for errors. SpecError holds everything that cannot be built.
    """
    problems = dict.fromkeys(_duplicates(spec, fields))
    patterns: list[tuple[Pattern, tuple[int, ...]]] = []
    for index, raw in enumerate(spec.pattern or []):
        field = f"{fields['pattern']}.{index}"
        try:
            pattern = _pattern(raw, field)
        except SpecError as error:
            problems |= dict.fromkeys(error.problems)
            continue
        try:
            patterns.append((pattern, pattern_blocks(pattern, len(stage.blocks), field)))
        except SpecError as error:
            told = (replace(p, message=f"Stage {stage.number}: {p.message}") for p in error.problems)
            problems |= dict.fromkeys(told)
    picked = sorted({block for _, blocks in patterns for block in blocks})
    choices: list[Choice] = []
    for index, entry in enumerate(spec.modules or []):
        field = f"{fields['modules']}.{index}"
        try:
            members = _stacked(entry, spec, field, fields)
            if len(choices) + math.prod(map(len, members)) * len(patterns) > MOST_CHOICES:
                raise _too_large(fields["modules"])
            for placed in (placed for alternatives in members for placed in alternatives):
                problems |= dict.fromkeys(_placed_problems(placed, stage, picked))
                if len(problems) > MOST_PROBLEMS:
                    raise SpecError(problems)
            for stack in product(*members):
                problems |= dict.fromkeys(_conv_problems(stack))
                choices += _choices(stack, stage, patterns)
        except SpecError as error:
            problems |= dict.fromkeys(error.problems)
    if problems:
        raise SpecError(problems)
    return tuple(choices)


def _too_large(field: str) -> SpecError:
    return SpecError.one(field, f"The space is too large: over {MOST_CHOICES:,} choices for a stage.")


def _duplicates(spec: StageSpec, fields: Mapping[str, str]) -> Iterator[Problem]:
    for name in ("modules", "reduction", "pattern", "position"):
        yield from _listed_twice(getattr(spec, name) or [], fields[name])


def _listed_twice(values: Sequence[Any], field: str) -> Iterator[Problem]:
    seen = set()
    for index, value in enumerate(values):
        # by the text, as 1, 1.0 and true are equal in Python, and lists have no hash
        text = json.dumps(value, sort_keys=True)
        if text in seen:
            yield Problem(f"{field}.{index}", f"{shown(value)} is listed twice.")
        seen.add(text)


def _pattern(raw: Any, field: str) -> Pattern:
    if isinstance(raw, str):
        for name in PATTERN_NAMES:
            if raw == name:
                return name
    elif isinstance(raw, list) and raw and all(isinstance(i, int) and not isinstance(i, bool) for i in raw):
        problems = tuple(_listed_twice(raw, field))
        if problems:
            raise SpecError(problems)
        return tuple(sorted(raw))
    raise SpecError.one(field, f"{shown(raw)} is not a pattern.", [*PATTERN_NAMES, "a list of block numbers"])


def _stacked(entry: Any, spec: StageSpec, field: str, fields: Mapping[str, str]) -> list[tuple[_Placed, ...]]:
    """What one entry of `modules` stacks: for each module of the stack, its alternatives. Nothing for `none`."""
    if entry == NONE:
        return []
    if not isinstance(entry, list):
        return [tuple(_members(entry, spec, field, fields))]
    if not 2 <= len(entry) <= MOST_STACKED:
        raise SpecError.one(field, f"A list here stacks modules in one block: name 2 to {MOST_STACKED}.")
    return [tuple(_members(item, spec, f"{field}.{i}", fields)) for i, item in enumerate(entry)]


def _members(entry: Any, spec: StageSpec, field: str, fields: Mapping[str, str]) -> Iterator[_Placed]:
    """One module in every combination of its options and positions."""
    written = {"kind": entry} if isinstance(entry, str) else entry
    if not isinstance(written, dict) or not isinstance(written.get("kind"), str):
        raise SpecError.one(
            field,
            "Write a module's name, {kind: name, option: value}, or a list of those.",
            [NONE, *sorted(ATTENTION.names())],
        )
    kind = written["kind"]
    if kind == NONE:
        raise SpecError.one(field, "`none` has no options and cannot be stacked.")
    if kind not in ATTENTION:
        try:
            ATTENTION.get(kind, field)
        except SpecError as error:
            raise SpecError(Problem(p.field, p.message, (NONE, *p.choices)) for p in error.problems) from None
    info = ATTENTION.get(kind)
    values = {name: value for name, value in written.items() if name not in ("kind", "position")}
    alternatives = {name: _alternatives(value, f"{field}.{name}") for name, value in values.items()}
    if info.has_reduction and "reduction" not in values:
        alternatives["reduction"] = [(f"{fields['reduction']}.{i}", r) for i, r in enumerate(spec.reduction or [])]
    positions = _positions(info, written.get("position"), spec, field, fields)
    count = math.prod(map(len, alternatives.values())) * len(positions)
    if count > MOST_CHOICES:
        raise _too_large(field)
    for combination in product(*alternatives.values()):
        options = _options(info, dict(zip(alternatives, combination, strict=True)), field)
        sources = {name: source for name, (source, _) in zip(alternatives, combination, strict=True)}
        for source, position in positions:
            yield _Placed(Module(info.name, options), position, field, {**sources, "position": source})


def _alternatives(value: Any, field: str) -> list[tuple[str, Any]]:
    """The values to choose from, each with its path; one alone needs no list."""
    if not isinstance(value, list):
        return [(field, value)]
    if not value:
        raise SpecError.one(field, "An empty list offers nothing to choose from.")
    problems = tuple(_listed_twice(value, field))
    if problems:
        raise SpecError(problems)
    return [(f"{field}.{index}", item) for index, item in enumerate(value)]


def _options(info: AttentionInfo, chosen: Mapping[str, tuple[str, Any]], field: str) -> Options:
    """The module's options; problems are told with the path of the value chosen."""
    try:
        return parse_options(info.options, {name: value for name, (_, value) in chosen.items()})
    except SpecError as error:
        paths = {name: source for name, (source, _) in chosen.items()}
        raise SpecError(
            Problem(paths.get(p.field, field), f"Module {info.name!r}{_of(p.field)}: {p.message}", p.choices)
            for p in error.problems
        ) from None


def _of(option: str) -> str:
    return f", option {shown(option)}" if option else ""


def _positions(
    info: AttentionInfo, own: Any, spec: StageSpec, field: str, fields: Mapping[str, str]
) -> list[tuple[str, Position]]:
    """Where the module goes, each with its path in the request: as it says itself; else as the space says, for
    modules whose own place is in the residual branch; else its own place."""
    if own is not None:
        wanted = _alternatives(own, f"{field}.position")
    elif spec.position is not None and info.positions[0] == "residual":
        wanted = [(f"{fields['position']}.{index}", position) for index, position in enumerate(spec.position)]
    else:
        return [(field, info.positions[0])]
    problems = [
        Problem(source, f"Module {info.name!r}: It cannot go to position {shown(position)}.", info.positions)
        for source, position in wanted
        if position not in info.positions
    ]
    if problems:
        raise SpecError(problems)
    return wanted


def _placed_problems(placed: _Placed, stage: StageGeometry, blocks: Sequence[int]) -> list[Problem]:
    """Why the module cannot be built in the first block where it cannot, in the words of the request."""
    for site, modules in _sites([placed], stage, blocks):
        start = f"placements.{site}"
        found = []
        for problem in site_problems((stage,), site, modules):
            option = problem.field.removeprefix(start).removeprefix(f".{placed.module.kind}").strip(".")
            # a problem of the place has the field of the site alone
            path = placed.field("position" if problem.field == start else option)
            found.append(replace(problem, field=path))
        if found:
            return found
    return []


def _conv_problems(stack: Sequence[_Placed]) -> Iterator[Problem]:
    convs = [placed for placed in stack if placed.position == "conv"]
    if len(convs) > 1:
        kinds = tuple(dict.fromkeys(placed.module.kind for placed in convs))
        yield Problem(convs[1].written, conv_clash(placed.module for placed in convs), kinds)


def _sites(stack: Sequence[_Placed], stage: StageGeometry, blocks: Sequence[int]) -> tuple[Placement, ...]:
    filled: dict[Site, tuple[Module, ...]] = {}
    for placed in stack:
        where = (len(stage.blocks),) if placed.position == "stage_end" else blocks
        for block in where:
            site = Site(stage.number, block, placed.position)
            filled[site] = (*filled.get(site, ()), placed.module)
    return tuple(sorted(filled.items(), key=lambda item: item[0]))


def _choices(
    stack: Sequence[_Placed], stage: StageGeometry, patterns: Sequence[tuple[Pattern, tuple[int, ...]]]
) -> Iterator[Choice]:
    """The stack in each pattern."""
    kinds = "+".join(placed.module.kind for placed in stack) or NONE
    reductions = "+".join(str(getattr(placed.module.options, "reduction", "")) for placed in stack)
    options = "; ".join(placed.module.options.model_dump_json(exclude={"reduction"}) for placed in stack)
    positions = "+".join(placed.position for placed in stack)
    for pattern, blocks in patterns:
        written = pattern if isinstance(pattern, str) else ",".join(map(str, pattern))
        yield Choice(_sites(stack, stage, blocks), (kinds, reductions, options, positions, written))
