"""What choices are worth beside each other: all of them in one regression, where averages mix what comes together.

Ordinary least squares of the quality on the choices of every stage, one-hot: modules, and where a stage is filled its
pattern and its ratio, centred, so that a module is judged at the mix of patterns and ratios that it was tried with.
Effects are taken to add up. An effect is told only where the trials determine it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Literal

import numpy as np

from search.effects import NOTHING, Effect, Finished, StageFill, fill_stages
from search.resampling import LEAST, MOST_RESAMPLED, RESAMPLES, Array, Interval

LEVEL = 0.95
SINGULAR = 1e-9
"""Singular values of the choices' columns below this share of the largest are none."""
PENALTY = 1e-9
"""Ridge's, as a share of the largest eigenvalue: what is determined moves by less than noise in the last digits."""


@dataclass(frozen=True)
class Adjusted:
    """One choice, all others being equal. gain: in the quality's unit; extra_macs: multiply-adds.

    gain_per_mmac: for each 10⁶ of them, None where the choice costs nothing.
    """

    gain: Interval
    extra_macs: float
    gain_per_mmac: Interval | None


@dataclass(frozen=True)
class Adjustment:
    """effects: one for each choice asked for, None where the trials do not determine it.

    method: "ridge" where some choices always came together, so that least squares has no single answer.
    parameters: that the trials determine; trials beyond them tell the noise.
    """

    effects: tuple[Adjusted | None, ...]
    method: Literal["least_squares", "ridge"]
    parameters: int


@dataclass
class Design:
    """Columns of the regression. places: of each (factor, stage, choice); None for what the others are told from."""

    columns: list[Array]
    places: dict[tuple[str, int, str], int | None] = field(default_factory=dict)
    counts: dict[tuple[str, int], Counter[str]] = field(default_factory=dict)

    def add(self, factor: str, stage: int, names: Sequence[str], able: Sequence[bool]) -> None:
        """One-hot columns of the rows that have a choice of this factor, centred; zero for the other rows."""
        member = np.asarray(able, dtype=np.float64)
        counts = Counter(name for name, mine in zip(names, able, strict=True) if mine)
        self.counts[factor, stage] = counts
        reference = NOTHING if NOTHING in counts else max(sorted(counts), key=lambda name: counts[name], default="")
        for name in sorted(counts):
            if name == reference:
                self.places[factor, stage, name] = None
                continue
            hot = np.asarray([each == name for each in names], dtype=np.float64) * member
            self.places[factor, stage, name] = len(self.columns)
            self.columns.append(hot - member * counts[name] / member.sum())

    def contrast(self, effect: Effect) -> Array:
        """What the effect is of the columns' coefficients: those of its side less those that it is compared with."""
        counts = self.counts["module" if effect.factor == "stage" else effect.factor, effect.stage]
        if effect.factor == "stage":
            return self._mean("module", effect.stage, {c: n for c, n in counts.items() if c != NOTHING}) - self._mean(
                "module", effect.stage, {NOTHING: counts[NOTHING]}
            )
        rest = {c: n for c, n in counts.items() if c not in (effect.choice, NOTHING)}
        against = {NOTHING: 1} if effect.against == "nothing" else rest
        return self._mean(effect.factor, effect.stage, {effect.choice: 1}) - self._mean(
            effect.factor, effect.stage, against
        )

    def _mean(self, factor: str, stage: int, weights: Mapping[str, int]) -> Array:
        found = np.zeros(len(self.columns))
        for choice, weight in weights.items():
            place = self.places.get((factor, stage, choice))
            if place is not None:
                found[place] += weight / sum(weights.values())
        return found


def adjust(
    trials: Sequence[Finished], blocks: Mapping[int, int], effects: Sequence[Effect], seed: int = 0
) -> Adjustment | None:
    """The effects that `measure` found, adjusted for each other; None where the trials are too few for any.

    blocks: of each stage. Intervals: 95 %, by the studentised wild bootstrap.
    """
    if not trials or not effects:
        return None
    fills = [fill_stages(trial.placements, blocks) for trial in trials]
    design = _design(fills, blocks)
    fit = _Fit.make(np.stack(design.columns, axis=1))
    if len(trials) - fit.rank < LEAST:
        return None
    asked = [min(each.trials, each.reference_trials) >= LEAST for each in effects]
    contrasts = np.stack([design.contrast(each) for each in effects], axis=1)
    known = np.flatnonzero(np.asarray(asked) & fit.determines(contrasts))
    weights = fit.solver @ contrasts[:, known]  # n × k: an effect is the sum of the qualities with these weights
    quality = np.asarray([trial.quality for trial in trials], dtype=np.float64)
    macs = np.asarray([trial.macs for trial in trials], dtype=np.float64)
    gains = _intervals(fit, weights, quality - quality.mean(), np.random.default_rng(seed))
    found: list[Adjusted | None] = [None] * len(effects)
    for place, gain, extra in zip(known.tolist(), gains, (weights.T @ (macs - macs.mean())).tolist(), strict=True):
        if gain is not None:
            found[place] = Adjusted(gain, extra, gain.scaled(1e6 / extra) if extra > 0.5 else None)
    return Adjustment(tuple(found), "least_squares" if fit.full else "ridge", fit.rank)


