"""Steps of the hypervolume: those of a loop that measures every prefix."""

from __future__ import annotations

import numpy as np
import pytest

from search.pareto import Bounds, Objective
from service.fronts import steps

TWO = (Objective("top1", "max"), Objective("macs", "min"))
THREE = (*TWO, Objective("params", "min"))


@pytest.mark.parametrize("objectives", [TWO, THREE])
def test_steps_are_those_of_every_prefix(objectives: tuple[Objective, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "CHUNK", 7)
    bounds = Bounds(objectives, (1.0, 10.0, 10.0)[: len(objectives)], (0.0, 100.0, 100.0)[: len(objectives)])
    rng = np.random.default_rng(4)
    # rounded, so that there are equal ones; some beyond the worst
    values = np.column_stack([rng.random(90).round(2), rng.uniform(5, 110, (90, len(objectives) - 1)).round()])
    found = dict(steps.raising(bounds, list(range(1, 91)), values))
    reached = 0.0
    for number in range(1, 91):
        volume = bounds.hypervolume(values[:number])
        if volume > reached + 1e-12:
            assert found[number] == pytest.approx(volume)
        else:
            assert number not in found or found[number] == pytest.approx(reached)
        reached = volume
    assert steps.raising(bounds, [], values[:0]) == []


def test_many_steps_are_thinned_to_the_ends_and_a_curve_between() -> None:
    many = [(number, 1 - 1 / number) for number in range(1, 5000)]
    few = steps.thinned(many)
    assert len(few) <= steps.MOST_STEPS
    assert (few[0], few[-1]) == (many[0], many[-1])
    assert few == sorted(few)
    gaps = np.diff([volume for _, volume in few])
    assert gaps.max() < 0.51  # the first step of all is half of it
    assert steps.thinned(many[:5]) == many[:5]
