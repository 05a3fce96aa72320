"""Notices the signal that ends the process.

A server waits for open answers before it runs the lifespan's end, and an event stream stays open for hours: so the
streams have to be told at the signal itself (uvicorn with one open stream was alive 12 s after SIGTERM).
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def noticed(stop: asyncio.Event) -> Iterator[None]:
    """Sets `stop` at SIGINT and SIGTERM, then does what was to be done at them anyway.

    Outside the main thread, where Python has no signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    previous: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}

    def notice(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop.set)
        before = previous[number]
        if callable(before):
            before(number, frame)
        elif before == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number in SIGNALS:
        if previous[number] is not None:
            signal.signal(number, notice)
    try:
        yield
    finally:
        for number, before in previous.items():
            if before is not None and signal.getsignal(number) is notice:
                signal.signal(number, before)
