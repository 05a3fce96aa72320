"""What one stage may choose: the request's modules, options, positions and patterns multiplied out into sites."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

from search.architecture import Module, Placement, site_problems
from search.attention import ATTENTION
from search.attention.registry import AttentionInfo
from search.errors import Problem, SpecError
from search.registry import parse_options
from search.sites import PATTERN_NAMES, Pattern, Position, Site, StageGeometry, pattern_blocks
from search.spec import StageSpec

NONE = "none"


@dataclass(frozen=True)
class Choice:
    """One way to fill a stage (or, merged, all stages).

    placements: sites and modules, sorted by site. traits: how it was written, one text per name in TRAITS;
    two choices that differ in one trait are close to each other.
    """

    TRAITS: ClassVar[tuple[str, ...]] = ("module", "options", "position", "pattern")

    placements: tuple[Placement, ...]
    traits: tuple[str, str, str, str]

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
        return sum(mine != theirs for mine, theirs in zip(self.traits, other.traits, strict=True))

    @classmethod
    def merge(cls, choices: Sequence[Choice]) -> Choice:
        """The same decision taken in several stages."""
        return cls(tuple(sorted((p for c in choices for p in c.placements), key=lambda p: p[0])), choices[0].traits)


@dataclass(frozen=True)
class _Placed:
    """A module with its position in the block."""

    module: Module
    position: Position


def stage_choices(spec: StageSpec, stage: StageGeometry, fields: dict[str, str]) -> tuple[Choice, ...]:
    """Every choice that `spec` (all settings given) allows in `stage`, in the order written, duplicates included.

    fields: where each setting stands in the request, for errors. SpecError holds everything that cannot be built.
    """
    problems: list[Problem] = []
    patterns: list[tuple[Pattern, tuple[int, ...]]] = []
    for index, raw in enumerate(spec.pattern or []):
        try:
            pattern = _pattern(raw, f"{fields['pattern']}.{index}")
            patterns.append((pattern, pattern_blocks(pattern, len(stage.blocks), f"{fields['pattern']}.{index}")))
        except SpecError as error:
            problems += [Problem(p.field, f"Stage {stage.number}: {p.message}", p.choices) for p in error.problems]
    problems += _duplicates(spec, fields)
    choices: list[Choice] = []
    for index, entry in enumerate(spec.modules or []):
        field = f"{fields['modules']}.{index}"
        try:
            for stack in _stacks(entry, spec, field, fields):
                problems += _stack_problems(stack, stage, field, fields)
                choices += [_choice(stack, stage, pattern, blocks) for pattern, blocks in patterns]
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(dict.fromkeys(problems))
    return tuple(choices)


def _duplicates(spec: StageSpec, fields: dict[str, str]) -> Iterator[Problem]:
    for name in ("modules", "reduction", "pattern", "position"):
        seen: list[Any] = []
        for index, value in enumerate(getattr(spec, name) or []):
            if value in seen:
                yield Problem(f"{fields[name]}.{index}", f"{value!r} is listed twice.")
            seen.append(value)


def _pattern(raw: Any, field: str) -> Pattern:
    if isinstance(raw, str):
        for name in PATTERN_NAMES:
            if raw == name:
                return name
    elif isinstance(raw, list) and raw and all(isinstance(i, int) and not isinstance(i, bool) for i in raw):
        return tuple(sorted(set(raw)))
    raise SpecError.one(field, "Not a pattern.", [*PATTERN_NAMES, "a list of block numbers"])


def _stacks(entry: Any, spec: StageSpec, field: str, fields: dict[str, str]) -> Iterator[tuple[_Placed, ...]]:
    """Every stack of modules that one entry of `modules` stands for."""
    if isinstance(entry, list):
        if len(entry) < 2:
            raise SpecError.one(field, "A list here stacks modules in one block: name at least two.")
        members = [tuple(_members(item, spec, f"{field}.{i}", fields)) for i, item in enumerate(entry)]
        yield from product(*members)
    elif entry == NONE:
        yield ()
    else:
        yield from ((placed,) for placed in _members(entry, spec, field, fields))


def _members(entry: Any, spec: StageSpec, field: str, fields: dict[str, str]) -> Iterator[_Placed]:
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
    if info.has_reduction:
        values.setdefault("reduction", list(spec.reduction or []))
    positions = _positions(info, written.get("position"), spec, field, fields)
    lists = [value if isinstance(value, list) else [value] for value in values.values()]
    for name, choices in zip(values, lists, strict=True):
        if not choices:
            raise SpecError.one(f"{field}.{name}", "An empty list offers nothing to choose from.")
    for combination in product(*lists):
        options = parse_options(info.options, dict(zip(values, combination, strict=True)), field)
        for position in positions:
            yield _Placed(Module(info.name, options), position)


def _positions(
    info: AttentionInfo, own: Any, spec: StageSpec, field: str, fields: dict[str, str]
) -> tuple[Position, ...]:
    """Where the module goes: as it says itself; else as the space says, for modules whose own place is in the
    residual branch; else its own place."""
    if own is not None:
        wanted = own if isinstance(own, list) else [own]
        where = f"{field}.position"
    elif spec.position is not None and info.positions[0] == "residual":
        wanted, where = spec.position, fields["position"]
    else:
        return info.positions[:1]
    for position in wanted:
        if position not in info.positions:
            raise SpecError.one(where, f"Module {info.name!r} cannot go to position {position!r}.", info.positions)
    return tuple(dict.fromkeys(wanted))


def _stack_problems(
    stack: Sequence[_Placed], stage: StageGeometry, field: str, fields: dict[str, str]
) -> Iterator[Problem]:
    """What keeps the stack from being built in any block of the stage, in the words of the request."""
    last = len(stage.blocks)
    for block in range(1, last + 1):
        for site, modules in _sites(stack, stage, (block,)):
            for problem in site_problems((stage,), site, modules):
                option = problem.field.rpartition(".")[2]
                path = fields["reduction"] if option == "reduction" else field
                if option not in ("reduction", site.position, *(m.kind for m in modules)):
                    path = f"{field}.{option}"
                yield Problem(path, problem.message, problem.choices)


def _sites(stack: Sequence[_Placed], stage: StageGeometry, blocks: Sequence[int]) -> tuple[Placement, ...]:
    filled: dict[Site, tuple[Module, ...]] = {}
    for placed in stack:
        where = (len(stage.blocks),) if placed.position == "stage_end" else blocks
        for block in where:
            site = Site(stage.number, block, placed.position)
            filled[site] = (*filled.get(site, ()), placed.module)
    return tuple(sorted(filled.items(), key=lambda item: item[0]))


def _choice(stack: Sequence[_Placed], stage: StageGeometry, pattern: Pattern, blocks: tuple[int, ...]) -> Choice:
    options = "; ".join(placed.module.options.model_dump_json() for placed in stack)
    traits = (
        "+".join(placed.module.kind for placed in stack) or NONE,
        options,
        "+".join(placed.position for placed in stack),
        pattern if isinstance(pattern, str) else ",".join(map(str, pattern)),
    )
    return Choice(_sites(stack, stage, blocks), traits)
