"""A plug-in for tests: a data set whose trials train in no time and go wrong on request.

`trouble` says how; `sites` for how many placements it happens (`mixed` has its own table), `epoch` when, `times` how
often in all. Every step is written to a journal, so that a test knows which process did what how often, whatever the
database says.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.architecture import Architecture
from search.datasets import DatasetEntry, DatasetOption
from workers.datasets import DATASETS, ArraySplits, DatasetError
from workers.training.errors import DivergedError
from workers.training.evaluators import register_evaluator
from workers.training.request import EpochResult, TestResult, TrialRequest

TROUBLES = (
    "none", "mixed", "nan", "nan_result", "raise", "memory", "crash", "hang", "freeze", "gone", "removed", "full_disk",
)  # fmt: skip
MIXED = {(2, 3): "nan", (1, 3): "raise", (1, 2, 3): "memory"}
"""Of the placements in three stages, by the stages they use, those that fail and how."""
FOLDER = "TROUBLES_FOLDER"
SMALL_DISK = 1 << 20
"""Bytes of a file that `full_disk` lets a process write."""


class Troubles:
    name = "troubles"
    evaluator = "troubles"

    def entry(self) -> DatasetEntry:
        options = (
            DatasetOption(name="trouble", type="choice", default="none", choices=TROUBLES, doc="What goes wrong."),
            DatasetOption(name="sites", type="int", default=0, minimum=0, maximum=99, doc="For how many placements."),
            DatasetOption(name="epoch", type="int", default=1, minimum=1, maximum=999, doc="In which epoch."),
            DatasetOption(name="times", type="int", default=0, minimum=0, maximum=99, doc="How often; 0: always."),
            DatasetOption(name="seconds", type="float", default=0.0, minimum=0, maximum=600, doc="Per epoch."),
            DatasetOption(name="megabytes", type="int", default=0, minimum=0, maximum=999, doc="Of a checkpoint."),
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


def folder() -> Path:
    """Where the journal is: the same for all processes of a test."""
    return Path(os.environ.get(FOLDER) or os.environ["ATTUNE_HOME"])


class TroubledSession:
    """`value` stands for what a network has learned: each epoch's depends on all before it, so that a trial that goes
    on from a wrong state ends with a wrong accuracy."""

    def __init__(self, request: TrialRequest) -> None:
        self.request = request
        self.epoch = 0
        self.value = request.seed % 997
        self._key = Architecture.from_json(request.architecture).key
        _limit_files(None)
        self._note("start")

    def run_epoch(self) -> EpochResult:
        began = time.monotonic()
        options = self.request.dataset_options
        _limit_files(None)
        self._note("begin")
        time.sleep(float(options["seconds"]))
        placements = self.request.architecture["placements"]
        trouble = "none"
        if options["trouble"] == "mixed":
            trouble = MIXED.get(tuple(sorted(int(site[0]) for site in placements)), "none")
        elif len(placements) == options["sites"] and self.epoch + 1 == options["epoch"]:
            trouble = str(options["trouble"])
        if trouble != "none" and not self._often_enough():
            self._note("trouble")
            self._go_wrong(trouble)
        self.epoch += 1
        self.value = (31 * self.value + self.epoch) % 997
        self._note("epoch")
        top1 = 0.5 + 0.01 * len(placements) + 1e-6 * self.value
        loss = math.nan if trouble == "nan_result" else 1.0 - top1
        return EpochResult(self.epoch, 1.0, loss, top1, 0.9, 0.1, time.monotonic() - began, 100.0)

    def _often_enough(self) -> bool:
        times = int(self.request.dataset_options["times"])
        if not times:
            return False
        return sum(1 for line in read_journal(self._marker) if line["event"] == "trouble") >= times

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
            case "hang":
                time.sleep(3600)
            case "freeze":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "gone":
                raise DatasetError("troubles: train/ is gone")
            case "removed":
                images = folder() / f"images-{self._marker}"
                if not images.exists():
                    raise DatasetError(f"troubles: {images.name} is gone")
            case "full_disk":
                _limit_files(SMALL_DISK)

    @property
    def _marker(self) -> int:
        return int(self.request.dataset_options["marker"])

    def _note(self, event: str) -> None:
        line = {"marker": self._marker, "event": event, "key": self._key, "seed": self.request.seed}
        line |= {"epoch": self.epoch, "pid": os.getpid(), "at": time.time()}
        handle = os.open(folder() / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(handle, json.dumps(line).encode() + b"\n")  # one write: lines of several processes do not mix
        os.close(handle)

    def evaluate_test(self) -> TestResult:
        return TestResult(1.0, 0.5, 0.9)

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"epoch": self.epoch, "value": self.value}
        if megabytes := int(self.request.dataset_options["megabytes"]):
            import torch

            state["network"] = {"weight": torch.full((megabytes << 18,), float(self.value))}
        return state

    def load(self, state: dict[str, Any]) -> None:
        self.epoch, self.value = int(state["epoch"]), int(state["value"])
        self._note("load")


def read_journal(marker: int) -> list[dict[str, Any]]:
    """What trials with this marker have written, oldest first."""
    path = folder() / "journal"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if line["marker"] == marker]


def expected_top1(placements: int, epochs: int, seed: int = 0) -> float:
    """The accuracy of a trial that has trained every epoch once and in order, wherever."""
    value = seed % 997
    for epoch in range(1, epochs + 1):
        value = (31 * value + epoch) % 997
    return 0.5 + 0.01 * placements + 1e-6 * value


def _limit_files(most: int | None) -> None:
    """Files of at most so many bytes for this process, or as many as it likes."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if most is None else most, hard))


DATASETS.add(Troubles())
register_evaluator("troubles", "tests.e2e.troubles:TroubledSession")
