"""What the API says about the worth of choices."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class IntervalOut(BaseModel):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


class AdjustedOut(BaseModel):
    """The same choice, all others being equal: by a regression on the choices of every stage, with 95 % intervals.

    gain: in the metric's unit, positive where better. gain_per_mmac: null where the choice costs nothing.
    """

    gain: IntervalOut
    extra_macs: float
    gain_per_mmac: IntervalOut | None


class EffectOut(BaseModel):
    """One choice in one stage, beside the trials that have `against` there.

    choice: a module or a stack ("aw+se"), a pattern, a ratio; "" for the stage as a whole. gain: difference of the
    mean quality, in the metric's unit, positive where better; null where either side has under 5 trials. extra_macs:
    difference of the mean multiply-adds. gain_per_mmac: null where the choice costs nothing. adjusted: null where
    the trials do not tell the choice from others that came with it.
    """

    factor: Literal["stage", "module", "pattern", "reduction"]
    stage: int
    choice: str
    trials: int
    against: Literal["nothing", "others"]
    reference_trials: int
    gain: IntervalOut | None
    extra_macs: float
    gain_per_mmac: IntervalOut | None
    adjusted: AdjustedOut | None


class SiteOut(BaseModel):
    """One site over all its positions. block: null for the end of the stage. kind: a module, "" for any.

    share: the part of the front's `front` placements that use it. gain: over trials with nothing in
    the stage; where they are under 5, over those with nothing at the site.
    """

    stage: int
    block: int | None
    kind: str
    trials: int
    front: int
    share: float
    gain: IntervalOut | None


class FindingOut(BaseModel):
    """What was learnt. sentence: in words; gain: over the baseline, its interval holding for all `compared` at once.

    extra: MACs over the baseline's, a share. source: "confirmed" (several seeds, test split) or "repeated" (one seed
    each beside a baseline trained several times, validation split).
    """

    sentence: str
    gain: IntervalOut
    extra: float
    source: Literal["confirmed", "repeated"]
    compared: int


class AdjustmentOut(BaseModel):
    """The regression. method: "ridge", with a penalty close to nothing, where some choices always came together, so
    that least squares has no single answer. parameters: how many the trials determine."""

    method: Literal["least_squares", "ridge"]
    parameters: int


class EffectsOut(BaseModel):
    """metric: the quality that is compared; title, goal, unit: its own. stages: blocks of each.

    finished: trials with a result; trials: how many of them were looked at (all, or a sample of 4,000
    and the front). adjustment: null where the trials are too few for it. finding: null where the data support none."""

    search_id: str
    metric: str
    title: str
    goal: Literal["max", "min"]
    unit: str
    stages: dict[str, int]
    finished: int
    trials: int
    front: int
    choices: list[EffectOut]
    sites: list[SiteOut]
    adjustment: AdjustmentOut | None
    finding: FindingOut | None
    last_event: int
