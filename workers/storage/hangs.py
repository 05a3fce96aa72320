"""What a trial that hung has left behind: where each of its threads was."""

from __future__ import annotations

from workers.storage.errors import NotStored
from workers.storage.layout import HANG
from workers.storage.store import Store

LONGEST = 8000
"""Characters of it that are kept."""


def take_hang(store: Store, prefix: str) -> str | None:
    """The stack traces that the trial's watchdog has written, once; None when there are none. Raises StorageError."""
    path = f"{prefix}/{HANG}"
    try:
        text = store.read(path).decode("utf-8", "replace")
    except NotStored:
        return None
    store.remove(path)
    return text.strip()[:LONGEST] or None
