"""Which code trains a trial: by the data set's own evaluator, else by the kind of task. Torch-free until one is loaded.

`ATTUNE_PLUGINS` (module names with commas between them) is imported by every process that runs trials or publishes the
catalog; such a module may register data sets and evaluators. Only the operator sets it: a request cannot name code.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from search.errors import SpecError
from search.registry import load_object
from workers.datasets import DATASETS
from workers.training.request import EpochResult, TestResult, TrialRequest

if TYPE_CHECKING:
    from workers.training.teams import Team

PLUGINS_VARIABLE = "ATTUNE_PLUGINS"


class Session(Protocol):
    """One trial in progress; the class is called as Session(request).

    It may also have `metrics() -> dict[str, float]` (all that it has measured after the last epoch, by metric name),
    `weights() -> dict[str, Tensor]` (what it judges, where that is not `state()["network"]`), `latency() ->
    dict[str, float]` (the speed metrics, in ms, for searches that are judged by one of them), `execution() -> dict`
    (how its steps were computed: a `workers.training.execution.Execution` as JSON) and `close() -> None` (called when
    the trial ends, however it ends). A class whose attribute `shares_work` is true is called as Session(request, team)
    where several processes train the trial. A search with `gpus: auto` needs `pace(seconds, ready) -> float` too (see
    `workers.training.classification.ClassificationSession.pace`).
    """

    @property
    def epoch(self) -> int:
        """Epochs done."""
        ...

    def run_epoch(self) -> EpochResult:
        """Trains one epoch and validates; DivergedError when the loss is not finite."""
        ...

    def evaluate_test(self) -> TestResult:
        """Judges on the test split; TrainingError unless the request allows it."""
        ...

    def state(self) -> dict[str, Any]:
        """All that `load` needs to go on as if never interrupted; tensors are copies on the CPU."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from `state`; StateError when it is of another trial."""
        ...


EVALUATORS: dict[str, str] = {"classification": "workers.training.classification:ClassificationSession"}
"""Session classes as "package.module:Class"."""


def register_evaluator(name: str, path: str) -> None:
    """Makes `path` ("package.module:Class") the evaluator called `name`; a second one of that name is a ValueError."""
    if EVALUATORS.setdefault(name, path) != path:
        raise ValueError(f"evaluator {name!r} is registered twice")


def load_evaluator(path: str) -> Callable[[TrialRequest], Session]:
    """The session class at "package.module:Class" (imports torch, if the class does)."""
    evaluator: Callable[[TrialRequest], Session] = load_object(path)
    return evaluator


def start_session(request: TrialRequest, team: Team | None = None) -> Session:
    """The session for `request`; SpecError when no evaluator has the name that data set or task asks for, or when it
    cannot share its work with a team."""
    name = DATASETS.get(request.dataset, "dataset.name").evaluator or request.task.kind
    if name not in EVALUATORS:
        raise SpecError.one("task", f"Unknown evaluator {name!r}.", sorted(EVALUATORS))
    make: Any = load_evaluator(EVALUATORS[name])
    if team is not None and not getattr(make, "shares_work", False):
        raise SpecError.one("resources.workers", f"The evaluator {name!r} trains in one process.", ("1",))
    session: Session = make(request) if team is None else make(request, team)
    return session


def load_plugins() -> None:
    """Imports the modules of ATTUNE_PLUGINS; repeating it does nothing. ImportError names the one that is missing."""
    for name in os.environ.get(PLUGINS_VARIABLE, "").split(","):
        if name.strip():
            import_module(name.strip())
