"""The strip: what is drawn where, and the same in words."""

from __future__ import annotations

from typing import Any

import pytest

from search.architecture import Architecture, Backbone, Module
from search.attention import ATTENTION
from search.sites import Site
from service.dashboard import assets
from service.strips import PALETTE, make_strip, module_colour

BACKBONE = Backbone.make("resnet20", width=16)


def strip_of(placements: dict[str, list[tuple[str, dict[str, Any]]]]) -> Any:
    sites = {
        Site.parse(site): [Module.make(kind, **options) for kind, options in put] for site, put in placements.items()
    }
    return make_strip(Architecture.make(BACKBONE, sites).to_json(), (1, 32, 32))


SE4, SE16, CBAM8 = ("se", {"reduction": 4}), ("se", {"reduction": 16}), ("cbam", {"reduction": 8})
ALL = [f"{stage}.{block}.residual" for stage in (1, 2, 3) for block in (1, 2, 3)]


@pytest.mark.parametrize(
    ("placements", "words"),
    [
        ({}, "no attention"),
        ({f"3.{block}.residual": [CBAM8] for block in (1, 2, 3)}, "stage 3: CBAM in every block, r = 8"),
        ({site: [SE4] for site in ALL}, "all stages: SE in every block, r = 4"),
        ({f"{stage}.3.residual": [SE4] for stage in (1, 2)}, "stages 1 and 2: SE in the last block, r = 4"),
        ({"2.1.residual": [SE4]}, "stage 2: SE in the first block, r = 4"),
        ({"2.1.residual": [SE4], "2.3.residual": [SE4]}, "stage 2: SE in every other block, r = 4"),
        ({"2.2.residual": [SE4], "2.3.residual": [SE4]}, "stage 2: SE in blocks 2 and 3, r = 4"),
        ({"1.3.stage_end": [CBAM8]}, "stage 1: CBAM at the end, r = 8"),
        ({"1.2.pre": [SE16]}, "stage 1: SE before the branch of block 2, r = 16"),
        ({"1.2.residual": [SE4, CBAM8]}, "stage 1: SE (r = 4) + CBAM (r = 8) in block 2"),
        ({"1.2.residual": [("cbam", {"reduction": 8, "kernel": 3})]}, "stage 1: CBAM in block 2, r = 8, kernel = 3"),
        (
            {"1.1.residual": [SE4], "1.3.residual": [CBAM8]},
            "stage 1: SE in the first block, r = 4, CBAM in the last block, r = 8",
        ),
    ],
)
def test_words(placements: dict[str, Any], words: str) -> None:
    assert strip_of(placements).words == words


def test_there_is_a_square_for_every_block_and_marks_only_where_modules_are() -> None:
    strip = strip_of({"2.1.residual": [SE4, CBAM8], "3.3.stage_end": [CBAM8]})
    assert [len(stage.squares) for stage in strip.stages] == [3, 3, 3]
    filled = {(stage.number, square.block) for stage in strip.stages for square in stage.squares if square.marks}
    assert filled == {(2, 1)}
    assert [mark.kind for mark in strip.stages[1].squares[0].marks] == ["se", "cbam"]
    assert [[mark.kind for mark in stage.ends] for stage in strip.stages] == [[], [], ["cbam"]]


def test_a_stronger_module_is_fuller() -> None:
    levels = [
        strip_of({"1.1.residual": [("se", {"reduction": r})]}).stages[0].squares[0].marks[0].level
        for r in (1, 2, 4, 8, 16)
    ]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] == 1.0
    assert min(levels) > 0


def test_every_module_has_a_colour_of_its_own_the_same_on_the_page() -> None:
    colours = [module_colour(name) for name in ATTENTION.names()]
    assert all(0 <= colour < len(PALETTE) for colour in colours)
    assert len(set(colours)) == len(colours)
    assert 0 <= module_colour("somebody_elses") < len(PALETTE)
    styles = assets.load("attune.css").content.decode()
    for index, colour in enumerate(PALETTE):
        assert f"--m{index}: {colour};" in styles


def test_a_backbone_that_is_not_installed_is_drawn_from_its_placements() -> None:
    document = {
        "backbone": {"name": "somebody_elses"},
        "placements": {"2.2.residual": [{"kind": "theirs", "gamma": 3}]},
    }
    strip = make_strip(document)
    assert [(stage.number, len(stage.squares)) for stage in strip.stages] == [(2, 2)]
    assert strip.words == "stage 2: theirs in the last block, gamma = 3"
