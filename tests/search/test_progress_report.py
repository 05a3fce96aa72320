"""The comparison as a document: what of two searches can be compared, and how it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from search.progress_report import report, sentence

BOUNDS = [
    {"metric": "top1", "goal": "max", "best": 1.0, "worst": 0.0},
    {"metric": "macs", "goal": "min", "best": 0, "worst": 1000},
]
TRAINED = {"recipe": {"name": "short", "epochs": 3}, "weights": None, "version": 1}


@dataclass(frozen=True)
class Row:
    key: str
    phase: str
    seed: int
    values: tuple[float, ...]
    epochs: int = 3
    brought: bool = False

    @property
    def trial_id(self) -> str:
        return f"trial of {self.key}"

    @property
    def label(self) -> str:
        return f"label of {self.key}"


@dataclass(frozen=True)
class Told:
    """A search that has measured these rows."""

    search_id: str
    rows: Sequence[Row]
    trained: Mapping[str, Any] = field(default_factory=lambda: TRAINED)
    data: str = "d"

    def bounds(self) -> Sequence[Mapping[str, Any]]:
        return BOUNDS

    def fingerprint(self) -> str:
        return self.data

    def conditions(self, *, confirm: bool) -> Mapping[str, Any]:
        return {**self.trained, "seed": 1 + confirm, "test": confirm, "dataset": self.data}

    def device(self) -> None:
        return None

    def everything(self, metrics: Sequence[str]) -> Sequence[Row]:
        return self.rows

    def documents(self, keys: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        return {key: {"placements": {f"{key}.1.residual": [{"kind": "se"}]}} for key in keys}


def trained(key: str, top1: float, *, epochs: int = 3) -> list[Row]:
    confirmed = [Row(key, "confirm", seed, (top1 + 0.001 * seed, 500), epochs) for seed in (1, 2, 3)]
    return [Row(key, "explore", 0, (top1, 500), epochs), *confirmed]


def test_a_longer_training_alone_is_no_improvement() -> None:
    older = Told("s1", trained("1", 0.5))
    longer = {**TRAINED, "recipe": {"name": "short", "epochs": 9}}
    told = report(Told("s2", trained("1", 0.7, epochs=9), longer), older)
    assert (told["data_changed"], told["training_changed"]) == (False, True)
    assert told["moved"]["verdict"] == "unchanged"
    assert told["hypervolume"]["change"] == 0
    assert "trained otherwise" in sentence(told)
    other = report(Told("s2", trained("2", 0.7, epochs=9), longer), older)
    assert other["moved"]["verdict"] == "unknown"
    assert report(Told("s2", trained("2", 0.7)), older)["moved"]["verdict"] == "improved"


def test_what_was_not_measured_again_is_named() -> None:
    older = Told("s1", [*trained("1", 0.5), Row("3", "explore", 0, (0.4, 100))])
    told = report(Told("s2", trained("1", 0.5), data="grown"), older)
    assert [point["key"] for point in told["unmeasured"]] == ["3"]
    assert "Of the front before 1 has not been measured again and counts for nothing." in sentence(told)
    whole = report(Told("s2", [*trained("1", 0.5), Row("3", "explore", 0, (0.4, 100))], data="grown"), older)
    assert "measured again" not in sentence(whole)
