"""Logs as JSON lines on standard error, one per event. Nothing that a client sent is written."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_SHARED: list[Any] = [
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure() -> None:
    """Sends structlog's and the standard library's events the same way; safe to repeat.

    uvicorn's access log would write query strings, which hold the token of /login, so it is shut.
    """
    structlog.configure(
        processors=[*_SHARED, structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _only_the_kind,
            structlog.processors.JSONRenderer(),
        ],
    )
    handler.setFormatter(formatter)
    for name in ("uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler] if name == "uvicorn" else []
        logger.propagate = name != "uvicorn"
    access = logging.getLogger("uvicorn.access")
    access.handlers = []
    access.propagate = False


def _only_the_kind(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """An exception's class without its message, which may quote a request or SQL parameters."""
    info = event.pop("exc_info", None)
    if isinstance(info, tuple) and info[0] is not None:
        event["error"] = info[0].__name__
    return event


def get(name: str) -> Any:
    """A logger; `action` names the event."""
    return structlog.get_logger().bind(logger=name)
