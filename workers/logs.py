"""Structured logs: one JSON object per line on standard error, and files that do not grow without end."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import structlog

LARGEST_LOG = 20_000_000
"""Bytes of one log; what is older is in NAME.1.log, up to as many bytes."""
MOST_LOGS = 500_000_000
"""Bytes of all logs of a folder; the oldest go first."""


def configure_logs() -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )


def keep_logs_small(folder: Path, *, largest: int = LARGEST_LOG, most: int = MOST_LOGS) -> None:
    """Cuts logs over `largest` bytes down and removes the oldest ones when all have more than `most`.

    A log is emptied in place, as its writer keeps it open (all append, so that they go on at its start); what is
    written between copying and emptying is lost.
    """
    for path in _logs(folder):
        if _size(path) > largest and not path.name.endswith(".1.log"):
            with suppress(FileNotFoundError):
                shutil.copyfile(path, path.with_suffix(".1.log"))
                os.truncate(path, 0)
    logs = sorted(_logs(folder), key=_changed)
    total = sum(map(_size, logs))
    for path in logs:
        if total <= most:
            return
        total -= _size(path)
        path.unlink(missing_ok=True)


def _logs(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.log") if path.is_file()]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
