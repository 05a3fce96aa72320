"""Intervals for differences of means: a studentised bootstrap of many differences at once, and Welch's interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Members = npt.NDArray[np.bool_]

RESAMPLES = 1000
LEAST = 5
"""Values on each side below which no interval is given."""
MOST_RESAMPLED = 2000
"""Values above which means are normal to three digits, and Welch's interval is the bootstrap's."""


@dataclass(frozen=True)
class Interval:
    """An estimate and where the truth lies with the confidence asked for, all in one unit."""

    value: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether it excludes zero."""
        return self.low > 0 or self.high < 0

    def scaled(self, factor: float) -> Interval:
        """In another unit; factor may be negative."""
        ends = sorted((self.low * factor, self.high * factor))
        return Interval(self.value * factor, ends[0], ends[1])


def differences(
    values: Array, chosen: Members, reference: Members, rng: np.random.Generator, level: float = 0.95
) -> list[Interval | None]:
    """For each of c columns, the mean of the chosen values less that of the reference ones.

    values: n. chosen, reference: n × c, who belongs to which side. None where a side has under LEAST values, or
    where neither side varies. All trials are drawn anew together, so that both sides' sizes vary as they would, and
    each difference is divided by its own standard error (Efron & Tibshirani 1993, section 12.5), which keeps the
    coverage in small groups; 1,000 × n draws and three matrix products serve all columns.
    """
    columns = chosen.shape[1]
    if not columns:
        return []
    centred = values - values.mean() if len(values) else values
    members = np.concatenate([chosen, reference], axis=1).astype(np.float64)
    counts = members.sum(axis=0)
    means, errors = _moments(counts, members.T @ centred, members.T @ centred**2)
    difference = means[:columns] - means[columns:]
    error = np.sqrt(errors[:columns] + errors[columns:])
    enough = (np.minimum(counts[:columns], counts[columns:]) >= LEAST) & (error > 0)
    if len(values) > MOST_RESAMPLED:
        reach = NormalDist().inv_cdf((1 + level) / 2) * error
        low, high = difference - reach, difference + reach
    else:
        drawn = _drawn(centred, members, rng)
        low, high = _studentised(drawn, difference, error, level)
    ends = zip(
        difference.tolist(), low.tolist(), high.tolist(), (enough & np.isfinite(low + high)).tolist(), strict=True
    )
    return [Interval(d, a, b) if given else None for d, a, b, given in ends]


def _drawn(values: Array, members: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Means and squared errors, RESAMPLES × columns of `members`, of samples drawn with replacement."""
    count = len(values)
    picked = rng.integers(count, size=(RESAMPLES, count)) + count * np.arange(RESAMPLES)[:, None]
    weights = np.bincount(picked.ravel(), minlength=RESAMPLES * count).reshape(RESAMPLES, count).astype(np.float64)
    sums = (weights @ (members * each[:, None]) for each in (np.ones(count), values, values**2))
    return _moments(*sums)


def _moments(counts: Array, sums: Array, squares: Array) -> tuple[Array, Array]:
    """Means, and their variances (squared standard errors); NaN for fewer than two values."""
    with np.errstate(divide="ignore", invalid="ignore"):
        means = sums / counts
        spread = np.maximum(squares / counts - means**2, 0.0) * counts / (counts - 1)
        return means, spread / counts


def _studentised(drawn: tuple[Array, Array], difference: Array, error: Array, level: float) -> tuple[Array, Array]:
    columns = len(difference)
    means, errors = drawn
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (means[:, :columns] - means[:, columns:] - difference) / np.sqrt(
            errors[:, :columns] + errors[:, columns:]
        )
    ratios = np.sort(np.where(np.isfinite(ratios), ratios, np.nan), axis=0)  # NaN goes last
    usable = np.isfinite(ratios).sum(axis=0)
    rows = [
        np.clip((usable - 1) * part, 0, None).round().astype(np.int64) for part in ((1 - level) / 2, (1 + level) / 2)
    ]
    below, above = (ratios[row, np.arange(columns)] for row in rows)
    return difference - above * error, difference - below * error


def welch(chosen: Array, reference: Array, level: float = 0.95) -> Interval | None:
    """The difference of two means by Welch's t; None where a side has under two values or nothing varies."""
    if min(len(chosen), len(reference)) < 2:
        return None
    parts = [float(side.var(ddof=1)) / len(side) for side in (chosen, reference)]
    error = math.sqrt(sum(parts))
    if error == 0:
        return None
    freedom = sum(parts) ** 2 / sum(p**2 / (len(s) - 1) for p, s in zip(parts, (chosen, reference), strict=True))
    difference = float(chosen.mean() - reference.mean())
    reach = t_quantile((1 + level) / 2, freedom) * error
    return Interval(difference, difference - reach, difference + reach)


def t_quantile(probability: float, freedom: float) -> float:
    """Student's t: exact for 1 and 2 degrees of freedom, Hill's expansion above (Abramowitz & Stegun 26.7.5).

    Between 1 and 3 degrees, those of the degree below, which is on the safe side.
    """
    if freedom < 2:
        return math.tan(math.pi * (probability - 0.5))
    if freedom < 3:
        return (2 * probability - 1) / math.sqrt(2 * probability * (1 - probability))
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom ** (power + 1) for power, term in enumerate(terms))
