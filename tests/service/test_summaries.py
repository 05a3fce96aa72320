"""What a front says in words."""

from __future__ import annotations

from typing import Any

import pytest

from service.summaries import front_view, input_shape, planned_trials

BACKBONE = {"name": "resnet8", "width": 8, "shortcut": "projection"}


def point(trial: str, top1: float, macs: int, role: str = "explore", **sites: Any) -> dict[str, Any]:
    placements = {site.replace("_", "."): modules for site, modules in sites.items()}
    return {
        "trial_id": trial, "number": 1, "role": role, "status": "succeeded", "label": "", "seed": 0,
        "values": {"top1": top1, "macs": macs}, "architecture": {"backbone": BACKBONE, "placements": placements},
    }  # fmt: skip


def front(points: list[dict[str, Any]], baseline: dict[str, Any] | None, dominated: int = 0) -> dict[str, Any]:
    return {
        "points": points,
        "baseline": baseline,
        "controls": [],
        "hypervolume": 0.9,
        "dominated": {"count": dominated, "points": []},
    }


BASE = point("b", 0.92, 1000, "baseline")


def better(top1: float) -> dict[str, Any]:
    return point("x", top1, 1010, **{"3_1_residual": [{"kind": "se", "reduction": 4}]})


def test_the_headline_names_the_best_placement_its_gain_and_its_cost() -> None:
    text = front_view(front([BASE, better(0.94)], BASE, dominated=3)).headline
    assert (
        text == "Best of 4 placements: stage 3: SE in its block, r = 4 – +2.00 points for +1.00 % MACs, one seed each."
    )


def test_a_gain_that_a_seed_may_make_is_called_so() -> None:
    assert front_view(front([BASE, better(0.925)], BASE)).headline.endswith(
        "That is within what another seed may change."
    )


@pytest.mark.parametrize("points", [[BASE], [point("x", 0.91, 900), BASE]])
def test_no_gain_is_no_claim(points: list[dict[str, Any]]) -> None:
    assert "beats the backbone without attention yet" in front_view(front(points, BASE)).headline


def test_without_a_baseline_nothing_is_said() -> None:
    assert front_view(front([better(0.94)], None)).headline == ""


def test_gain_and_extra_cost_are_over_the_baseline() -> None:
    row = front_view(front([BASE, better(0.94)], BASE)).rows[1]
    assert (row.gain_text, row.extra_text) == ("+2.00", "+1.00 %")


def test_the_input_shape_follows_the_options_and_is_unknown_for_a_data_set_that_is_gone() -> None:
    from tests.service.filling import CLUTTERED

    documents = [CLUTTERED.model_dump(mode="json")]
    assert input_shape({"dataset": {"name": "cluttered-digits", "canvas": 48}}, documents) == (1, 48, 48)
    assert input_shape({"dataset": {"name": "gone"}}, documents) is None


def test_the_number_of_trials_does_not_grow_while_the_controls_start() -> None:
    spec = {
        "space": {"modules": ["none", "se", ["se", "cbam"], {"kind": "bam"}], "stages": {"3": {"modules": ["aw"]}}},
        "controls": True,
        "budget": {"trials": 10},
        "confirm": {"top": 2, "seeds": 3},
    }
    assert [planned_trials(spec, phase, n) for phase, n in ((None, 0), ("controls", 2), ("explore", 5))] == [21, 21, 21]
    assert planned_trials(spec | {"controls": False, "confirm": None}, None, 0) == 11
