"""What a trial is asked to do and what it answers: plain data, torch-free, to and from JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from search.architecture import Architecture, Task
from search.recipes import EVALUATION_VERSION, Recipe
from search.registry import parse_options

UNDECISIVE = ("device", "threads", "evaluate_test", "latency", "compile")
"""Fields of a request that change nothing of what is trained, but for rounding."""


@dataclass(frozen=True)
class TrialRequest:
    """One architecture to be trained once with one seed.

    architecture: as `Architecture.to_json`. dataset, dataset_options: the registered name and its options.
    fingerprint: of the resolved data set when the search was submitted; "" if it need not be checked.
    weights: the registered name of what the backbone starts from; None: weights drawn at random.
    weights_fingerprint: of the file of that name.
    recipe: all fields of a `Recipe`. epochs: passes planned, which the schedule spans; stopping early is the caller's.
    device: as torch names it. threads: CPU threads of one trial (they are the process's).
    evaluate_test: whether the test split may be touched (the confirm phase).
    latency: whether the trained network is timed on the trial's device.
    compile: whether training steps may be compiled (see `workers.training.execution`).
    """

    architecture: dict[str, Any]
    task: Task
    dataset: str
    recipe: dict[str, Any]
    epochs: int
    seed: int
    dataset_options: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    weights: str | None = None
    weights_fingerprint: str = ""
    device: str = "cpu"
    threads: int = 1
    evaluate_test: bool = False
    latency: bool = False
    compile: Literal["auto", "never", "always"] = "auto"

    @property
    def precision(self) -> Literal["fp32", "tf32", "bf16"]:
        return self.parsed_recipe().precision

    def parsed_recipe(self) -> Recipe:
        """The recipe; SpecError when a field is wrong."""
        return parse_options(Recipe, self.recipe, "training")

    def parsed_architecture(self) -> Architecture:
        """The architecture; SpecError when a name or an option is wrong."""
        return Architecture.from_json(self.architecture)

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        data["task"]["input_shape"] = list(self.task.input_shape)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialRequest:
        """The inverse of `to_json`; an unknown or missing field is a TypeError."""
        task = data["task"]
        return cls(**{**data, "task": Task(**{**task, "input_shape": tuple(task["input_shape"])})})

    @property
    def key(self) -> str:
        """SHA-256 (hex) over all that decides the result; a checkpoint belongs to one key."""
        decisive = {k: v for k, v in self.to_json().items() if k not in UNDECISIVE}
        text = json.dumps([EVALUATION_VERSION, decisive], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class EpochResult:
    """One epoch. Losses are means of cross entropy in nats; top1, top5 are fractions of the validation split.

    train_loss: over the epoch's steps, with label smoothing. top5: of min(5, classes) guesses.
    lr: learning rate of the last step. seconds: training and validation. images_per_second: training alone.
    wait_share: of the time of training, how much the device waited for images (0 to 1). batch_parts: in how many parts
    batches were computed in the end, as memory had run out.
    """

    epoch: int
    train_loss: float
    val_loss: float
    top1: float
    top5: float
    lr: float
    seconds: float
    images_per_second: float
    wait_share: float = 0.0
    batch_parts: int = 1


@dataclass(frozen=True)
class TestResult:
    """The test split, touched once at the end of a confirmed trial."""

    __test__ = False

    test_loss: float
    test_top1: float
    test_top5: float
