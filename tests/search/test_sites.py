"""Sites as text, and which blocks a pattern picks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.architecture import Backbone
from search.errors import SpecError
from search.sites import POSITIONS, Site, find_stage, pattern_blocks

SITES = st.builds(Site, st.integers(1, 99), st.integers(1, 999), st.sampled_from(POSITIONS))


@given(SITES)
def test_a_site_reads_as_it_is_written(site: Site) -> None:
    assert Site.parse(str(site)) == site


@pytest.mark.parametrize(
    "text",
    ["", "1.1", "1.1.residual.2", "0.1.residual", "1.0.pre", "01.1.pre", "1.²·pre", "1.²..pre", "²..1.pre", "١.1.pre",
     "-1.1.pre", "1.1.middle", " 1.1.pre", "1.1.pre\n", "9" * 5000 + ".1.pre", "1.1.RESIDUAL"],
)  # fmt: skip
def test_anything_else_is_not_a_site(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        Site.parse(text, "here")
    (problem,) = caught.value.problems
    assert problem.field == "here"
    assert problem.choices == POSITIONS
    assert len(problem.message) < 200


@given(st.text())
def test_only_what_a_site_writes_is_one(text: str) -> None:
    try:
        site = Site.parse(text)
    except SpecError:
        return
    assert str(site) == text


@pytest.mark.parametrize(
    ("pattern", "blocks", "picked"),
    [
        ("every", 4, (1, 2, 3, 4)),
        ("first", 4, (1,)),
        ("last", 4, (4,)),
        ("alternate", 4, (1, 3)),
        ("alternate", 5, (1, 3, 5)),
        ("alternate", 1, (1,)),
        ((3, 1), 4, (1, 3)),
    ],
)
def test_patterns_pick_blocks_from_one(pattern: Any, blocks: int, picked: tuple[int, ...]) -> None:
    assert pattern_blocks(pattern, blocks) == picked


@pytest.mark.parametrize("pattern", [(), (0,), (-1, 2), (5,), (1, 5), "odd", ""])
def test_blocks_outside_the_stage_are_refused(pattern: Any) -> None:
    with pytest.raises(SpecError) as caught:
        pattern_blocks(pattern, 4, "p")
    assert caught.value.problems[0].field == "p"
    assert set(caught.value.problems[0].choices) >= {"every", "first", "last", "alternate"}


def test_a_stage_that_the_backbone_lacks() -> None:
    with pytest.raises(SpecError) as caught:
        find_stage(Backbone.make("resnet14").stages((1, 12, 12)), 4, "stages.4")
    (problem,) = caught.value.problems
    assert (problem.field, problem.choices) == ("stages.4", ("1", "2", "3"))
