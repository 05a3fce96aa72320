"""Ends a process whose epoch takes too long, and leaves behind where each of its threads was.

A thread of Python does it, as long as it gets to run. Where an extension holds the interpreter's lock while it hangs,
faulthandler's timer, which needs no lock, does the same a little later.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

GRACE_SECONDS = 10.0
"""After the time is up: how long writing the traces may take (the store may be what hangs)."""
EXIT_HUNG = 124
"""The exit status that `timeout` has made known."""


class Watchdog:
    """Watches one piece of work at a time. keep: is given the traces before the process ends; it may be changed."""

    def __init__(self) -> None:
        self.keep: Callable[[str], None] = to_standard_error
        self._changed = threading.Condition()
        self._deadline: float | None = None
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, seconds: float) -> Iterator[None]:
        """Ends the process unless the block is left within `seconds`."""
        self._arm(time.monotonic() + seconds)
        try:
            self.fall_back_to(sys.__stderr__)
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            self._arm(None)

    def fall_back_to(self, file: IO[Any] | None) -> None:
        """Where the traces go if only faulthandler can write them: an open file. To be called while watching."""
        if file is not None and self._deadline is not None:
            left = max(0.0, self._deadline - time.monotonic())
            faulthandler.dump_traceback_later(left + GRACE_SECONDS, exit=True, file=file.fileno())

    def _arm(self, deadline: float | None) -> None:
        with self._changed:
            self._deadline = deadline
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _watch(self) -> None:
        while True:
            with self._changed:
                left = None if self._deadline is None else self._deadline - time.monotonic()
                if left is None or left > 0:
                    self._changed.wait(left)
                    continue
            try:
                self.keep(stack_traces())
            finally:
                os._exit(EXIT_HUNG)


def to_standard_error(traces: str) -> None:
    if sys.__stderr__ is not None:
        sys.__stderr__.write(traces)
        sys.__stderr__.flush()


def stack_traces() -> str:
    """Where every thread of this process is, most recent call first."""
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file=file, all_threads=True)
        file.seek(0)
        return file.read().decode("utf-8", "replace")
