"""The failure of a trial whose process has to end without a report of it: for whoever finds it dead."""

from __future__ import annotations

import json

from workers.storage.errors import NotStored, StorageError
from workers.storage.layout import LAST_WORDS
from workers.storage.store import Store


def leave_last_words(store: Store, prefix: str, failure: dict[str, str]) -> None:
    """Keeps a failure (kind, message, traceback) beside the trial's files. Raises StorageError."""
    store.write(f"{prefix}/{LAST_WORDS}", json.dumps(failure).encode())


def take_last_words(store: Store, prefix: str) -> dict[str, str] | None:
    """The failure that was left there, once; None when there is none. Raises StorageError."""
    path = f"{prefix}/{LAST_WORDS}"
    try:
        data = store.read(path)
    except NotStored:
        return None
    store.remove(path)
    try:
        said: dict[str, str] = json.loads(data)
        return {name: str(said[name]) for name in ("kind", "message", "traceback")}
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path} is damaged: {error!r}") from error
