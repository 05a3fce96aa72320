"""What has come of a search's trials, and whether the search can still come to anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workers.orders import Failure

FAILS_EARLY = 5
"""A search fails when its first five trials, and over half of all, have failed."""
MISSING_IN_A_ROW = 3
"""A search that has results fails when so many trials in a row find no data set or no weights."""


class Outcomes:
    """Trials that have ended, in the order in which they did. explored_well: explored ones that have a result."""

    def __init__(self) -> None:
        self.explored_well = 0
        self._well: list[bool] = []
        self._missing = 0  # trials in a row that did not find their data set or weights
        self._last_failure: Failure | None = None

    @property
    def any_well(self) -> bool:
        """Whether a trial has come to its end."""
        return any(self._well)

    def well(self) -> None:
        """A trial has come to its end, or was stopped early."""
        self._well.append(True)
        self._missing = 0

    def failed(self, failure: Failure) -> bool:
        """A trial has failed for good. Whether the search fails with it: its data are gone, or nothing works from the
        start."""
        self._well.append(False)
        self._last_failure = failure
        if failure.kind in ("dataset", "weights"):
            self._missing += 1
            # where trials have succeeded it may be one machine that lacks them, and others have them
            return not any(self._well) or self._missing >= MISSING_IN_A_ROW
        self._missing = 0
        early = len(self._well) >= FAILS_EARLY and not any(self._well[:FAILS_EARLY])
        return early and sum(self._well) * 2 < len(self._well)

    def restore_failed(self, error: Mapping[str, Any] | None) -> None:
        """A trial that has failed under an earlier driver, with the error of its row."""
        self._well.append(False)
        if error:
            self._last_failure = Failure(error["kind"], error["message"])

    def why_failed(self, failure: Failure | None) -> dict[str, str]:
        """The error of a failed search. failure: the one that has ended it, if one has."""
        failure = failure or self._last_failure or Failure("error", "No architecture of the space could be tried.")
        if not any(self._well):
            why = "No trial of the search succeeded"
        elif self._missing >= MISSING_IN_A_ROW:
            why = f"{MISSING_IN_A_ROW} trials in a row failed"
        else:
            why = "Most of its trials failed" if self.explored_well else "No explored trial came to its end"
        return {"kind": failure.kind, "message": f"{why}: {failure.message}"}
