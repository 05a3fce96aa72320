"""Keeps Tune from losing slots where trials are shorter than the start of a process.

With `reuse_actors`, Tune gives an actor that becomes free to any trial that waits for one, and gives up the waiting
trial's own actor, which is still starting. With short trials the second process never comes up, and after a kill
everything runs on the survivor (Ray PR #42951, issue #51234).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from weakref import WeakKeyDictionary

import ray
from ray.air.execution._internal import TrackedActor
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

from workers.deaths import may_patch

PATIENCE_SECONDS = 5.0
"""How long an actor may wait for its slot before its trial takes a free process instead: the slot may be gone, or be
held by that very process."""


def keep_starting_actors() -> None:
    """Lets a trial whose own process is about to come up wait for it.

    This wraps a private method, so it is done only for the version it was written for; another version keeps its own
    behaviour, and the log says so.
    """
    if not may_patch():
        return
    original = TuneController._maybe_reuse_cached_actor
    if getattr(original, "keeps_starting", False):
        return
    asked: WeakKeyDictionary[TrackedActor, float] = WeakKeyDictionary()

    def reuse(self: TuneController, trial: Trial) -> bool:
        own = self._trial_to_actor.get(trial)
        if own is not None and trial not in self._resetting_trials:
            since = asked.setdefault(own, time.monotonic())
            if self._actor_manager.is_actor_started(own) or time.monotonic() - since < PATIENCE_SECONDS:
                return False
        return bool(original(self, trial))

    reuse.__wrapped__ = original  # type: ignore[attr-defined]
    reuse.keeps_starting = True  # type: ignore[attr-defined]
    TuneController._maybe_reuse_cached_actor = reuse  # type: ignore[method-assign]


def let_go_when_full(full: Callable[[], bool]) -> None:
    """Ends the process that Tune keeps for a next trial while `full` says that no next trial may start.

    Tune always keeps one, and with it its slot: a slot that a search gives up would be handed over one trial late.
    Wraps a private method, so only for the version that it was written for.
    """
    if not may_patch():
        return
    original = TuneController._cleanup_cached_actors
    original = getattr(original, "__wrapped__", original)

    def clean_up(self: TuneController, force_all: bool = False) -> None:
        original(self, force_all=force_all or (not self._staged_trials and full()))

    clean_up.__wrapped__ = original  # type: ignore[attr-defined]
    TuneController._cleanup_cached_actors = clean_up  # type: ignore[method-assign]


def end_with_experiment() -> None:
    """Ends every trial process at the end of an experiment at once, also those that have not come up.

    All that they had to do is done by then. Tune asks each to end and waits, up to 15 s for one that still starts: a
    cancel may not take so long. Wraps a private method, so only for the version that it was written for.
    """
    if not may_patch():
        return
    original = TuneController._cleanup_trials
    if hasattr(original, "__wrapped__"):
        return

    def clean_up(self: TuneController) -> None:
        for actor, _ in self._actor_manager._live_actors_to_ray_actors_resources.values():
            ray.kill(actor)
        original(self)  # type: ignore[no-untyped-call]

    clean_up.__wrapped__ = original  # type: ignore[attr-defined]
    TuneController._cleanup_trials = clean_up  # type: ignore[method-assign]
