"""Two searches side by side: fronts by hand, and a verdict that is right as often as it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from search.comparison import Result, compare, placements
from search.pareto import Bounds, Objective

BOUNDS = Bounds((Objective("top1", "max"), Objective("macs", "min")), (1.0, 0.0), (0.0, 100.0))


def explored(**values: tuple[float, float]) -> list[Result]:
    return [Result(key, "explore", 0, value) for key, value in values.items()]


def confirmed(key: str, macs: float, *tops: float) -> list[Result]:
    return [Result(key, "confirm", seed, (top, macs)) for seed, top in enumerate(tops, start=1)]


def brought(key: str, macs: float, *tops: float) -> list[Result]:
    return [replace(result, brought=True) for result in confirmed(key, macs, *tops)]


def test_points_gained_lost_and_kept_and_hypervolumes_by_hand() -> None:
    before = explored(a=(0.5, 20), b=(0.8, 60), beaten=(0.4, 50))
    after = explored(b=(0.8, 60), c=(0.6, 20), d=(0.7, 90))
    found = compare(BOUNDS, before, after, same_data=True)
    assert (set(found.gained), set(found.lost), set(found.kept)) == ({"c"}, {"a"}, {"b"})
    assert found.before == pytest.approx(0.5 * 0.8 + 0.3 * 0.4)
    assert found.after == pytest.approx(0.6 * 0.8 + 0.2 * 0.4)
    assert found.change == pytest.approx(found.after - found.before)
    assert (found.verdict, found.moved) == ("unknown", None)


def test_on_changed_data_the_earlier_front_counts_as_it_does_on_the_new_ones() -> None:
    before = explored(a=(0.9, 20), gone=(0.95, 60))
    after = explored(a=(0.5, 20), c=(0.6, 20))
    found = compare(BOUNDS, before, after, same_data=False)
    assert found.before == pytest.approx(0.5 * 0.8)
    assert found.unmeasured == ("gone",)
    assert set(found.gained) == {"c"}


def test_the_same_architectures_with_the_same_seeds_have_not_moved_at_all() -> None:
    results = explored(a=(0.9, 20)) + confirmed("a", 20, 0.9, 0.91, 0.89)
    found = compare(BOUNDS, results, results, same_data=True)
    assert found.verdict == "unchanged"
    assert found.moved is not None
    assert (found.moved.value, found.moved.low, found.moved.high) == (0, 0, 0)


def test_a_clear_gain_is_an_improvement_and_back_it_is_a_loss() -> None:
    old = explored(a=(0.5, 20)) + confirmed("a", 20, 0.50, 0.51, 0.49)
    new = explored(b=(0.7, 20)) + confirmed("b", 20, 0.70, 0.71, 0.69)
    assert compare(BOUNDS, old, new, same_data=True).verdict == "improved"
    assert compare(BOUNDS, new, old, same_data=True).verdict == "worse"


def test_an_earlier_front_that_was_not_trained_again_on_the_new_data_leaves_the_question_open() -> None:
    old = explored(a=(0.5, 20)) + confirmed("a", 20, 0.50, 0.51)
    new = explored(b=(0.7, 20)) + confirmed("b", 20, 0.70, 0.71)
    found = compare(BOUNDS, old, new, same_data=False)
    assert found.verdict == "unknown"
    assert "not been confirmed again" in found.why
    once = [*new, *explored(a=(0.5, 20))]
    assert compare(BOUNDS, old, once, same_data=False).verdict == "unknown"  # one seed says nothing
    again = [*new, *brought("a", 20, 0.50, 0.51)]
    assert compare(BOUNDS, old, again, same_data=False).verdict == "improved"


def test_what_is_confirmed_for_the_sake_of_the_search_before_counts_on_its_side_alone() -> None:
    """The new search's own choice is worse on the new data than what the one before had chosen."""
    old = explored(a=(0.5, 20)) + confirmed("a", 20, 0.50, 0.51)
    new = explored(b=(0.4, 20)) + confirmed("b", 20, 0.40, 0.41) + brought("a", 20, 0.70, 0.71)
    found = compare(BOUNDS, old, new, same_data=False)
    assert found.verdict == "worse"
    assert found.moved is not None
    assert found.moved.value == pytest.approx((0.405 - 0.705) * 0.8)
    newest = explored(c=(0.4, 20)) + confirmed("c", 20, 0.40, 0.41)
    assert compare(BOUNDS, new, newest, same_data=True).verdict == "unchanged"  # beside b, which the one before chose


def test_what_was_trained_for_other_epochs_says_nothing() -> None:
    """An architecture of the same worth looks worse where it was trained more shortly than the confirmations."""

    def longer(results: list[Result]) -> list[Result]:
        return [replace(result, epochs=9) for result in results]

    old = explored(a=(0.5, 20)) + longer(confirmed("a", 20, 0.60, 0.61))
    new = explored(a=(0.5, 20), b=(0.5, 20)) + longer(confirmed("b", 20, 0.60, 0.61))
    found = compare(BOUNDS, old, new, same_data=False)
    assert (found.verdict, found.moved) == ("unknown", None)
    assert "not been confirmed again" in found.why
    assert compare(BOUNDS, old, new, same_data=True).verdict == "unchanged"
    short = explored(a=(0.5, 20)) + confirmed("a", 20, 0.50, 0.51)
    found = compare(BOUNDS, short, new, same_data=True)
    assert (found.verdict, found.moved) == ("unknown", None)
    assert "as many epochs" in found.why


def test_where_nothing_has_moved_it_says_so_nineteen_times_in_twenty() -> None:
    """Two architectures of equal worth, three seeds each: the interval at 95 % misses zero about once in twenty."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(20):
        tops = np.clip(rng.normal(0.8, 0.01, (2, 3)), 0, 1)
        old, new = (
            explored(**{key: (0.8, 20)}) + confirmed(key, 20, *row)
            for key, row in zip("ab", tops.tolist(), strict=True)
        )
        wrong += compare(BOUNDS, old, new, same_data=True).verdict != "unchanged"
    assert wrong <= 4  # of a binomial (20, 0.05): more come three times in a thousand


def test_placements_are_counted_over_the_front() -> None:
    se, cbam = [{"kind": "se", "reduction": 4}], [{"kind": "cbam"}]
    documents = [{"placements": {"1.1.residual": se}}, {"placements": {"1.1.residual": se, "2.1.residual": cbam + se}}]
    assert placements(documents) == {"1.1.residual se": 2, "2.1.residual cbam+se": 1}
