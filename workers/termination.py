"""SIGTERM, noted from a driver's first moment on: it hands its search back instead of dying with it."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LOOK_SECONDS = 0.2
EXIT_TERMINATED = 128 + signal.SIGTERM
"""SIGTERM came to a driver before a search did."""


@contextmanager
def held_for_children() -> Iterator[None]:
    """Processes started inside get no SIGTERM before they listen: before they can, it would end them at once."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Termination:
    """Whether SIGTERM has come. No more is done at once: what a signal handler interrupts may hold the lock that
    logging, Ray or an event needs."""

    def __init__(self) -> None:
        self.asked = False

    def listen(self) -> None:
        """Lets signals through that were held back. To be called again after `ray.init`, which takes SIGTERM over."""
        signal.signal(signal.SIGTERM, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def hold(self) -> None:
        """Keeps SIGTERM waiting until `listen` is called."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def has_line(self) -> bool:
        """Whether `line` would not wait."""
        return bool(select.select([sys.stdin], [], [], 0)[0])

    def line(self) -> str | None:
        """The next line of standard input, or None when it is closed or SIGTERM came before the line did."""
        while not select.select([sys.stdin], [], [], LOOK_SECONDS)[0]:
            if self.asked:
                return None
        # not through a buffer: it would take in the line after this one too, and `select` would never tell of it
        return os.fdopen(sys.stdin.fileno(), "rb", buffering=0, closefd=False).readline().decode() or None

    def _note(self, *signal_and_frame: object) -> None:
        self.asked = True
