"""Trials that take no time, three of them at once, for tests of what is changed in Tune."""

from __future__ import annotations

from typing import Any

from ray.tune import Trainable
from ray.tune.search import Searcher

TRIALS = 6


class Short(Trainable):
    def setup(self, config: dict[str, Any]) -> None:
        self.number = config["number"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        return {"number": self.number, "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """There is nothing to keep."""


class ThreeAtOnce(Searcher):
    def __init__(self) -> None:
        super().__init__()
        self.given = 0
        self.live: set[str] = set()

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        return True

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        if self.given == TRIALS:
            return Searcher.FINISHED
        if len(self.live) == 3:
            return None
        self.given += 1
        self.live.add(trial_id)
        return {"number": self.given}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.live.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to keep."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was kept."""
