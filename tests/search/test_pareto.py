"""Fronts, ranks and hypervolume against brute force and closed forms."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.errors import SpecError
from search.metrics import METRICS, metric
from search.pareto import Bounds, Objective, crowding, front, minimised, ranks

TOP1, LOSS = Objective("top1", "max"), Objective("loss", "min")
MACS, PARAMS = Objective("macs", "min"), Objective("params", "min")
RANGES = {"macs": (100.0, 200.0), "params": (10.0, 40.0)}

Rows = list[tuple[float, ...]]


def rows(values: st.SearchStrategy[float], columns: tuple[int, ...] = (2, 3, 4)) -> st.SearchStrategy[Rows]:
    return st.sampled_from(columns).flatmap(lambda m: st.lists(st.tuples(*[values] * m), min_size=1, max_size=24))


GRID = rows(st.integers(0, 5).map(float))  # many ties
REAL = rows(st.floats(-1e6, 1e6))


def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other


def brute_ranks(points: Rows) -> list[int]:
    """Peels the front off until nothing is left."""
    found: dict[int, int] = {}
    level = 0
    while len(found) < len(points):
        left = [i for i in range(len(points)) if i not in found]
        peeled = [i for i in left if not any(dominates(points[j], points[i]) for j in left)]
        found |= dict.fromkeys(peeled, level)
        level += 1
    return [found[i] for i in range(len(points))]


@settings(deadline=None)
@given(GRID | REAL)
def test_fronts_and_ranks_are_those_of_brute_force(points: Rows) -> None:
    expected = brute_ranks(points)
    assert ranks(points).tolist() == expected
    assert front(points).tolist() == [rank == 0 for rank in expected]


def test_nothing_has_an_empty_front() -> None:
    assert front([]).shape == (0,)
    assert ranks([]).shape == (0,)
    assert minimised([], (TOP1, MACS)).shape == (0, 2)


def test_more_is_better_turns_the_sign() -> None:
    assert minimised([(0.9, 5.0)], (TOP1, MACS)).tolist() == [[-0.9, 5.0]]
    assert minimised([0.9, 5.0, 0.8, 4.0], (TOP1, MACS)).shape == (2, 2)


def test_the_front_of_accuracy_and_cost() -> None:
    """Cheap and bad, dear and good, and one that is worse and dearer; equal points stay together."""
    values = [(0.8, 100.0), (0.9, 200.0), (0.85, 210.0), (0.8, 100.0), (0.7, 100.0)]
    assert front(minimised(values, (TOP1, MACS))).tolist() == [True, True, False, True, False]


def test_bounds_are_those_of_the_design() -> None:
    bounds = Bounds.make((TOP1, LOSS, MACS, PARAMS), RANGES, classes=10)
    assert bounds.best == (1.0, 0.0, 100.0, 10.0)
    assert bounds.worst == (0.0, 2 * math.log(10), 210.0, 42.0)
    assert bounds.reference_point == {"top1": 0.0, "loss": 2 * math.log(10), "macs": 210.0, "params": 42.0}
    assert Bounds.from_json(json.loads(json.dumps(bounds.to_json()))) == bounds


def test_bounds_are_scaled_to_zero_and_one() -> None:
    bounds = Bounds.make((TOP1, MACS), RANGES, classes=10)
    assert bounds.scale([bounds.best, bounds.worst, (0.25, 155.0)]).tolist() == [[0, 0], [1, 1], [0.75, 0.5]]


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(100, 210)), max_size=12))
def test_hypervolume_in_the_plane_is_the_area_under_the_stairs(values: list[tuple[float, float]]) -> None:
    bounds = Bounds.make((TOP1, MACS), RANGES, classes=10)
    area, best = 0.0, 0.0
    stairs = sorted(values, key=lambda v: v[1])
    for (accuracy, cost), after in itertools.zip_longest(stairs, stairs[1:]):
        best = max(best, accuracy)
        until = after[1] if after else 210.0
        area += best * (until - cost) / 110.0
    assert bounds.hypervolume(values) == pytest.approx(area, abs=1e-12)


def union_of_boxes(scaled: npt.NDArray[np.float64]) -> float:
    """Volume that points dominate in the unit box, by inclusion and exclusion."""
    total = 0.0
    for size in range(1, len(scaled) + 1):
        for chosen in itertools.combinations(scaled, size):
            total -= (-1) ** size * float(np.prod(1 - np.max(chosen, axis=0)))
    return total


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.integers(0, 6), st.sampled_from([3, 4]))
def test_hypervolume_in_space_is_the_union_of_boxes(seed: int, count: int, columns: int) -> None:
    objectives = (TOP1, MACS, PARAMS, LOSS)[:columns]
    bounds = Bounds.make(objectives, RANGES, classes=10)
    scaled = np.random.default_rng(seed).random((count, columns))
    best, worst = np.asarray(bounds.best), np.asarray(bounds.worst)
    assert bounds.hypervolume(best + scaled * (worst - best)) == pytest.approx(union_of_boxes(scaled), abs=1e-12)


def test_hypervolume_ends_at_the_bounds() -> None:
    bounds = Bounds.make((TOP1, MACS), RANGES, classes=10)
    assert bounds.hypervolume([]) == 0.0
    assert bounds.hypervolume([bounds.best]) == 1.0
    assert bounds.hypervolume([(0.5, 155.0)]) == pytest.approx(0.25)
    # a control cheaper than the whole space counts as the cheapest, one beyond the worst bound not at all
    assert bounds.hypervolume([(0.5, 50.0)]) == pytest.approx(0.5)
    assert bounds.hypervolume([(0.9, 300.0), (0.0, 100.0), (0.5, 210.0)]) == 0.0


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(90, 250)), min_size=1, max_size=10))
def test_hypervolume_grows_and_is_that_of_the_front(values: list[tuple[float, float]]) -> None:
    bounds = Bounds.make((TOP1, MACS), RANGES, classes=10)
    along = [bounds.hypervolume(values[:count]) for count in range(len(values) + 1)]
    assert all(after >= before - 1e-12 for before, after in itertools.pairwise(along))
    kept = front(minimised(values, bounds.objectives))
    assert bounds.hypervolume(np.asarray(values)[kept]) == pytest.approx(along[-1], abs=1e-12)


def test_crowding_by_hand() -> None:
    """Ends are infinite; between, the sides of the box to the neighbours over the spans (10 and 8)."""
    points = np.asarray([[0.0, 8.0], [2.0, 5.0], [6.0, 4.0], [10.0, 0.0]])
    assert crowding(points).tolist() == [
        math.inf,
        pytest.approx(6 / 10 + 4 / 8),
        pytest.approx(8 / 10 + 5 / 8),
        math.inf,
    ]
    assert crowding(points[::-1].copy()).tolist() == crowding(points).tolist()[::-1]


@pytest.mark.parametrize("points", [[[1.0, 2.0]], [[1.0, 2.0], [2.0, 1.0]], [[1.0, 2.0]] * 2])
def test_few_points_are_all_ends(points: list[list[float]]) -> None:
    assert np.isinf(crowding(np.asarray(points))).all()


def test_equal_points_crowd_each_other() -> None:
    distance = crowding(np.asarray([[0.0, 4.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [4.0, 0.0]]))
    assert distance[2] == 0


def test_an_unknown_metric_lists_the_known() -> None:
    assert metric("top1").goal == "max"
    assert {m.goal for m in METRICS.values() if m.kind == "cost"} == {"min"}
    with pytest.raises(SpecError) as caught:
        metric("flops", "objectives.1.metric")
    (problem,) = caught.value.problems
    assert problem.field == "objectives.1.metric"
    assert problem.choices == tuple(sorted(METRICS))
