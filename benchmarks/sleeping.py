"""A data set whose trials only sleep, registered through ATTUNE_PLUGINS: what is left is attune's own price."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from search.datasets import DatasetEntry, DatasetOption
from workers.datasets import DATASETS, ArraySplits, DatasetError
from workers.training.evaluators import register_evaluator
from workers.training.request import EpochResult, TestResult, TrialRequest


class Sleep:
    """Nothing to see: `seconds` of sleep for each epoch."""

    name = "sleep"
    evaluator = "sleep"

    def entry(self) -> DatasetEntry:
        seconds = DatasetOption(name="seconds", type="float", default=1.0, minimum=0.0, maximum=600.0, doc="Per epoch.")
        return DatasetEntry(
            name=self.name,
            title="Sleep",
            source="benchmarks/sleeping.py",
            input_shape=(1, 8, 8),
            classes=10,
            train_size=1,
            validation_size=1,
            test_size=1,
            fingerprint="0" * 64,
            options=(seconds,),
        )

    def splits(self, options: Mapping[str, Any]) -> ArraySplits:
        raise DatasetError("sleep has no images")


class SleepSession:
    """One trial that sleeps. It imports torch, as every real trial does."""

    def __init__(self, request: TrialRequest) -> None:
        import torch  # noqa: F401

        self.request = request
        self.epoch = 0

    def run_epoch(self) -> EpochResult:
        seconds = float(self.request.dataset_options["seconds"])
        time.sleep(seconds)
        self.epoch += 1
        sites = len(self.request.architecture["placements"])
        return EpochResult(self.epoch, 1.0, 1.0, min(0.99, 0.5 + 0.01 * sites), 0.99, 0.1, seconds, 1.0)

    def evaluate_test(self) -> TestResult:
        return TestResult(1.0, 0.5, 0.9)

    def state(self) -> dict[str, Any]:
        return {"epoch": self.epoch}

    def load(self, state: dict[str, Any]) -> None:
        self.epoch = int(state["epoch"])


DATASETS.add(Sleep())
register_evaluator("sleep", "benchmarks.sleeping:SleepSession")
