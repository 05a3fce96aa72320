"""What choices are worth: against brute force, against planted effects, and where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from search.effects import Effect, Effects, Finished, fill_stages, measure, pattern_name
from search.sites import pattern_blocks

BLOCKS = {1: 2, 2: 3, 3: 4}
MACS = {"se": 1_000, "cbam": 3_000}
NOISE = 0.004
Rng = np.random.Generator


def drawn(rng: Rng, worth: Mapping[tuple[int, str], float], count: int) -> list[Finished]:
    """Placements drawn independently for each stage; quality is what was planted, and noise."""
    found = []
    for _ in range(count):
        placements: dict[str, list[dict[str, Any]]] = {}
        quality, macs = 0.9, 100_000
        for stage, blocks in BLOCKS.items():
            kind = str(rng.choice(["", "se", "cbam"]))
            if not kind:
                continue
            ratio, pattern = int(rng.choice([4, 8])), str(rng.choice(["every", "last"]))
            quality += worth.get((stage, kind), 0.0)
            for block in pattern_blocks(pattern, blocks):
                placements[f"{stage}.{block}.residual"] = [{"kind": kind, "reduction": ratio}]
                macs += MACS[kind]
        found.append(Finished(placements, quality + float(rng.normal(0, NOISE)), macs, bool(rng.random() < 0.1)))
    return found


def choice(effects: Effects, factor: str, stage: int, name: str) -> Effect:
    return next(e for e in effects.choices if (e.factor, e.stage, e.choice) == (factor, stage, name))


def test_effects_are_differences_of_means() -> None:
    trials = drawn(np.random.default_rng(1), {(3, "cbam"): 0.01}, 80)
    effects = measure(trials, BLOCKS)

    def mean(rows: list[Finished], what: str = "quality") -> float:
        return float(np.mean([getattr(row, what) for row in rows]))

    def kinds(trial: Finished, stage: int) -> set[str]:
        return {m["kind"] for site, ms in trial.placements.items() if site.startswith(f"{stage}.") for m in ms}

    for stage in BLOCKS:
        empty = [t for t in trials if not kinds(t, stage)]
        for kind in ("se", "cbam"):
            rows = [t for t in trials if kinds(t, stage) == {kind}]
            found = choice(effects, "module", stage, kind)
            assert (found.trials, found.reference_trials, found.against) == (len(rows), len(empty), "nothing")
            assert found.gain is not None
            assert found.gain.value == pytest.approx(mean(rows) - mean(empty))
            assert found.extra_macs == pytest.approx(mean(rows, "macs") - mean(empty, "macs"))
            if found.extra_macs > 0:
                assert found.gain_per_mmac is not None
                assert found.gain_per_mmac.value == pytest.approx(found.gain.value / (found.extra_macs / 1e6))
            else:
                assert found.gain_per_mmac is None
        filled = [t for t in trials if kinds(t, stage)]
        four = [t for t in filled if f"{stage}.{BLOCKS[stage]}.residual" in t.placements]
        four = [t for t in four if t.placements[f"{stage}.{BLOCKS[stage]}.residual"][0]["reduction"] == 4]
        found = choice(effects, "reduction", stage, "4")
        assert (found.trials, found.reference_trials) == (len(four), len(filled) - len(four))
        assert found.gain is not None
        assert found.gain.value == pytest.approx(mean(four) - mean([t for t in filled if t not in four]))
        every = [t for t in filled if f"{stage}.1.residual" in t.placements]
        assert choice(effects, "pattern", stage, "every").trials == len(every)


def test_sites_count_the_front_and_compare_with_an_empty_stage() -> None:
    trials = drawn(np.random.default_rng(2), {}, 60)
    effects = measure(trials, BLOCKS)
    front = [t for t in trials if t.on_front]
    assert (effects.trials, effects.front) == (60, len(front))
    seen = {(s.stage, s.block, s.kind): s for s in effects.sites}
    for stage, count in BLOCKS.items():
        for block in range(1, count + 1):
            site = f"{stage}.{block}.residual"
            without = [t.quality for t in trials if not any(s.startswith(f"{stage}.") for s in t.placements)]
            for kind in ("", "se", "cbam"):
                rows = [t for t in trials if site in t.placements and kind in ("", t.placements[site][0]["kind"])]
                found = seen[stage, block, kind]
                assert found.trials == len(rows)
                assert found.front == sum(t.on_front for t in rows)
                assert found.share == pytest.approx(found.front / len(front))
                if len(rows) >= 5:
                    assert found.gain is not None
                    assert found.gain.value == pytest.approx(np.mean([t.quality for t in rows]) - np.mean(without))


def test_planted_effects_are_recovered() -> None:
    worth = {(1, "se"): 0.0, (2, "cbam"): 0.004, (3, "se"): 0.006, (3, "cbam"): 0.012}
    effects = measure(drawn(np.random.default_rng(3), worth, 600), BLOCKS)
    for stage in BLOCKS:
        for kind in ("se", "cbam"):
            gain = choice(effects, "module", stage, kind).gain
            assert gain is not None
            truth = worth.get((stage, kind), 0.0)
            assert gain.low <= truth <= gain.high
            assert gain.certain == (truth > 0)
    order = sorted((e for e in effects.choices if e.factor == "module"), key=lambda e: e.gain.value if e.gain else 0)
    assert (order[-1].stage, order[-1].choice) == (3, "cbam")


@pytest.mark.parametrize("count", [40, 2_500])  # resampled, and by the normal law
def test_intervals_cover_the_truth_about_as_often_as_they_say(count: int) -> None:
    worth = {(3, "cbam"): 0.01, (2, "se"): 0.003}
    covered = total = 0
    for seed in range(150 if count < 100 else 10):
        effects = measure(drawn(np.random.default_rng(seed), worth, count), BLOCKS, seed)
        for effect in effects.choices:
            if effect.factor == "module" and effect.gain is not None:
                total += 1
                covered += effect.gain.low <= worth.get((effect.stage, effect.choice), 0.0) <= effect.gain.high
    # the effects of one search share trials, so twice the spread that independent ones would have, three times
    assert covered / total == pytest.approx(0.95, abs=min(0.1, 3 * 2 * (0.95 * 0.05 / total) ** 0.5))
    assert covered < total


def test_without_effects_few_intervals_exclude_zero() -> None:
    certain = [
        effect.gain.certain
        for seed in range(60)
        for effect in measure(drawn(np.random.default_rng(1000 + seed), {}, 50), BLOCKS, seed).choices
        if effect.gain is not None
    ]
    assert np.mean(certain) < 0.08


def test_the_same_trials_give_the_same_intervals() -> None:
    trials = drawn(np.random.default_rng(5), {}, 50)
    assert measure(trials, BLOCKS, 1) == measure(trials, BLOCKS, 1)
    assert measure(trials, BLOCKS, 1) != measure(trials, BLOCKS, 2)


def test_too_few_trials_are_counted_but_not_judged() -> None:
    trials = drawn(np.random.default_rng(6), {}, 8)
    assert all(e.gain is None for e in measure(trials, BLOCKS).choices if min(e.trials, e.reference_trials) < 5)
    nothing = measure([], BLOCKS)
    assert (nothing.trials, nothing.choices, nothing.sites) == (0, (), ())


def test_qualities_that_do_not_vary_get_no_interval() -> None:
    trials = [
        Finished({"1.1.residual": [{"kind": "se", "reduction": 4}]} if row % 2 else {}, 0.5, 1) for row in range(40)
    ]
    assert choice(measure(trials, BLOCKS), "module", 1, "se").gain is None


def test_a_stage_that_is_never_empty_compares_its_modules() -> None:
    rng = np.random.default_rng(7)
    worth = {"se": 0.02, "cbam": 0.0}
    trials = [
        Finished({"3.4.residual": [{"kind": kind, "reduction": 4}]}, worth[kind] + rng.normal(0, 0.01), 1)
        for kind in ["se", "cbam"] * 20
    ]
    effects = measure(trials, BLOCKS)
    found = choice(effects, "module", 3, "se")
    assert (found.against, found.reference_trials) == ("others", 20)
    assert choice(effects, "stage", 3, "").gain is None


def test_stacks_ends_and_mixed_ratios() -> None:
    fills = fill_stages(
        {
            "1.1.residual": [{"kind": "aw", "reduction": 4}, {"kind": "se", "reduction": 8}],
            "3.4.stage_end": [{"kind": "bam", "reduction": 16}],
        },
        BLOCKS,
    )
    assert (fills[1].modules, fills[1].pattern, fills[1].ratio) == ("aw+se", "first", None)
    assert fills[2].modules == ""
    assert (fills[3].modules, fills[3].pattern, fills[3].ratio) == ("bam", "", 16)
    assert fills[3].sites == {(None, "bam"), (None, "")}


@pytest.mark.parametrize("pattern", ["every", "first", "last", "alternate", (2, 3), (2,)])
def test_patterns_are_named_as_a_request_writes_them(pattern: Any) -> None:
    for blocks in (3, 4, 6):
        name = pattern_name(pattern_blocks(pattern, blocks), blocks)
        assert name == (pattern if isinstance(pattern, str) else ",".join(map(str, pattern)))
    assert pattern_name([1], 1) == "every"
