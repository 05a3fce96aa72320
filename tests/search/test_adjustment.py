"""Adjusted effects: against numpy's least squares, against planted truths, and where nothing can be told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from search.adjustment import Adjusted, Adjustment, adjust
from search.effects import Effects, Finished, measure
from search.sites import pattern_blocks

BLOCKS = {1: 2, 2: 2, 3: 2}
WORTH = {(1, "se"): 0.0, (2, "se"): 0.004, (2, "cbam"): 0.0, (3, "se"): 0.006, (3, "cbam"): 0.02}
MACS = {"se": 1_000, "cbam": 3_000}
NOISE = 0.004
Rng = np.random.Generator


def placed(fills: Mapping[int, tuple[str, int, str]]) -> dict[str, list[dict[str, Any]]]:
    return {
        f"{stage}.{block}.residual": [{"kind": kind, "reduction": ratio}]
        for stage, (kind, ratio, pattern) in fills.items()
        for block in pattern_blocks(pattern, BLOCKS[stage])
    }


def trial(rng: Rng, fills: Mapping[int, tuple[str, int, str]], noise: float = NOISE) -> Finished:
    quality = 0.9 + sum(WORTH.get((stage, kind), 0.0) for stage, (kind, _, _) in fills.items())
    quality += 0.003 * sum(ratio == 4 for _, ratio, _ in fills.values())
    macs = 100_000 + sum(MACS[kind] for kind, _, _ in fills.values())
    return Finished(placed(fills), quality + float(rng.normal(0, noise)), macs)


def steered(rng: Rng, count: int, noise: float = NOISE) -> list[Finished]:
    """As a strategy steers: who takes CBAM in stage 3 mostly takes SE in stage 1 as well, and strong ratios."""
    found = []
    for _ in range(count):
        last = str(rng.choice(["", "se", "cbam"]))
        follows = rng.random() < 0.85
        first = ("se" if last == "cbam" else "") if follows else str(rng.choice(["", "se"]))
        kinds = {1: first, 2: str(rng.choice(["", "se", "cbam"])), 3: last}
        ratio = 4 if (last == "cbam") == (rng.random() < 0.8) else 8
        fills = {s: (kind, ratio, str(rng.choice(["every", "last"]))) for s, kind in kinds.items() if kind}
        found.append(trial(rng, fills, noise))
    return found


def adjusted(trials: list[Finished], seed: int = 0) -> tuple[Effects, Adjustment]:
    effects = measure(trials, BLOCKS)
    found = adjust(trials, BLOCKS, effects.choices, seed)
    assert found is not None
    return effects, found


def one(effects: Effects, found: Adjustment, factor: str, stage: int, choice: str) -> Adjusted | None:
    place = [(e.factor, e.stage, e.choice) for e in effects.choices].index((factor, stage, choice))  # type: ignore[comparison-overlap]
    return found.effects[place]


def test_averages_are_wrong_where_choices_come_together_and_adjusted_effects_are_right() -> None:
    effects, found = adjusted(steered(np.random.default_rng(1), 600))
    assert found.method == "least_squares"
    plain = next(e for e in effects.choices if (e.factor, e.stage, e.choice) == ("module", 1, "se"))
    assert plain.gain is not None
    assert plain.gain.low > 0.005  # what CBAM in stage 3 brought
    for (stage, kind), truth in WORTH.items():
        told = one(effects, found, "module", stage, kind)
        assert told is not None
        # a module stands at the mix of ratios that its stage was tried with; r = 4 is worth 0.003 wherever it is
        mine = [t for t in steered(np.random.default_rng(1), 600) if any(s[0] == str(stage) for s in t.placements)]
        mix = np.mean(
            [next(m[0]["reduction"] for s, m in t.placements.items() if s[0] == str(stage)) == 4 for t in mine]
        )
        assert told.gain.low <= truth + 0.003 * mix <= told.gain.high
        assert told.gain.high - told.gain.low < 0.006
        assert told.extra_macs == pytest.approx(MACS[kind])  # exactly additive
        assert told.gain_per_mmac is not None
        assert told.gain_per_mmac.value == pytest.approx(told.gain.value * 1e6 / MACS[kind])


def test_coefficients_are_those_of_numpys_least_squares() -> None:
    """An independent design: plain dummies, not centred, so that only contrasts agree."""
    trials = steered(np.random.default_rng(2), 120)
    effects, found = adjusted(trials)
    names = ["1"]
    table: list[list[float]] = []
    for stage in BLOCKS:
        names += [f"{stage}se", f"{stage}cbam", f"{stage}every", f"{stage}r4"]
    for each in trials:
        row = [1.0]
        for stage, blocks in BLOCKS.items():
            sites = [each.placements.get(f"{stage}.{block}.residual") for block in range(1, blocks + 1)]
            held = [site[0] for site in sites if site]
            kind = held[0]["kind"] if held else ""
            every, four = len(held) == blocks, bool(held) and held[0]["reduction"] == 4
            row += [kind == "se", kind == "cbam", every, four]
        table.append([float(value) for value in row])
    used = [index for index in range(len(names)) if any(row[index] for row in table)]
    x = np.asarray(table)[:, used]
    assert np.linalg.matrix_rank(x) == x.shape[1]
    solved = np.linalg.lstsq(x, np.asarray([t.quality for t in trials]), rcond=None)[0]
    beta = dict(zip([names[index] for index in used], solved, strict=True))
    for stage in BLOCKS:
        ratio, pattern = one(effects, found, "reduction", stage, "4"), one(effects, found, "pattern", stage, "every")
        assert ratio is not None
        assert pattern is not None
        assert ratio.gain.value == pytest.approx(beta[f"{stage}r4"])
        assert pattern.gain.value == pytest.approx(beta[f"{stage}every"])
        filled = x[:, names.index(f"{stage}se")] if stage == 1 else None
        here = [row for row in table if row[names.index(f"{stage}se")] or row[names.index(f"{stage}cbam")]]
        assert filled is None or filled.sum() == len(here)
        mix = sum(
            beta[name] * np.mean([row[names.index(name)] for row in here]) for name in (f"{stage}every", f"{stage}r4")
        )
        for kind in ("se", "cbam"):
            if f"{stage}{kind}" in beta:
                told = one(effects, found, "module", stage, kind)
                assert told is not None
                assert told.gain.value == pytest.approx(beta[f"{stage}{kind}"] + mix)
    assert found.parameters == x.shape[1]


@pytest.mark.parametrize(("count", "resampled"), [(60, 2000), (200, 100)])  # by the bootstrap, by the normal law
def test_intervals_cover_the_truth_about_as_often_as_they_say(
    count: int, resampled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.adjustment.MOST_RESAMPLED", resampled)
    covered = total = 0
    for seed in range(100):
        effects, found = adjusted(steered(np.random.default_rng(seed), count), seed)
        for stage in BLOCKS:
            told = one(effects, found, "reduction", stage, "4")
            if told is not None:
                total += 1
                covered += told.gain.low <= 0.003 <= told.gain.high
    # the effects of one search share trials, so twice the spread that independent ones would have, three times
    assert covered / total == pytest.approx(0.95, abs=min(0.08, 3 * 2 * (0.95 * 0.05 / total) ** 0.5))
    assert covered < total


def test_what_always_comes_together_is_not_told_apart_and_the_rest_is_by_ridge() -> None:
    rng = np.random.default_rng(3)
    trials = []
    for _ in range(80):
        first = rng.random() < 0.5
        fills = {1: ("se", 4, "every"), 3: ("se", 4, "every")} if first else {}
        if rng.random() < 0.5:
            fills[2] = ("se", 4, "every")
        trials.append(trial(rng, fills))
    effects, found = adjusted(trials)
    assert found.method == "ridge"
    assert one(effects, found, "module", 1, "se") is None
    assert one(effects, found, "module", 3, "se") is None
    told = one(effects, found, "module", 2, "se")
    assert told is not None
    assert told.gain.low <= 0.004 + 0.003 <= told.gain.high
    x = np.asarray([[1.0, "1.1.residual" in t.placements, "2.1.residual" in t.placements] for t in trials])
    beta = np.linalg.lstsq(x, np.asarray([t.quality for t in trials]), rcond=None)[0]
    assert told.gain.value == pytest.approx(beta[2], rel=1e-5)


def test_too_few_trials_are_not_adjusted() -> None:
    trials = steered(np.random.default_rng(4), 12)
    assert adjust(trials, BLOCKS, measure(trials, BLOCKS).choices) is None
    assert adjust([], BLOCKS, ()) is None


def test_qualities_that_the_choices_tell_exactly_get_no_interval() -> None:
    effects, found = adjusted(steered(np.random.default_rng(5), 80, noise=0.0))
    assert all(each is None for each in found.effects)
    assert len(found.effects) == len(effects.choices)


def test_the_same_trials_give_the_same_intervals() -> None:
    trials = steered(np.random.default_rng(6), 60)
    assert adjusted(trials, 1) == adjusted(trials, 1)
    assert adjusted(trials, 1) != adjusted(trials, 2)


def test_a_module_without_a_ratio_is_told_beside_those_that_have_one() -> None:
    rng = np.random.default_rng(7)
    trials = []
    for row in range(90):
        kind = ["", "eca", "se"][row % 3]
        module = {"kind": kind} | ({"reduction": int(rng.choice([4, 8]))} if kind == "se" else {})
        quality = {"": 0.9, "eca": 0.93, "se": 0.91}[kind] + float(rng.normal(0, NOISE))
        trials.append(Finished({"3.1.residual": [module]} if kind else {}, quality, 1))
    effects, found = adjusted(trials)
    assert found.method == "least_squares"
    told = one(effects, found, "module", 3, "eca")
    assert told is not None
    assert told.gain.low <= 0.03 <= told.gain.high
    assert told.gain_per_mmac is None
