"""What a search has learnt, in one sentence with its uncertainty; nothing where the data do not support one.

Only values whose spread is known are compared: architectures retrained with several seeds, or else placements of one
kind beside a baseline trained several times. Every claim holds for all comparisons together (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search.resampling import Array, Interval, welch

LEAST_ARM = 3
CONFIDENCE = 0.95
Scope = tuple[tuple[int, str], ...]
"""(stage, modules) for each stage that holds something, by stage; modules as in "aw+se"."""


@dataclass(frozen=True)
class Arm:
    """Values of one placement (or of several of one scope), and its cost. values: fractions, more is better."""

    scope: Scope
    macs: float
    values: tuple[float, ...]

    @property
    def array(self) -> Array:
        return np.asarray(self.values, dtype=np.float64)


@dataclass(frozen=True)
class Finding:
    """The cheapest placement that beats the baseline and that no dearer one beats.

    gain: fractions over the baseline; its interval holds for all `compared` placements together. extra: MACs over
    the baseline's, a share. more: whether placements that fill more stages were compared too.
    """

    scope: Scope
    stages: int
    gain: Interval
    extra: float
    more: bool
    compared: int
    runs: int

    def sentence(self, name: Callable[[str], str] = str.upper) -> str:
        """As in "CBAM in stage 3 only: +0.9 ± 0.3 points for +0.4 % MACs; more stages add nothing yet"."""
        half = 100 * (self.gain.high - self.gain.low) / 2
        digits = 1 if half >= 0.1 else 2
        cost = f"{_signed(100 * self.extra, 1 if abs(self.extra) >= 0.001 else 2)} % MACs"
        only = " only" if len(self.scope) < self.stages else ""
        rest = "; more stages add nothing yet" if self.more else ""
        gain = f"{_signed(100 * self.gain.value, digits)} ± {half:.{digits}f} points"
        return f"{scope_words(self.scope, self.stages, name)}{only}: {gain} for {cost}{rest}"


def find(baseline: Arm, arms: Sequence[Arm], stages: int) -> Finding | None:
    """The finding, or None. baseline: the backbone without attention, trained several times. stages: it has."""
    able = sorted((arm for arm in arms if arm.scope and len(arm.values) >= 2), key=lambda arm: (arm.macs, arm.scope))
    if len(baseline.values) < 2 or not able:
        return None
    level = 1 - (1 - CONFIDENCE) / len(able)
    gains = {id(arm): welch(arm.array, baseline.array, level) for arm in able}
    for place, arm in enumerate(able):
        gain = gains[id(arm)]
        if gain is None or gain.low <= 0 or any(_beats(other, arm, level) for other in able[place + 1 :]):
            continue
        mine = {stage for stage, _ in arm.scope}
        more = any({stage for stage, _ in other.scope} > mine for other in able)
        extra = (arm.macs - baseline.macs) / baseline.macs if baseline.macs else 0.0
        return Finding(arm.scope, stages, gain, extra, more, len(able), len(arm.values))
    return None


def arms_by_scope(scopes: Sequence[Scope], values: Sequence[float], macs: Sequence[float]) -> list[Arm]:
    """Trials of one seed each as arms: those with the same modules in the same stages together."""
    groups: dict[Scope, list[int]] = {}
    for row, scope in enumerate(scopes):
        groups.setdefault(scope, []).append(row)
    return [
        Arm(scope, float(np.mean([macs[row] for row in rows])), tuple(values[row] for row in rows))
        for scope, rows in groups.items()
        if scope and len(rows) >= LEAST_ARM
    ]


def scope_words(scope: Scope, stages: int, name: Callable[[str], str]) -> str:
    """CBAM in stage 3; SE in stages 1 and 2, CBAM in stage 3; SE + CBAM in all stages."""
    together: dict[str, list[int]] = {}
    for stage, modules in scope:
        together.setdefault(modules, []).append(stage)
    return ", ".join(
        f"{' + '.join(map(name, modules.split('+')))} in {_stages(found, stages)}"
        for modules, found in together.items()
    )


def scope_of(modules: Mapping[int, str]) -> Scope:
    """The scope of an architecture: modules by stage, "" for none."""
    return tuple((stage, found) for stage, found in sorted(modules.items()) if found)


def _beats(other: Arm, arm: Arm, level: float) -> bool:
    found = welch(other.array, arm.array, level)
    return found is not None and found.low > 0


def _stages(found: Sequence[int], stages: int) -> str:
    if len(found) == 1:
        return f"stage {found[0]}" if stages > 1 else "its stage"
    if len(found) == stages:
        return "all stages"
    return f"stages {', '.join(map(str, found[:-1]))} and {found[-1]}"


def _signed(value: float, digits: int) -> str:
    text = f"{abs(value):.{digits}f}"
    return f"±{text}" if not float(text) else f"{'+' if value > 0 else '−'}{text}"
