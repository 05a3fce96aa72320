"""What a request would mean, before it is submitted."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class Range(BaseModel):
    """least, greatest: exact, over the whole space (or what one decision adds to the backbone)."""

    least: int
    greatest: int


class Decision(BaseModel):
    """One independent choice. stages: that it decides for; adds: to the backbone, by metric."""

    stages: list[int]
    choices: int
    sites: list[str]
    adds: dict[str, Range]


class CostOut(BaseModel):
    params: int
    macs: int


class Control(BaseModel):
    """An architecture trained beside the search."""

    role: str
    label: str
    key: str
    architecture: dict[str, Any]
    cost: CostOut


class Budget(BaseModel):
    """trials: explore trials as asked for; explore: as many as the space holds of them; total: with all others."""

    trials: int
    explore: int
    controls: int
    confirm: int
    total: int
    covers_space: bool


class Estimate(BaseModel):
    """seconds: of computing, for all trials one after the other, from how long `based_on` recorded trials took."""

    seconds_per_trial: float
    seconds: float
    based_on: int


class Preview(BaseModel):
    """count: distinct architectures before constraints, as a decimal string. cost: total range by metric.

    estimate: null while no trial of this backbone on this data has been recorded. spec: with every default filled in.
    """

    count: str
    sites: int
    decisions: list[Decision]
    baseline: CostOut
    cost: dict[str, Range]
    controls: list[Control]
    strategy: str
    budget: Budget
    estimate: Estimate | None
    waiting_reason: str | None
    spec: dict[str, Any]
