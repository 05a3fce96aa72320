"""Connections that end at a deadline, whatever the other side does: takes no connection, or lets bytes trickle."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

STEP_SECONDS = 10.0
"""For a connection to come about, and until the next bytes."""


@contextmanager
def connected(addresses: Sequence[str], port: int, deadline: float) -> Iterator[socket.socket]:
    """A connection to the first of the addresses that takes one, hung up at `deadline` (time.monotonic). OSError."""
    with _first(addresses, port, deadline) as line, line.dup() as handle:  # TLS takes the first handle away

        def hang_up() -> None:
            with suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(max(0.0, deadline - time.monotonic()), hang_up)
        timer.daemon = True
        timer.start()
        try:
            yield line
        finally:
            timer.cancel()
            timer.join()


def _first(addresses: Sequence[str], port: int, deadline: float) -> socket.socket:
    failure = OSError("no address")
    for address in addresses:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        try:
            line = socket.create_connection((address, port), timeout=min(STEP_SECONDS, left))
        except OSError as error:
            failure = error
        else:
            line.settimeout(STEP_SECONDS)
            return line
    raise failure
