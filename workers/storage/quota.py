"""How much more a store may take (ATTUNE_STORAGE_GB): a note in it says what a janitor has last found there.

A trial process reads the note before it writes and adds what it has written itself since then, so it costs one small
read. What other processes write meanwhile it does not know: near the limit janitors look often.
"""

from __future__ import annotations

import json
import secrets

from workers.storage.errors import NotStored, StorageError
from workers.storage.layout import QUOTA
from workers.storage.store import Store

GIGABYTE = 10**9


def tell(store: Store, used: int, limit: int) -> None:
    """Lets trial processes know how full the store is, in bytes."""
    store.write(QUOTA, json.dumps({"round": secrets.token_hex(8), "used": used, "limit": limit}).encode())


def tell_no_limit(store: Store) -> None:
    store.remove(QUOTA)


class Quota:
    """What one process knows of its store's quota."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._round = ""
        self._grown = 0

    def check(self, growth: int) -> None:
        """Raises StorageError when the store has no room for `growth` bytes more; what does not grow may be written."""
        try:
            known = json.loads(self._store.read(QUOTA))
            used, limit, seen = int(known["used"]), int(known["limit"]), str(known["round"])
        except NotStored:
            return
        except (ValueError, TypeError, KeyError) as error:
            raise StorageError(f"{QUOTA} in the store {self._store.url} is damaged: {error}") from error
        if seen != self._round:
            self._round, self._grown = seen, 0
        if growth > 0 and used + self._grown + growth > limit:
            raise StorageError(
                f"The store {self._store.url} would be over its quota of {limit / GIGABYTE:g} GB (ATTUNE_STORAGE_GB)."
            )

    def grew(self, growth: int) -> None:
        """So many bytes more are in the store now, or fewer."""
        self._grown += growth
