"""Why a trial's process died, as Ray tells it; and a gap in Tune that would end the whole search with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
import structlog
from ray import cloudpickle
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.experiment import Trial

from workers.failures import failure_of_process
from workers.orders import Failure
from workers.storage.errors import StorageError
from workers.storage.hangs import take_hang
from workers.storage.last_words import take_last_words
from workers.storage.store import Store

PATCHED_RAY = "2.60.0"

log = structlog.get_logger()


def may_patch() -> bool:
    """Whether this is the version of Ray whose private parts are known here; where it is not, the log says so."""
    if ray.__version__ == PATCHED_RAY:
        return True
    log.warning("tune.not_patched", ray=ray.__version__, written_for=PATCHED_RAY)
    return False


def take_memory_for_deaths() -> None:
    """Lets Tune see an actor that Ray has killed for its node's memory as one that died.

    Ray reports it as an OutOfMemoryError, which is no RayActorError, and Tune 2.60 ends the experiment on errors that
    it does not expect (`RayActorManager._actor_task_failed`). A private method, so only for the version it is of.
    """
    if not may_patch():
        return
    original = RayActorManager._actor_task_failed
    if getattr(original, "knows_memory", False):
        return

    def failed(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=f"OutOfMemoryError: {exception}")
        original(self, tracked_actor_task, exception)

    failed.knows_memory = True  # type: ignore[attr-defined]
    RayActorManager._actor_task_failed = failed  # type: ignore[method-assign]


def error_of(trial: Trial) -> BaseException | str | None:
    """What a trial's process has raised or died of.

    Read from where Tune has just written it: `Trial.get_pickled_error` looks for it in the experiment's storage, to
    which the driver's files are copied only once in a while.
    """
    for name, read in ((trial.pickled_error_file, _unpickled), (trial.error_file, Path.read_text)):
        if name is not None and Path(name).is_file():
            error: BaseException | str = read(Path(name))
            return error
    return None


def _unpickled(path: Path) -> BaseException:
    error: BaseException = cloudpickle.loads(path.read_bytes())
    return error


def failure_of_death(
    error: BaseException | str | None, store: Store, prefix: str, *, overdue: bool, seconds: float
) -> Failure:
    """The failure of a trial whose process has ended or was ended.

    prefix: of its files in the store, where a trial that hung has left the stack traces of its threads, and one that
    could not go on without another worker what that one has failed with. overdue: whether this driver has ended it
    because it had reported nothing for `seconds`.
    """
    traces = last_words = None
    try:
        traces = take_hang(store, prefix)
        last_words = take_last_words(store, prefix)
    except StorageError as problem:
        log.warning("trial.traces_unreadable", error=str(problem))
    if traces is not None or overdue:
        where = "" if traces else " It left no trace of where: nothing in it ran any more, or its node was lost."
        message = f"The trial hung: nothing was reported for {seconds:g} s (ATTUNE_EPOCH_TIMEOUT).{where}"
        return Failure("timeout", message, traces or "")
    return Failure(**(last_words or failure_of_process(error)))  # type: ignore[arg-type]
