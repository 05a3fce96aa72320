"""The sentence: true where there is something to say, silent where there is not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from search.findings import Arm, Scope, arms_by_scope, find, scope_of

NOISE = 0.004
BASE_MACS = 1_000_000.0
SCOPES: tuple[Scope, ...] = (((3, "cbam"),), ((2, "cbam"), (3, "cbam")), ((1, "se"), (2, "se"), (3, "se")))


def arms(rng: np.random.Generator, gains: Sequence[float], seeds: int = 6) -> tuple[Arm, list[Arm]]:
    """A baseline and one arm for each scope, dearer in their order."""

    def values(mean: float) -> tuple[float, ...]:
        return tuple(rng.normal(mean, NOISE, seeds).tolist())

    found = [
        Arm(scope, BASE_MACS * (1.004 + 0.01 * place), values(0.9 + gain))
        for place, (scope, gain) in enumerate(zip(SCOPES, gains, strict=True))
    ]
    return Arm((), BASE_MACS, values(0.9)), found


def test_the_cheapest_that_no_dearer_one_beats_is_told_with_its_uncertainty() -> None:
    found = find(*arms(np.random.default_rng(0), [0.02, 0.02, 0.02]), stages=3)
    assert found is not None
    assert found.scope == SCOPES[0]
    assert found.gain.low <= 0.02 <= found.gain.high
    half = 50 * (found.gain.high - found.gain.low)
    expected = f"CBAM in stage 3 only: +{100 * found.gain.value:.1f} ± {half:.1f} points for +0.4 % MACs; "
    assert found.sentence() == f"{expected}more stages add nothing yet"


def test_a_dearer_one_that_is_better_takes_its_place() -> None:
    found = find(*arms(np.random.default_rng(1), [0.015, 0.045, 0.0]), stages=3)
    assert found is not None
    assert found.scope == SCOPES[1]
    assert found.sentence().startswith("CBAM in stages 2 and 3 only: +")
    assert not found.more or "more stages" in found.sentence()


def test_all_stages_and_several_modules_in_words() -> None:
    rng = np.random.default_rng(2)
    base, found = arms(rng, [0.0, 0.0, 0.05])
    told = find(base, found, stages=3)
    assert told is not None
    assert told.sentence().startswith("SE in all stages: +")
    assert "only" not in told.sentence()
    mixed = Arm(((1, "se"), (3, "aw+se")), BASE_MACS * 0.9, tuple(rng.normal(0.95, NOISE, 5)))
    told = find(base, [mixed], stages=3)
    assert told is not None
    assert told.sentence().startswith("SE in stage 1, AW + SE in stage 3 only: +")
    assert "−10.0 % MACs" in told.sentence()
    assert "more stages" not in told.sentence()


def test_without_effects_it_is_silent_but_for_the_chance_it_admits() -> None:
    told = sum(find(*arms(np.random.default_rng(seed), [0, 0, 0]), stages=3) is not None for seed in range(400))
    assert told / 400 <= 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5


def test_its_intervals_cover_the_truth() -> None:
    covered = []
    for seed in range(300):
        found = find(*arms(np.random.default_rng(seed), [0.02, 0.02, 0.02]), stages=3)
        if found is not None:
            covered.append(found.gain.low <= 0.02 <= found.gain.high)
    assert len(covered) > 250
    assert np.mean(covered) >= 0.92


@pytest.mark.parametrize("seeds", [0, 1])
def test_one_seed_says_nothing(seeds: int) -> None:
    base, found = arms(np.random.default_rng(3), [0.05, 0.05, 0.05])
    assert find(Arm((), BASE_MACS, base.values[:seeds]), found, 3) is None
    assert find(base, [Arm(arm.scope, arm.macs, arm.values[:seeds]) for arm in found], 3) is None


def test_values_that_never_vary_say_nothing() -> None:
    assert find(Arm((), 1.0, (0.5, 0.5, 0.5)), [Arm(((1, "se"),), 1.0, (0.6, 0.6, 0.6))], 3) is None


def test_trials_of_a_scope_become_an_arm_once_there_are_three() -> None:
    one, two = scope_of({1: "", 3: "cbam"}), scope_of({1: "se", 3: "cbam"})
    found = arms_by_scope([one, two, one, (), one, two], [1, 2, 3, 4, 5, 6], [10, 20, 30, 40, 50, 60])
    assert found == [Arm(((3, "cbam"),), 30.0, (1, 3, 5))]
