"""A plug-in for tests: a data set whose trials train in no time and go wrong on request.

`trouble` says how; `sites` for how many placements it happens (`mixed` has its own table).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.datasets import DatasetEntry, DatasetOption
from workers.datasets import DATASETS, ArraySplits, DatasetError
from workers.training.errors import DivergedError
from workers.training.evaluators import register_evaluator
from workers.training.request import EpochResult, TestResult, TrialRequest

TROUBLES = ("none", "mixed", "crash", "crash_once", "gone")
MIXED = {(2, 3): "nan", (1, 3): "raise", (1, 2, 3): "memory"}
"""Of the placements in three stages, by the stages they use, those that fail and how."""


class Troubles:
    name = "troubles"
    evaluator = "troubles"

    def entry(self) -> DatasetEntry:
        options = (
            DatasetOption(name="trouble", type="choice", default="none", choices=TROUBLES, doc="What goes wrong."),
            DatasetOption(name="sites", type="int", default=0, minimum=0, maximum=99, doc="For how many placements."),
            DatasetOption(name="seconds", type="float", default=0.0, minimum=0, maximum=600, doc="Per epoch."),
            DatasetOption(name="marker", type="int", default=0, minimum=0, maximum=10**9, doc="Tells tests apart."),
        )
        return DatasetEntry(
            name=self.name,
            title="Troubles",
            source="tests",
            input_shape=(1, 8, 8),
            classes=10,
            train_size=1,
            validation_size=1,
            test_size=1,
            fingerprint="1" * 64,
            options=options,
        )

    def splits(self, options: Mapping[str, Any]) -> ArraySplits:
        raise DatasetError("there are no images")


class TroubledSession:
    def __init__(self, request: TrialRequest) -> None:
        self.request = request
        self.epoch = 0

    def run_epoch(self) -> EpochResult:
        options = self.request.dataset_options
        time.sleep(float(options["seconds"]))
        placements = self.request.architecture["placements"]
        if options["trouble"] == "mixed":
            self._go_wrong(MIXED.get(tuple(sorted(int(site[0]) for site in placements)), "none"))
        elif len(placements) == options["sites"]:
            self._go_wrong(str(options["trouble"]))
        self.epoch += 1
        top1 = 0.5 + 0.01 * len(self.request.architecture["placements"])
        return EpochResult(self.epoch, 1.0, 1.0 - top1, top1, 0.9, 0.1, 0.01, 100.0)

    def _go_wrong(self, trouble: str) -> None:
        match trouble:
            case "nan":
                raise DivergedError(self.epoch + 1, "training loss")
            case "raise":
                raise ValueError("a bug in a module")
            case "memory":
                import torch

                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            case "crash":
                os._exit(1)
            case "crash_once":
                marker = Path(os.environ["ATTUNE_HOME"]) / f"crashed-{self.request.dataset_options['marker']}"
                if not marker.exists():
                    marker.touch()
                    os._exit(1)
            case "gone":
                raise DatasetError("troubles: train/ is gone")

    def evaluate_test(self) -> TestResult:
        return TestResult(1.0, 0.5, 0.9)

    def state(self) -> dict[str, Any]:
        return {"epoch": self.epoch}

    def load(self, state: dict[str, Any]) -> None:
        self.epoch = int(state["epoch"])


DATASETS.add(Troubles())
register_evaluator("troubles", "tests.e2e.troubles:TroubledSession")
