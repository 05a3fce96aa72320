"""A search whose data were imported just before it started: it waits until the data are published as they are now."""

from __future__ import annotations

import time
from collections.abc import Callable

from pydantic import ValidationError

from search.datasets import DatasetEntry
from search.errors import SpecError
from search.plan import SearchPlan
from workers.run import SearchRun
from workers.stopping import Stop

PATIENCE_SECONDS = 600.0
"""A dispatcher looks at its data sets every minute, and what has grown by much takes longer to read."""
LOOK_SECONDS = 1.0


def published_anew(
    run: SearchRun, stopped: Callable[[], bool] = lambda: False, *, patience: float = PATIENCE_SECONDS
) -> bool:
    """Waits until the run's data set is published with another fingerprint than that of its plan; False when that takes
    longer than `patience` seconds. It ends at once where the search is cancelled or `stopped` says so.

    Its lease must be renewed meanwhile. Raises DatabaseUnavailable.
    """
    until = time.monotonic() + patience
    while run.stop is Stop.HAND_BACK and not stopped():
        if _changed(run.plan, [dict(row.document) for row in run.ledger.datasets()]):
            return True
        if time.monotonic() > until:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def _changed(plan: SearchPlan, documents: list[dict[str, object]]) -> bool:
    for document in documents:
        try:
            entry = DatasetEntry.model_validate(document)
            if entry.name == plan.dataset.name:
                return entry.resolve(plan.spec.dataset.options).fingerprint != plan.dataset.fingerprint
        except (ValidationError, SpecError):  # of a newer version, or without an option that was asked for
            continue
    return False
