"""A trial trained by several processes: its own and, beside it on the same node, one actor for each further worker.

All are in the trial's one placement group (STRICT_PACK), so that Tune's books, quotas and waiting reasons count the
whole trial. Ray Train was tried first and is not used: its controller (Ray 2.60, `WorkerGroup._create_placement_group`)
asks for a placement group of its own, whatever the trial has been given. Inside a trial that held three of four CPUs
its two workers never started, and it gave up after 60 s; outside of what the trial holds, no quota would count them. It
also starts new processes for every `fit`, which import torch for longer than many a trial takes. Here the actors stay
for the next trial, as the trial's own process does.

The trial's own process is rank 0: it writes checkpoints, measures latency and reports. Where another one dies, the
trial fails as `killed`, which is tried again; what another one raises is the trial's failure. Where rank 0 is stuck and
cannot report it (NCCL waits in the GPU), it leaves the failure beside the trial's files and ends.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import ray
import structlog
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from workers.failures import failure_of
from workers.storage.errors import StorageError
from workers.storage.last_words import leave_last_words, take_last_words
from workers.training.errors import MemberError
from workers.training.evaluators import Session, load_plugins, start_session
from workers.training.request import EpochResult, TestResult, TrialRequest
from workers.trial_environment import strip_environment
from workers.trial_run import store_of

HOST = "127.0.0.1"
"""All members are on one node."""
PATIENCE_SECONDS = 10.0
"""How long a member may take to notice that another one has failed, before its process ends: NCCL waits in the GPU."""
LOOK_SECONDS = 0.5

log = structlog.get_logger()
T = TypeVar("T")


class Member:
    """The process of a rank above 0; see `Session` for what it does with the others."""

    def __init__(self) -> None:
        strip_environment(os.environ)
        self._session: Any = None
        self._team: Any = None

    def begin(self, request: dict[str, Any], port: int, rank: int, size: int) -> None:
        from workers.training.teams import join_team

        load_plugins()
        parsed = TrialRequest.from_json(request)
        self._team = join_team(HOST, port, rank, size, parsed.device)
        self._session = self._or_leave(lambda: start_session(parsed, self._team))

    def load(self, state: dict[str, Any]) -> None:
        self._or_leave(lambda: self._session.load(state))

    def run_epoch(self) -> None:
        self._or_leave(self._session.run_epoch)

    def evaluate_test(self) -> None:
        self._or_leave(self._session.evaluate_test)

    def end(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _or_leave(self, work: Callable[[], T]) -> T:
        """Leaves the team where the work fails: the others must not wait for a member that does not come."""
        try:
            return work()
        except BaseException:
            self._team.leave()
            raise


class Members:
    """The actors beside this process, which stay from trial to trial."""

    def __init__(self) -> None:
        self.actors: list[Any] = []

    def of(self, number: int) -> list[Any]:
        """So many actors, in the bundles of this process's placement group after its own."""
        group = ray.util.get_current_placement_group()
        assert group is not None  # Tune has placed this process
        for index in range(len(self.actors) + 1, number + 1):
            bundle = group.bundle_specs[index]
            strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
            options: Any = ray.remote(Member).options(
                num_cpus=bundle["CPU"], num_gpus=bundle.get("GPU", 0), max_restarts=0, scheduling_strategy=strategy
            )
            self.actors.append(options.remote())
        return self.actors[:number]

    def kill(self) -> None:
        """Ends them: one may wait for ever for what another one does not do any more."""
        for actor in self.actors:
            ray.kill(actor)
        self.actors = []


MEMBERS = Members()
"""Of this process."""


