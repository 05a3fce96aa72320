"""Keeps Tune from writing down, and reading again, what the database has already.

Every hour, and at the end of an experiment before it gives its slots back, Tune writes the state of all trials that
there have been (5 ms of CPU each); afterwards it looks for their result files, which attune does not let it write, and
warns about each. Its files are thrown away with their folder.
"""

from __future__ import annotations

from typing import Any

from ray.tune import ExperimentAnalysis
from ray.tune.execution.tune_controller import TuneController

from workers.deaths import may_patch


def keep_no_snapshots() -> None:
    """Turns both off. Private ground, so only for the version of Ray that it was written for; another one writes its
    files, and the log says so."""
    if not may_patch():
        return
    TuneController._get_trial_checkpoints = _no_trials  # type: ignore[method-assign]
    ExperimentAnalysis._fetch_trial_dataframes = _no_dataframes  # type: ignore[method-assign]


def _no_trials(self: TuneController) -> dict[str, Any]:
    """In place of the state of all trials."""
    return {}


def _no_dataframes(self: ExperimentAnalysis) -> dict[str, Any]:
    """In place of what trials have written into files."""
    return {}
