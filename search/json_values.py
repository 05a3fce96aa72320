"""What a request may be made of, whatever it says: JSON that a database column holds, and not too much of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from search.errors import Problem, shown

BIGGEST = 2**63 - 1
DEEPEST = 32
"""Levels of lists and objects in a request."""
MOST_VALUES = 20_000
"""Values in a request, names of fields included."""
MOST_PROBLEMS = 100
"""Problems told at once."""


def unfit(data: Mapping[Any, Any]) -> Iterator[Problem]:
    """Everything in `data` that is not JSON, that no database column holds, or that is too much.

    Walks with a stack of its own: a request may be nested deeper than Python's, or contain itself (YAML's anchors).
    """
    waiting: list[tuple[Any, str, int]] = [(data, "", 1)]
    values = found = 0
    while waiting:
        value, path, depth = waiting.pop()
        values += 1
        if values > MOST_VALUES:
            yield Problem("", f"A request holds at most {MOST_VALUES:,} values.")
            return
        message = _unfit_value(value, depth)
        if message:
            yield Problem(path, message)
            found += 1
            if found == MOST_PROBLEMS:
                return
        elif isinstance(value, Mapping):
            values += len(value)
            items = [(item, f"{path}.{_key(key)}".strip("."), depth + 1) for key, item in value.items()]
            waiting += items[::-1]
            if len(set(map(_key, value))) < len(value):
                yield Problem(path, "A field is listed twice, as a number and as a text.")
            if any(_unfit_key(key) for key in value):
                yield Problem(path, "The names of fields must be texts without NUL characters and lone surrogates.")
        elif isinstance(value, list):
            items = [(item, f"{path}.{index}".strip("."), depth + 1) for index, item in enumerate(value)]
            waiting += items[::-1]


def text_keys(value: Any) -> Any:
    """A copy of a fit value in which YAML's `3:` is the JSON key "3"."""
    if isinstance(value, Mapping):
        return {str(key): text_keys(item) for key, item in value.items()}
    return [text_keys(item) for item in value] if isinstance(value, list) else value


def _unfit_value(value: Any, depth: int) -> str:
    """What is wrong with a value by itself, or nothing."""
    match value:
        case str() if _unstorable(value):
            return "NUL characters and lone surrogates are not allowed."
        case None | bool() | str():
            return ""
        case int():
            return "" if -BIGGEST - 1 <= value <= BIGGEST else "Whole numbers over 63 bits are not allowed."
        case float():
            return "" if math.isfinite(value) else "Must be a finite number."
        case Mapping() | list():
            return "" if depth <= DEEPEST else f"Lists and objects may be nested {DEEPEST} levels deep."
    return "Must be a text, a number, true, false, null, a list or an object."


def _unfit_key(key: Any) -> bool:
    # YAML's `3:` is an integer
    if isinstance(key, int) and not isinstance(key, bool):
        return not -BIGGEST - 1 <= key <= BIGGEST
    return not isinstance(key, str) or _unstorable(key)


def _key(key: Any) -> str:
    """A name of a field as a part of a path, always printable."""
    if _unfit_key(key):
        return shown(key) if isinstance(key, str) else "?"
    return str(key)


def _unstorable(text: str) -> bool:
    return any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text)
