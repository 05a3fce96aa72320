"""`gpus: auto`: how many of a search's trials share a GPU, measured on a worker before its first trial.

The probe trains the network that is expected to take most, as 1, 2, 4 and 8 processes at once, for a few seconds each.
It takes a whole GPU and the CPUs of one trial. What it finds is kept in the search, so it is made once.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from typing import Any

import ray
import structlog

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
    Waits for a GPU as a trial does."""
    resources = run.plan.spec.resources
    request = replace(_request(run.plan), device="cuda")
    task = ray.remote(_probe_here).options(num_cpus=resources.cpus, num_gpus=1, max_retries=0)
    log.info("gpu.probing", cpus=resources.cpus)
    asked = task.remote(request.to_json(), resources.cpus)
    while not ray.wait([asked], timeout=LOOK_SECONDS)[0]:
        run.tick()
        if run.over:
            ray.cancel(asked, force=True)
            return
    try:
        probed: Probed = ray.get(asked)
    except ray.exceptions.RayError as error:
        probed = Probed(Choice(1, shortened(f"The probe failed: {error}")), ())
    log.info("gpu.probed", trials=probed.choice.trials, reason=probed.choice.reason)
    number = probed.choice.trials
    run.ledger.settled({"gpus": share_of_gpu(number), "trials_per_gpu": number}, probed.to_json())


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
