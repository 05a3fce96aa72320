"""An architecture: a backbone, and the modules at each of its sites; its canonical form, key and validity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from search.attention import ATTENTION
from search.attention.registry import AttentionInfo
from search.backbones import BACKBONES
from search.backbones.registry import BackboneInfo
from search.errors import Problem, SpecError
from search.registry import Options, parse_options
from search.sites import Point, Position, Shape, Site, StageGeometry, find_stage


@dataclass(frozen=True)
class Task:
    """What a network is asked to do.

    input_shape: C × H × W of one image. classes: number of outputs.
    """

    input_shape: Shape
    classes: int
    kind: Literal["classification"] = "classification"


@dataclass(frozen=True)
class Module:
    """An attention module with all its options, defaults included."""

    kind: str
    options: Options

    @classmethod
    def make(cls, kind: str, field: str = "", **options: Any) -> Module:
        """Checks `kind` and `options`; SpecError names the field and the valid choices."""
        return cls.parse(kind, options, field)

    @classmethod
    def parse(cls, kind: str, options: Mapping[str, Any], field: str = "") -> Module:
        """`make` for options as a user wrote them, whatever their names."""
        info = ATTENTION.get(kind, f"{field}.kind".strip("."))
        return cls(kind, parse_options(info.options, options, field))

    @property
    def info(self) -> AttentionInfo:
        return ATTENTION.get(self.kind)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **self.options.model_dump(mode="json")}


@dataclass(frozen=True)
class Backbone:
    """A backbone with all its options, defaults included."""

    name: str
    options: Options

    @classmethod
    def make(cls, name: str, field: str = "backbone", **options: Any) -> Backbone:
        """Checks `name` and `options`; SpecError names the field and the valid choices."""
        return cls.parse(name, options, field)

    @classmethod
    def parse(cls, name: str, options: Mapping[str, Any], field: str = "backbone") -> Backbone:
        """`make` for options as a user wrote them, whatever their names."""
        info = BACKBONES.get(name, f"{field}.name")
        return cls(name, parse_options(info.options, options, field))

    @property
    def info(self) -> BackboneInfo:
        return BACKBONES.get(self.name)

    def stages(self, input_shape: Shape) -> tuple[StageGeometry, ...]:
        return self.info.geometry(self.options, input_shape)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, **self.options.model_dump(mode="json")}


Placement = tuple[Site, tuple[Module, ...]]


@dataclass(frozen=True)
class Architecture:
    """A backbone and what sits at each site, in the order of the sites; modules at one site apply in order.

    Two genotypes that place the same modules at the same sites give equal architectures with equal keys.
    """

    backbone: Backbone
    placements: tuple[Placement, ...] = ()

    @classmethod
    def make(cls, backbone: Backbone, placements: Mapping[Site, Iterable[Module]]) -> Architecture:
        """The canonical form: sites sorted, empty ones dropped."""
        filled = ((site, tuple(modules)) for site, modules in placements.items())
        return cls(backbone, tuple(sorted((p for p in filled if p[1]), key=lambda p: p[0])))

    @property
    def is_baseline(self) -> bool:
        """True for the backbone without attention."""
        return not self.placements

    def to_json(self) -> dict[str, Any]:
        return {
            "backbone": self.backbone.to_json(),
            "placements": {str(site): [module.to_json() for module in modules] for site, modules in self.placements},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Architecture:
        """The inverse of `to_json`; unknown names and options are a SpecError."""
        backbone = Backbone.parse(*_named(data.get("backbone"), "name", "backbone"))
        placements = {}
        for text, modules in data.get("placements", {}).items():
            field = f"placements.{text}"
            placements[Site.parse(text, field)] = [Module.parse(*_named(m, "kind", field)) for m in modules]
        return cls.make(backbone, placements)

    @cached_property
    def key(self) -> str:
        """SHA-256 (hex) of the canonical JSON."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def problems(self, input_shape: Shape) -> Iterator[Problem]:
        """Everything that keeps this architecture from being built on images of `input_shape`."""
        stages = self.backbone.stages(input_shape)
        for site, modules in self.placements:
            yield from site_problems(stages, site, modules)

    def check(self, input_shape: Shape) -> None:
        """Raises SpecError with every problem, or returns."""
        problems = tuple(self.problems(input_shape))
        if problems:
            raise SpecError(problems)


def _named(data: Any, key: str, field: str) -> tuple[str, dict[str, Any], str]:
    """What `data` names, its options, and the field; SpecError for anything but an object with that name."""
    if not isinstance(data, Mapping) or not isinstance(data.get(key), str):
        raise SpecError.one(field, f"Must be an object with a text `{key}` and options.")
    return data[key], {name: value for name, value in data.items() if name != key}, field


def site_problems(stages: tuple[StageGeometry, ...], site: Site, modules: Iterable[Module]) -> Iterator[Problem]:
    """What keeps `modules` from being put at `site`; each problem names stage, module and option."""
    field = f"placements.{site}"
    try:
        stage = find_stage(stages, site.stage, field)
    except SpecError as error:
        yield from error.problems
        return
    if not 1 <= site.block <= len(stage.blocks):
        yield Problem(
            field, f"Stage {site.stage} has no block {site.block}.", tuple(str(i + 1) for i in range(len(stage.blocks)))
        )
        return
    points = stage.blocks[site.block - 1].points
    modules = tuple(modules)
    for module in modules:
        for problem in _module_problems(module, site, points):
            where = f"Stage {site.stage}, module {module.kind!r}: "
            yield Problem(f"{field}.{problem.field}".strip("."), where + problem.message, problem.choices)
    if site.position == "conv" and len(modules) > 1:
        yield Problem(field, conv_clash(modules), tuple(dict.fromkeys(module.kind for module in modules)))


def _module_problems(module: Module, site: Site, points: Mapping[Position, tuple[Point, ...]]) -> Iterator[Problem]:
    """What keeps one module from the site of a block that has these points; fields are the module's and option's."""
    if site.position not in module.info.positions:
        yield Problem("", f"It cannot go to position {site.position!r}.", module.info.positions)
        return
    if site.position not in points:
        there = tuple(position for position in points if position in module.info.positions)
        yield Problem("", f"Block {site.block} has no position {site.position!r}.", there)
        return
    for point in points[site.position]:
        for problem in module.info.check(module.options, point):
            yield problem.under(module.kind)


def conv_clash(modules: Iterable[Module]) -> str:
    """What is wrong with several modules in the place of one convolution."""
    kinds = " and ".join(repr(module.kind) for module in modules)
    return f"Modules {kinds}: Only one module can replace a convolution."
