"""docs/modules.md and docs/backbones.md name everything in the registries, as it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from search.attention import ATTENTION
from search.attention.registry import AttentionInfo
from search.backbones import BACKBONES
from search.backbones.registry import BackboneInfo
from search.registry import Options
from search.sites import POSITIONS

DOCS = Path(__file__).parents[2] / "docs"
OURS = [info for info in ATTENTION if info.implementation.startswith("search.")]
NETWORKS = [info for info in BACKBONES if info.implementation.startswith("search.")]


def rows(file: str) -> dict[str, list[str]]:
    """The cells after the first of each row of the file's first table, by every name in that cell."""
    found: dict[str, list[str]] = {}
    for line in (DOCS / file).read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            first, *others = (cell.strip() for cell in line.strip("|").split(" | "))
            for name in re.findall("`([^`]+)`", first):
                assert name not in found
                found[name] = [cell.strip() for cell in others]
    return found


def written(value: Any) -> str:
    return {"True": "true", "False": "false", "None": "none"}.get(str(value), str(value))


def cell(options: type[Options]) -> dict[str, tuple[str, set[str]]]:
    """Default and other listed values of every option."""
    found = {}
    for name, schema in options.model_json_schema().get("properties", {}).items():
        others: set[str] = set()
        for part in schema.get("anyOf", [schema]):
            others |= {written(value) for value in part.get("enum", [])}
        found[name] = written(schema["default"]), others - {written(schema["default"])}
    return found


def parsed(text: str) -> dict[str, tuple[str, set[str]]]:
    """The same of a table's cell: `name` default (other, other); …"""
    found = {}
    for part in text.split("; "):
        match = re.fullmatch(r"`(\w+)` (\S+)(?: \((.*)\))?", part)
        assert match, part
        found[match[1]] = match[2], set((match[3] or "").split(", ")) - {"", "odd", "a number"}
    return found


def test_every_module_has_a_row_and_every_row_a_module() -> None:
    assert set(rows("modules.md")) == {info.name for info in OURS}


@pytest.mark.parametrize("info", OURS, ids=lambda info: info.name)
def test_a_modules_row_says_what_the_registry_says(info: AttentionInfo) -> None:
    module, place, identity, options = rows("modules.md")[info.name]
    assert module.startswith(f"{info.title} (")
    paper = re.search(r"arXiv ([\d.]+)", info.source)
    assert paper
    assert f"arxiv.org/abs/{paper[1]})" in module
    assert place == info.positions[0]
    everywhere = {"residual", "pre", "post", "identity", "stage_end"}
    assert set(info.positions) == {"conv"} or everywhere <= set(info.positions) <= set(POSITIONS)
    assert (identity != "no") == info.identity_at_start
    assert parsed(options) == cell(info.options)


def test_every_backbone_has_a_row_and_every_row_a_backbone() -> None:
    assert set(rows("backbones.md")) == {info.name for info in NETWORKS}


@pytest.mark.parametrize("info", NETWORKS, ids=lambda info: info.name)
def test_a_backbones_row_says_what_the_registry_says(info: BackboneInfo) -> None:
    _, options = rows("backbones.md")[info.name]
    assert parsed(options) == cell(info.options)


def test_the_weights_that_fit_are_listed() -> None:
    text = (DOCS / "backbones.md").read_text(encoding="utf-8")
    listed = text.partition("torchvision's files fit")[2].partition("with their default")[0]
    fits = {info.name for info in NETWORKS if info.pretrained_as}
    between = {"resnet34", "resnet50", "resnet101"}
    assert set(re.findall("`(\\w+)`", listed)) == fits - between
    assert between <= fits
