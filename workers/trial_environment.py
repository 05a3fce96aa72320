"""What of the environment trial processes may see: they run code of plug-ins, and need no way to the database.

Of attune's own variables only those pass that are listed here, so that a new secret is hidden from the day it is made.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping

PASSED = frozenset(
    f"ATTUNE_{name}"
    for name in ("DATA", "DATA_CACHE", "DATA_MEMORY", "DATA_TIMEOUT", "DATA_WORKERS", "HOME", "PLUGINS", "REVISION",
                 "WEIGHTS")
)  # fmt: skip
"""Of the variables that begin with ATTUNE_."""
_DATABASES = ("PGPASS", "PGSERVICE", "PGUSER", "PGHOST", "PGDATABASE", "PGSSL", "POSTGRES_", "DATABASE_URL")
"""Beginnings of what database clients and their images read passwords from."""


def hidden_variables(names: Iterable[str]) -> list[str]:
    """Those of the names that a trial process must not have."""
    return [name for name in names if _is_hidden(name)]


def strip_environment(environment: MutableMapping[str, str]) -> None:
    """Takes out what a trial process must not have, for one whose node was started with too much."""
    for name in hidden_variables(list(environment)):
        del environment[name]


def _is_hidden(name: str) -> bool:
    if name.startswith("ATTUNE_"):
        return name not in PASSED
    return name.startswith(_DATABASES)
