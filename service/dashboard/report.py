"""The tables of a search's report: what its pictures show, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from search.metrics import METRICS
from service import formats
from service.effects.schemas import EffectsOut, IntervalOut
from service.strips import module_name


@dataclass(frozen=True)
class Worth:
    """One module (or stack) in one stage, beside the trials that have nothing there."""

    stage: int
    name: str
    trials: int
    gain: str
    interval: str
    macs: str


@dataclass(frozen=True)
class Used:
    """One site. share: of the front's placements that fill it."""

    stage: int
    name: str
    trials: int
    share: str
    gain: str
    interval: str


def worth(told: EffectsOut) -> list[Worth]:
    """Every module in every stage."""
    return [
        Worth(
            each.stage,
            " + ".join(map(module_name, each.choice.split("+"))) if each.choice else "nothing",
            each.trials,
            *_interval(each.gain, told.metric),
            formats.macs(each.extra_macs) if each.extra_macs > 0 else formats.MISSING,
        )
        for each in told.choices
        if each.factor == "module"
    ]


def used(told: EffectsOut) -> list[Used]:
    """Every site, whatever stands there."""
    return [
        Used(
            each.stage,
            "end of the stage" if each.block is None else f"block {each.block}",
            each.trials,
            formats.percent(each.share, 0),
            *_interval(each.gain, told.metric),
        )
        for each in told.sites
        if not each.kind
    ]


def _interval(found: IntervalOut | None, metric: str) -> tuple[str, str]:
    """Estimate and ends, in the metric's unit and with its sign."""
    if found is None:
        return formats.MISSING, "too few trials"
    low, high = sorted((found.low, found.high), reverse=METRICS[metric].goal == "min")
    return formats.change(found.value, metric), f"{formats.change(low, metric)} to {formats.change(high, metric)}"
