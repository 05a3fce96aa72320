"""One process at a time, on a file that all of them see."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from workers.datasets.errors import DatasetError

POLL_SECONDS = 0.05


@contextlib.contextmanager
def locked(path: Path, seconds: float) -> Iterator[None]:
    """Waits for the lock on `path`; that of a dead process is free. DatasetError after `seconds`, OSError when the
    file cannot be made."""
    deadline = time.monotonic() + seconds
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DatasetError(f"Another process has held {path} for {seconds:g} s.") from None
                time.sleep(POLL_SECONDS)
        yield
