"""A trial whose epochs are watched: where one hangs, the stack traces go into the store beside its checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from workers.storage.errors import StorageError
from workers.storage.layout import HANG
from workers.storage.store import Store
from workers.training.evaluators import Session
from workers.training.request import TrialRequest
from workers.trial_run import TrialRun, store_of
from workers.watchdog import Watchdog


class WatchedTrial:
    """A TrialRun under a watchdog; `close` ends it. Both calls are to be made while the watchdog is watching."""

    def __init__(
        self,
        order: dict[str, Any],
        where: str,
        watchdog: Watchdog,
        start: Callable[[TrialRequest], Session] | None = None,
    ) -> None:
        self._store = store_of(order, where)
        self._path = f"{order['store']['prefix']}/{HANG}"
        self._watchdog = watchdog
        self._run: TrialRun | None = None
        self._file = _opened(self._store, self._path)
        try:
            self._watch()
            self._run = TrialRun(order, where, start)
        except BaseException:
            self.close()
            raise

    def step(self) -> dict[str, Any]:
        """See `TrialRun.step`."""
        assert self._run is not None
        self._watch()
        return self._run.step()

    def close(self) -> None:
        """Ends the run, and removes what had been opened for the traces: the trial has not hung."""
        if self._run is not None:
            self._run.close()
        if self._file is not None:
            self._file.close()
            with suppress(StorageError):
                self._store.remove(self._path)

    def _watch(self) -> None:
        self._watchdog.keep = self._keep
        self._watchdog.fall_back_to(self._file)

    def _keep(self, traces: str) -> None:
        with suppress(StorageError):  # the process is about to end: nobody is left to be told
            self._store.write(self._path, traces.encode())


def _opened(store: Store, path: str) -> IO[bytes] | None:
    """A file that faulthandler can write to by itself; None when the store is not a folder, or refuses."""
    file = store.local_path(path)
    if file is None:
        return None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.open("wb")
    except OSError:  # a full disk, say, which is no reason not to train
        return None
