"""Trial processes started ahead of need: a process imports Ray, Tune and torch for longer than many a trial takes.

A raylet can start processes for a job before anything asks for them, but only its C++ clients offer that, so its
service is called directly here, for the version of Ray that this was written for. Whatever keeps that from working is
logged, and trial processes then start when they are needed.

What the processes import before their first work is also what every other trial process of the job imports.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
import structlog
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from workers.deaths import PATCHED_RAY

IMPORTS = (
    "workers.trial",
    "workers.watched_trial",
    "workers.training.classification",
    "torch._dynamo",  # torch imports it with the first optimiser, which takes seconds
)
KEEP_SECONDS = 30 * 24 * 3600
"""How long Ray lets a process wait for its first trial. It ends with its driver anyway, and earlier where it turns out
to be one too many (`Reserve`): what Ray would end by itself are not those that nobody needs."""
TIMEOUT_SECONDS = 10.0
IDLE_SECONDS = 30.0
"""After so long without a trial to start, a search needs no process in reserve."""

log = structlog.get_logger()


def runtime_environment() -> dict[str, Any]:
    """What a driver is to give to `ray.init`."""
    return {"worker_process_setup_hook": _importing(IMPORTS)}


def _importing(modules: Sequence[str]) -> Callable[[], None]:
    """A function that Ray ships as it is: a node without this package must be able to run it."""

    def get_ready() -> None:
        import importlib
        import traceback

        for module in modules:
            try:
                importlib.import_module(module)
            except Exception:  # noqa: BLE001 - the trial that needs it will fail with it, and say so in its row
                traceback.print_exc()

    return get_ready


def shares(nodes: Sequence[Mapping[str, Any]], most: int) -> dict[str, int]:
    """How many processes to start on each node (id → number): one in turn on each, as many as it has CPUs, up to
    `most` in all. nodes: as `ray.nodes()` gives them."""
    room = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]}
    given = dict.fromkeys(room, 0)
    while sum(given.values()) < most:
        free = [node for node in room if given[node] < room[node]]
        if not free:
            break
        for node in free[: most - sum(given.values())]:
            given[node] += 1
    return {node: number for node, number in given.items() if number}


class Reserve:
    """The processes of this driver that wait for their first trial, by node."""

    def __init__(self) -> None:
        self._waiting: Counter[str] = Counter()
        self._at_work: set[str] = set()
        self._nothing_since: float | None = None

    def __len__(self) -> int:
        return self._waiting.total()

    def start(self, most: int) -> int:
        """Starts what is missing from `most` trial processes for this driver's job, spread over the nodes that are
        there; how many wait then."""
        if not most:
            return 0
        if ray.__version__ != PATCHED_RAY:
            log.warning("trials.not_warmed", ray=ray.__version__, written_for=PATCHED_RAY)
            return 0
        nodes = {node["NodeID"]: node for node in ray.nodes()}  # type: ignore[no-untyped-call]
        for node_id, share in shares(list(nodes.values()), most).items():
            node, number = nodes[node_id], share - self._waiting[node_id]
            if number <= 0:
                continue
            try:
                _prestart(f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}", number)
            except Exception as error:  # noqa: BLE001 - private ground: trials start without it, only later
                log.warning("trials.not_warmed", node=node_id, error=repr(error))
            else:
                self._waiting[node_id] += number
        return len(self)

    def took(self, actor_id: str, node: str | None) -> None:
        """A trial has begun in this actor on that node; the first one there has taken a process that waited."""
        if actor_id not in self._at_work:
            self._at_work.add(actor_id)
            if node is not None and self._waiting[node]:
                self._waiting[node] -= 1

    def nothing_to_start(self, nothing: bool) -> None:
        """Whether the search has slots to spare and no trial for them."""
        if not nothing:
            self._nothing_since = None
        elif self._nothing_since is None:
            self._nothing_since = time.monotonic()

    def keep(self, most: int) -> None:
        """Ends those beyond `most`, and all when there has been nothing to start for a while."""
        if self._nothing_since is not None and time.monotonic() - self._nothing_since > IDLE_SECONDS:
            most = 0
        while len(self) > max(0, most):
            [(node, _)] = self._waiting.most_common(1)
            self._waiting[node] -= 1
            try:
                _end_one(node)
            except Exception as error:  # noqa: BLE001 - it ends with its driver at the latest
                log.warning("trials.not_let_go", node=node, error=repr(error))
            else:
                log.info("trials.let_go", node=node, waiting=len(self))


RESERVE = Reserve()
"""Of this process: a driver works on one search."""


class Leaving:
    """An actor that ends the process in which it is: one that waited for a trial."""

    def leave(self) -> None:
        ray.actor.exit_actor()  # type: ignore[no-untyped-call]


def _end_one(node_id: str) -> None:
    """Ends a process on that node that waits for a trial: an actor is put into it, and leaves with it."""
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    leaving: Any = ray.remote(Leaving)
    variables = {"env_vars": _variables_of_actors()}
    actor = leaving.options(num_cpus=0, max_restarts=0, runtime_env=variables, scheduling_strategy=there).remote()
    actor.leave.remote()


def _prestart(raylet: str, number: int) -> None:
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated.common_pb2 import Language  # type: ignore[attr-defined]
    from ray.core.generated.node_manager_pb2 import PrestartWorkersRequest  # type: ignore[attr-defined]
    from ray.core.generated.node_manager_pb2_grpc import NodeManagerServiceStub

    request = PrestartWorkersRequest(
        language=Language.PYTHON,
        job_id=ray.JobID.from_hex(ray.get_runtime_context().get_job_id()).binary(),
        keep_alive_duration_secs=KEEP_SECONDS,
        num_workers=number,
    )
    request.runtime_env_info.serialized_runtime_env = _runtime_environment_of_actors()
    channel = init_grpc_channel(raylet)
    try:
        stub = NodeManagerServiceStub(channel)  # type: ignore[no-untyped-call]
        stub.PrestartWorkers(request, timeout=TIMEOUT_SECONDS)
    finally:
        channel.close()


def _runtime_environment_of_actors() -> str:
    """The runtime environment that Tune's actors will ask for, letter by letter: processes are matched by its hash.

    Tune gives its actors variables of their own; Ray's core merges them into the job's environment and writes the
    result with sorted keys and without blanks.
    """
    worker: Any = ray._private.worker.global_worker
    job = worker.core_worker.get_job_config().runtime_env_info.serialized_runtime_env
    merged = json.loads(job or "{}")
    merged["env_vars"] = {**merged.get("env_vars", {}), **_variables_of_actors()}
    return json.dumps(merged, sort_keys=True, separators=(",", ":"))


def _variables_of_actors() -> dict[str, str]:
    """What Tune puts into the environment of its actors."""
    from ray.tune.execution.class_cache import DEFAULT_ENV_VARS, ENV_VARS_TO_PROPAGATE

    return DEFAULT_ENV_VARS | {name: os.environ[name] for name in ENV_VARS_TO_PROPAGATE if name in os.environ}
