"""Keeps Tune from calls, for each trial, whose answers are known or of no use: a fifth of the time of short trials."""

from __future__ import annotations

from typing import Any

from ray.actor import ActorHandle
from ray.tune import registry
from ray.tune.experiment import Trial

from workers.deaths import may_patch


class RememberingRegistry(registry._Registry):
    """What was found once is not asked for again: a driver works on one search, whose trials are of one class."""

    _found: dict[tuple[str, str], Any]

    def register(self, category: str, key: str, value: Any) -> None:
        self._found.pop((category, key), None)
        super().register(category, key, value)

    def unregister(self, category: str, key: str) -> None:
        self._found.pop((category, key), None)
        super().unregister(category, key)  # type: ignore[no-untyped-call]

    def contains(self, category: str, key: str) -> bool:
        return (category, key) in self._found or bool(super().contains(category, key))  # type: ignore[no-untyped-call]

    def get(self, category: str, key: str) -> Any:
        if (category, key) not in self._found:
            self._found[category, key] = super().get(category, key)  # type: ignore[no-untyped-call]
        return self._found[category, key]


def make_fewer_calls() -> None:
    """The class of trials is asked for once, and no trial for what it would report without a result.

    Private ground, so only for the version of Ray that this was written for; another one makes them all, and the log
    says so.
    """
    if not may_patch():
        return
    kept = registry._global_registry  # other modules hold the object itself
    if not isinstance(kept, RememberingRegistry):
        kept.__class__ = RememberingRegistry
        kept._found = {}  # type: ignore[attr-defined]
    Trial.set_ray_actor = _set_ray_actor  # type: ignore[method-assign]


def _set_ray_actor(self: Trial, actor: ActorHandle[Any] | None) -> None:
    """Tune's own asks the process for an empty result too, which keeps the first epoch waiting."""
    self.temporary_state.ray_actor = actor
