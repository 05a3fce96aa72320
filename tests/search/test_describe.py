"""Architectures in words."""

from __future__ import annotations

from typing import Any

import pytest

from search.architecture import Architecture, Backbone, Module
from search.describe import describe, module_label
from search.sites import Site

SE, CBAM = Module.make("se", reduction=8), Module.make("cbam", reduction=4, kernel=3)


def everywhere(stages: list[int], blocks: list[int], position: Any, *modules: Module) -> dict[Site, tuple[Module, ...]]:
    return {Site(stage, block, position): modules for stage in stages for block in blocks}


@pytest.mark.parametrize(
    ("placements", "words"),
    [
        ({}, "no attention"),
        (everywhere([1, 2, 3], [1, 2], "residual", SE), "S1-3 b1-2: SE r=8"),
        (everywhere([1, 3], [1, 3], "residual", SE), "S1,3 b1,3: SE r=8"),
        (everywhere([1], [1], "pre", SE), "S1 b1 pre: SE r=8"),
        (everywhere([2], [3], "stage_end", SE), "S2 end: SE r=8"),
        (everywhere([1, 2], [1, 2], "residual", SE) | everywhere([3], [3], "stage_end", Module.make("bam", dilation=2)),
         "S1-2 b1-2: SE r=8 · S3 end: BAM r=16 d=2"),
        (everywhere([1], [1, 2], "residual", SE, CBAM), "S1 b1-2: SE r=8 + CBAM r=4 k=3"),
        (everywhere([1], [1], "residual", SE) | everywhere([1], [2], "residual", CBAM),
         "S1 b1: SE r=8, b2: CBAM r=4 k=3"),
        (everywhere([1], [1], "conv", Module.make("aw")) | everywhere([1], [1], "post", SE),
         "S1 b1: AW r=16, b1 post: SE r=8"),
    ],
)  # fmt: skip
def test_descriptions(placements: dict[Site, tuple[Module, ...]], words: str) -> None:
    assert describe(Architecture.make(Backbone.make("resnet20"), placements)) == words


def test_a_label_tells_the_ratio_and_what_is_not_the_default() -> None:
    assert module_label(Module.make("se")) == "SE r=16"
    assert module_label(Module.make("cbam", pool="max", order="parallel")) == "CBAM r=16 pool=max order=parallel"
    assert module_label(Module.make("nonlocal")) == "nonlocal"