def _design(fills: Sequence[Mapping[int, StageFill]], blocks: Mapping[int, int]) -> Design:
    design = Design([np.ones(len(fills))])
    for stage in blocks:
        here = [fill[stage] for fill in fills]
        design.add("module", stage, [fill.modules for fill in here], [True] * len(here))
        design.add("pattern", stage, [fill.pattern for fill in here], [bool(fill.pattern) for fill in here])
        ratios = [str(fill.ratio or "") for fill in here]
        design.add("reduction", stage, ratios, [bool(ratio) for ratio in ratios])
    return design


@dataclass(frozen=True)
class _Fit:
    """A solved design. solver: n × p, coefficients are its transpose times the values. known: p × rank, orthonormal,
    the directions of the coefficients that the rows determine. full: whether these are all.
    """

    columns: Array
    solver: Array
    known: Array
    full: bool

    @classmethod
    def make(cls, columns: Array) -> _Fit:
        left, sizes, right = np.linalg.svd(columns, full_matrices=False)
        kept = sizes > SINGULAR * sizes[0]
        full = bool(kept.sum() == columns.shape[1])
        penalty = 0.0 if full else PENALTY * sizes[0] ** 2
        shrunk = np.divide(sizes, sizes**2 + penalty, out=np.zeros_like(sizes), where=kept)
        return cls(columns, (left * shrunk) @ right, right[kept].T, full)

    @property
    def rank(self) -> int:
        return int(self.known.shape[1])

    def determines(self, contrasts: Array) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which of p × k contrasts every solution agrees on."""
        lost = contrasts - self.known @ (self.known.T @ contrasts)
        return np.asarray(np.abs(lost).max(axis=0, initial=0.0) < 1e-6, dtype=np.bool_)

    def residuals(self, values: Array) -> Array:
        """What the choices do not tell of n (× many) values."""
        return values - self.columns @ (self.solver.T @ values)

    def leverages(self) -> Array:
        """The share of each row in its own fitted value."""
        return np.asarray((self.columns * self.solver).sum(axis=1), dtype=np.float64)


def _intervals(fit: _Fit, weights: Array, values: Array, rng: np.random.Generator) -> list[Interval | None]:
    """Effects (columns of weights), each with its own standard error, where noise may differ between trials (HC3).

    Up to MOST_RESAMPLED trials the reach is that of the wild bootstrap (Davidson & Flachaire 2008): residuals with
    random signs keep the design as it is, so that what is determined stays so in every resample.
    """
    room = 1 - fit.leverages()
    scale = np.divide(1.0, room, out=np.zeros_like(room), where=room > 1e-6)  # alone in its column: no residual
    effects = weights.T @ values
    noise = fit.residuals(values) * scale
    error = np.sqrt(weights.T**2 @ noise**2)
    reach = np.full(len(effects), NormalDist().inv_cdf((1 + LEVEL) / 2))
    if len(values) <= MOST_RESAMPLED:
        drawn = noise[:, None] * rng.choice([-1.0, 1.0], size=(len(values), RESAMPLES))
        errors = np.sqrt(weights.T**2 @ (fit.residuals(drawn) * scale[:, None]) ** 2)
        ratios = np.divide(np.abs(weights.T @ drawn), errors, out=np.zeros_like(errors), where=errors > 0)
        reach = np.quantile(ratios, LEVEL, axis=1)
    told = error > 1e-12 * max(1.0, float(np.abs(values).max(initial=0.0)))
    return [
        Interval(value, value - half, value + half) if shown else None
        for value, half, shown in zip(effects.tolist(), (reach * error).tolist(), told.tolist(), strict=True)
    ]
