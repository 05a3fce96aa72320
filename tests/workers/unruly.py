"""A plug-in for tests: trials that train in no time, end their process or leave word of what they see."""

from __future__ import annotations

import ctypes
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.architecture import Task
from search.datasets import DatasetEntry, DatasetOption
from workers.datasets import DATASETS, ArraySplits, DatasetError
from workers.training.evaluators import register_evaluator
from workers.training.request import EpochResult, TestResult, TrialRequest

WHAT = ("fine", "raise", "memory", "cuda", "hang", "hang_with_lock", "look", "eat")


class Unruly:
    name = "unruly"
    evaluator = "unruly"

    def entry(self) -> DatasetEntry:
        what = DatasetOption(name="what", type="choice", default="fine", choices=WHAT, doc="What the trial does.")
        return DatasetEntry(
            name=self.name, title="Unruly", source="tests", input_shape=(1, 8, 8), classes=10, train_size=1,
            validation_size=1, test_size=1, fingerprint="2" * 64, options=(what,),
        )  # fmt: skip

    def splits(self, options: Mapping[str, Any]) -> ArraySplits:
        raise DatasetError("there are no images")


class UnrulySession:
    def __init__(self, request: TrialRequest) -> None:
        self.what = request.dataset_options["what"]
        self.epoch = 0

    def run_epoch(self) -> EpochResult:
        import torch

        match self.what:
            case "raise":
                raise ValueError("a bug in a module")
            case "memory":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            case "cuda":
                raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
            case "hang":
                time.sleep(600)
            case "hang_with_lock":
                ctypes.PyDLL(None).sleep(600)
            case "look":
                started_with = Path("/proc/self/environ").read_bytes().decode().split("\0")
                seen = {"now": dict(os.environ), "started_with": started_with}
                (Path(os.environ["ATTUNE_HOME"]) / "seen.json").write_text(json.dumps(seen))
            case "eat":
                self.eaten = [bytearray(os.urandom(1 << 20) * 100) for _ in range(40)]
                time.sleep(600)
        self.epoch += 1
        return EpochResult(self.epoch, 1.0, 0.5, 0.5, 0.9, 0.1, 0.01, 100.0)

    def evaluate_test(self) -> TestResult:
        return TestResult(1.0, 0.5, 0.9)

    def state(self) -> dict[str, Any]:
        return {"epoch": self.epoch}

    def load(self, state: dict[str, Any]) -> None:
        self.epoch = int(state["epoch"])


def order_of(what: str, url: str, *, epochs: int = 1, timeout: float = 60.0) -> dict[str, Any]:
    """What a driver would hand to a trial process; the store's id is "unruly"."""
    request = TrialRequest(
        architecture={"backbone": {"name": "resnet8", "width": 4}, "placements": {}}, task=Task((1, 8, 8), 10),
        dataset="unruly", recipe={}, epochs=epochs, seed=0, dataset_options={"what": what},
    )  # fmt: skip
    store = {"url": url, "id": "unruly", "prefix": f"searches/one/{what}"}
    return {"trial_id": what, "gpus": 0, "request": request.to_json(), "store": store, "epoch_timeout": timeout}


DATASETS.add(Unruly())
register_evaluator("unruly", "tests.workers.unruly:UnrulySession")