class TeamSession:
    """A session whose work is shared with `size` - 1 members. Raises what the session raises, or MemberError.

    keep: is given what a member has failed with before this process ends without a report.
    """

    def __init__(self, request: TrialRequest, size: int, keep: Callable[[Exception], None]) -> None:
        from workers.training.teams import host_team

        self._keep = keep
        self._broken = False
        self._members = MEMBERS.of(size - 1)
        port, join = host_team(size, request.device, HOST)
        told = request.to_json()
        begun = [member.begin.remote(told, port, rank, size) for rank, member in enumerate(self._members, start=1)]
        self._session: Any = self._together(begun, lambda: start_session(request, join()))

    @property
    def epoch(self) -> int:
        epoch: int = self._session.epoch
        return epoch

    def run_epoch(self) -> EpochResult:
        theirs = [member.run_epoch.remote() for member in self._members]
        result: EpochResult = self._together(theirs, self._session.run_epoch)
        return result

    def evaluate_test(self) -> TestResult:
        theirs = [member.evaluate_test.remote() for member in self._members]
        result: TestResult = self._together(theirs, self._session.evaluate_test)
        return result

    def load(self, state: dict[str, Any]) -> None:
        self._session.load(state)  # first here: a checkpoint that does not fit is none of theirs
        kept = ray.put(state)
        self._together([member.load.remote(kept) for member in self._members], lambda: None)

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self._session.state()
        return state

    def __getattr__(self, name: str) -> Any:
        """What sessions may have besides, of this process alone: metrics, weights, latency, execution."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._session, name)

    def close(self) -> None:
        """Ends the session everywhere; after a failure the members' processes too."""
        if self._broken:
            MEMBERS.kill()
        else:
            for member in self._members:
                member.end.remote()
        self._session.close()

    def _together(self, theirs: list[Any], mine: Callable[[], T]) -> T:
        """Does `mine` while the members do theirs."""
        watch = Watch(theirs, self._keep)
        try:
            done = mine()
        except Exception as error:
            self._broken = True
            cause = error if _is_own(error) else _failure_among(theirs, PATIENCE_SECONDS) or error
            MEMBERS.kill()
            raise cause from error
        finally:
            watch.stop()
        failure = _failure_among(theirs, None)
        if failure is not None:
            self._broken = True
            MEMBERS.kill()
            raise failure
        return done


class Watch(threading.Thread):
    """Ends this process where a member has failed and this one does not notice. keep: as in `TeamSession`."""

    def __init__(self, theirs: list[Any], keep: Callable[[Exception], None]) -> None:
        super().__init__(name="team", daemon=True)
        self._theirs = theirs
        self._keep = keep
        self._stopped = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            failure = _failure_among(self._theirs, 0.0)
            if failure is not None and not self._stopped.wait(PATIENCE_SECONDS):
                log.error("trial.member_failed", error=repr(failure))
                try:
                    self._keep(failure)
                except StorageError as problem:
                    log.warning("trial.failure_not_kept", error=str(problem))
                finally:
                    os._exit(1)

    def stop(self) -> None:
        self._stopped.set()


def _is_own(error: Exception) -> bool:
    """Whether the error cannot come from another member's failure, which shows as a RuntimeError of the connection."""
    import torch

    return not isinstance(error, RuntimeError) or isinstance(error, torch.OutOfMemoryError)


def _failure_among(theirs: list[Any], timeout: float | None) -> Exception | None:
    """What one of the members has failed with, waiting so many seconds for them to answer (None: until they all have).

    The death of one comes before what others raise because of it.
    """
    ended = time.monotonic() + (timeout or 0)
    found: list[Exception] = []
    for rank, answer in enumerate(theirs, start=1):
        left = None if timeout is None else max(0.0, ended - time.monotonic())
        if not ray.wait([answer], timeout=left)[0]:
            continue
        try:
            ray.get(answer)
        except RayActorError:
            return MemberError(
                f"Worker {rank + 1} of {len(theirs) + 1}, which trained a share of each batch, has died."
            )
        except RayError as error:
            found.append(error)
    return found[0] if found else None


def starting(order: dict[str, Any], where: str) -> Callable[[TrialRequest], Session] | None:
    """What starts the session of a trial with several workers; None for one that works alone. order, where: as
    `TrialRun` takes them."""
    size = order.get("workers", 1)
    if size == 1:
        return None

    def start(request: TrialRequest) -> TeamSession:
        store, prefix = store_of(order, where), order["store"]["prefix"]
        take_last_words(store, prefix)  # of an attempt before, whose driver has not seen them
        return TeamSession(request, size, lambda failure: leave_last_words(store, prefix, failure_of(failure)))

    return start
