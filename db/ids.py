"""Identifiers: UUIDv7 (RFC 9562) as strings, so that rows sort by age and ids can be made before they are stored."""

import secrets
import threading
import time
import uuid

_RANDOM_BITS = 74


class _Generator:
    """Counts up within a process, whatever its clock does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        fresh = (time.time_ns() // 1_000_000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
        with self._lock:
            if fresh <= self._last:
                # a random step, not 1: two forks of one process must not count on from the same value together
                fresh = self._last + 1 + secrets.randbits(40)
            self._last = fresh
        return fresh


_generator = _Generator()


def uuid7() -> str:
    """A new UUIDv7 in its 36-character form, greater than every earlier one of this process."""
    return str(uuid.UUID(int=_with_version(_generator.next())))


def _with_version(payload: int) -> int:
    """The 122 free bits laid out as time (48), version 7 (4), random (12), variant 10 (2), random (62)."""
    low = payload & ((1 << 62) - 1)
    middle = (payload >> 62) & 0xFFF
    milliseconds = (payload >> _RANDOM_BITS) & ((1 << 48) - 1)
    return milliseconds << 80 | 0x7 << 76 | middle << 64 | 0b10 << 62 | low
