"""`gpus: auto`: how many of a search's trials share a GPU, measured on a worker before its first trial.

The probe trains the network that is expected to take most, as 1, 2, 4 and 8 processes at once, for a few seconds each.
It takes a whole GPU and the CPUs of one trial. What it finds is kept in the search, so it is made once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import ray
import structlog
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, WorkerCrashedError

from search.architecture import Architecture
from search.plan import SearchPlan
from search.spec import share_of_gpu
from workers.density import Choice, Measured, following, without_memory
from workers.evaluation import request_of
from workers.failures import shortened
from workers.orders import Order
from workers.run import SearchRun
from workers.training.probing import SECONDS, ProbeError, ProbeMemoryError, measure
from workers.training.request import TrialRequest
from workers.trial_environment import strip_environment

LOOK_SECONDS = 0.5
"""Between two looks whether the search is still wanted."""

ATTEMPTS = 3
LOSSES = (WorkerCrashedError, NodeDiedError, OutOfMemoryError)
"""What says nothing about the search: the process or its node went away, or another process took the node's memory."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Probed:
    """What came out, and what was measured on the way."""

    choice: Choice
    measured: tuple[Measured, ...]

    def to_json(self) -> dict[str, Any]:
        """As the event tells it."""
        number, reason = self.choice.trials, self.choice.reason
        message = f"{number} trial{'s share' if number > 1 else ' has'} a GPU. {reason}"
        return {"message": message, "trials_per_gpu": number, "measured": [asdict(found) for found in self.measured]}


def probe(request: TrialRequest, cpus: float, seconds: float = SECONDS) -> Probed:
    """Measures on this machine, with more and more processes as long as it pays. cpus: how many trials the CPUs that
    come with one GPU are enough for. What cannot be measured leaves one trial to a GPU, and says why."""
    measured: list[Measured] = []
    available = 0
    while not isinstance(step := following(measured, available, cpus), Choice):
        try:
            pace = measure(request, step, seconds, share_of_gpu(step))
        except ProbeMemoryError:
            return Probed(without_memory(measured, step), tuple(measured))
        except ProbeError as error:
            best = measured[-1].trials if measured else 1
            return Probed(Choice(best, shortened(f"{step} at once could not be measured: {error}")), tuple(measured))
        available = pace.available
        measured.append(Measured(step, pace.images_per_second, pace.memory))
    return Probed(step, tuple(measured))


def settle_share(run: SearchRun) -> None:
    """Makes the probe on a worker and keeps its result with the search; nothing when the search is stopped meanwhile.
    Waits for a GPU as a trial does.

    Only what a probe has told is kept for good. Where none came to its end, a trial has a whole GPU for now, the
    search's events say why, and its next driver measures anew.
    """
    resources = run.plan.spec.resources
    request = replace(_request(run.plan), device="cuda")
    task = ray.remote(_probe_here).options(num_cpus=resources.cpus, num_gpus=1, max_retries=0)
    log.info("gpu.probing", cpus=resources.cpus)
    try:
        probed = told_by(lambda: _told(run, task.remote(request.to_json(), resources.cpus)))
    except RayError as error:
        log.warning("gpu.not_probed", error=str(error))
        why = f"One trial has a GPU for now, as the probe could not be made: {error}"
        run.ledger.settled({}, {"message": shortened(why), "trials_per_gpu": 1, "measured": []})
        return
    if probed is None:
        return
    log.info("gpu.probed", trials=probed.choice.trials, reason=probed.choice.reason)
    number = probed.choice.trials
    run.ledger.settled({"gpus": share_of_gpu(number), "trials_per_gpu": number}, probed.to_json())


def told_by(ask: Callable[[], Probed | None]) -> Probed | None:
    """What `ask` gives, asked ATTEMPTS times at most while what it runs on is lost. Raises its RayError."""
    for left in range(ATTEMPTS - 1, 0, -1):
        try:
            return ask()
        except LOSSES as error:
            log.warning("gpu.probe_lost", error=str(error), attempts_left=left)
    return ask()


def _told(run: SearchRun, asked: Any) -> Probed | None:
    """What the probe has found; None, and its end, when the search is stopped. Raises RayError."""
    while not ray.wait([asked], timeout=LOOK_SECONDS)[0]:
        run.tick()
        if run.over:
            ray.cancel(asked, force=True)
            return None
    probed: Probed = ray.get(asked)
    return probed


def _request(plan: SearchPlan) -> TrialRequest:
    """Of the control with most modules: attention makes a network larger, never smaller."""
    heaviest = max((architecture for _, architecture in plan.controls), key=_modules)
    order = Order("controls", "control", heaviest, plan.spec.strategy.seed, plan.epochs, evaluation_key="")
    return request_of(plan, order, threads=max(1, int(plan.spec.resources.cpus)))


def _modules(architecture: Architecture) -> int:
    return sum(len(modules) for _, modules in architecture.placements)


def _probe_here(request: dict[str, Any], cpus: float) -> Probed:
    """The probe in a process of the cluster that has been given a GPU."""
    strip_environment(os.environ)
    node = ray.get_runtime_context().get_node_id()
    offered = next(found["Resources"] for found in ray.nodes() if found["NodeID"] == node)  # type: ignore[no-untyped-call]
    return probe(TrialRequest.from_json(request), offered.get("CPU", 0) / max(1, offered.get("GPU", 1)) / cpus)
