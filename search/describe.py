"""Architectures in words, short enough for a table: "S1-2 b1-2: SE r=8 · S3 end: BAM r=16 d=2"."""

from __future__ import annotations

from collections.abc import Iterable

from search.architecture import Architecture, Module
from search.sites import Site

SHORT = {"reduction": "r", "dilation": "d", "kernel_size": "k", "kernel": "k"}


def describe(architecture: Architecture) -> str:
    """What is placed where, stage by stage; stages with the same placement are told together."""
    if architecture.is_baseline:
        return "no attention"
    per_stage: dict[int, str] = {}
    for stage in sorted({site.stage for site, _ in architecture.placements}):
        mine = [(site, modules) for site, modules in architecture.placements if site.stage == stage]
        per_stage[stage] = ", ".join(_stage(mine))
    merged: dict[str, list[int]] = {}
    for stage, text in per_stage.items():
        merged.setdefault(text, []).append(stage)
    return " · ".join(f"S{_ranges(stages)} {text}" for text, stages in merged.items())


def module_label(module: Module) -> str:
    """The module and the options that differ from its defaults; the reduction ratio always."""
    defaults = {name: field.default for name, field in module.info.options.model_fields.items()}
    values = module.options.model_dump()
    told = [
        f"{SHORT.get(k, k)}={v}" for k, v in values.items() if v is not None and (v != defaults[k] or k == "reduction")
    ]
    return " ".join([module.kind.upper() if len(module.kind) <= 4 else module.kind, *told])


def _stage(placements: Iterable[tuple[Site, tuple[Module, ...]]]) -> list[str]:
    """One text per group of sites of a stage that hold the same modules at the same position."""
    groups: dict[tuple[str, str], list[int]] = {}
    for site, modules in placements:
        groups.setdefault((site.position, " + ".join(module_label(m) for m in modules)), []).append(site.block)
    texts = []
    for (position, label), blocks in groups.items():
        where = "end" if position == "stage_end" else f"b{_ranges(blocks)}"
        at = "" if position in ("residual", "stage_end", "conv") else f" {position}"
        texts.append(f"{where}{at}: {label}")
    return texts


def _ranges(numbers: list[int]) -> str:
    """[1, 2, 3, 5] as "1-3,5"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)
