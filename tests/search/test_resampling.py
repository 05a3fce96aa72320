"""Intervals, beside SciPy's and beside a bootstrap written as a loop."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from search.resampling import LEAST, differences, t_quantile, welch


def test_students_t_is_that_of_scipy() -> None:
    for freedom in (1.0, 2.0, 3.0, 3.7, 5.0, 12.0, 200.0):
        for probability in (0.9, 0.975, 0.995):
            assert t_quantile(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=0.012)


def test_welch_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 2, 12), rng.normal(0, 1, 9)
    found = welch(a, b)
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=2e-3)
    assert welch(a[:1], b) is None
    assert welch(np.ones(3), np.ones(3)) is None


def test_the_bootstrap_is_that_of_a_loop() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0, 1, 60)
    values[:25] += 0.8
    chosen, reference = np.arange(60) < 25, np.arange(60) >= 30
    found = differences(values, chosen[:, None], reference[:, None], np.random.default_rng(2))[0]
    assert found is not None

    def told(rows: np.ndarray) -> tuple[float, float]:
        a, b = values[rows[chosen[rows]]], values[rows[reference[rows]]]
        return a.mean() - b.mean(), np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))

    difference, error = told(np.arange(60))
    loop = np.random.default_rng(3)
    ratios = [(d - difference) / e for d, e in (told(loop.integers(60, size=60)) for _ in range(4000))]
    low, high = difference - np.quantile(ratios, [0.975, 0.025]) * error
    assert found.value == pytest.approx(difference)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.06 * (high - low))


def test_small_sides_are_left_out_and_nothing_is_no_error() -> None:
    values = np.arange(20.0)
    side = np.zeros((20, 2), dtype=bool)
    side[: LEAST - 1, 0] = side[:LEAST, 1] = True
    rest = ~side
    first, second = differences(values, side, rest, np.random.default_rng(0))
    assert first is None
    assert second is not None
    assert (
        differences(np.zeros(0), np.zeros((0, 0), dtype=bool), np.zeros((0, 0), dtype=bool), np.random.default_rng(0))
        == []
    )
