"""Values that no database may see: NaN, infinities, NULs, lone surrogates, numbers over 63 bits, over-long text.

PostgreSQL sorts NaN above every number and SQLite stores it as NULL, so a diverged trial would be the best or a
finished one would have no result; SQLite ignores the lengths of columns. So they are refused here, for both.
"""

import math
from collections.abc import Mapping
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Float, Integer, String, inspect

from db.clock import UtcDateTime
from db.models.base import Base

LARGEST_INTEGER = 2**63 - 1
DEEPEST_JSON = 64


def finite(column: str, value: float | None) -> float | None:
    """The number as a float. ValueError naming the column for NaN, an infinity or something that is no number."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _refused(column, f"{type(value).__name__} is not a number")
    if not math.isfinite(value):
        raise ValueError(f"{column}: {value} is not finite")
    return float(value)


def whole(column: str, value: int | None, *, largest: int = LARGEST_INTEGER) -> int | None:
    """The integer. ValueError naming the column for anything else and beyond `largest` in size."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise _refused(column, f"{type(value).__name__} is not an integer")
    if abs(value) > largest:
        raise ValueError(f"{column}: an integer of {value.bit_length()} bits does not fit")
    return value


def clean_text(column: str, value: str | None, *, longest: int | None = None) -> str | None:
    """The text. ValueError naming the column for NULs, lone surrogates and more than `longest` characters."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise _refused(column, f"{type(value).__name__} is not text")
    if "\x00" in value:
        raise ValueError(f"{column}: text holds a NUL character")
    if longest is not None and len(value) > longest:
        raise ValueError(f"{column}: {len(value)} characters, at most {longest}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{column}: text holds a lone surrogate") from None
    return value


def clean_json(column: str, value: Any, *, depth: int = DEEPEST_JSON) -> Any:
    """A copy that JSON can hold: tuples become lists. ValueError naming the path of what it cannot hold."""
    if depth < 0:
        raise ValueError(f"{column}: nested deeper than {DEEPEST_JSON}")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clean_text(column, value)
    if isinstance(value, int):
        return whole(column, value)
    if isinstance(value, float):
        return finite(column, value)
    if isinstance(value, Mapping):
        return {_key(column, key): clean_json(f"{column}.{key}", item, depth=depth - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean_json(f"{column}[{index}]", item, depth=depth - 1) for index, item in enumerate(value)]
    raise _refused(column, f"{type(value).__name__} is not JSON")


def _key(column: str, key: Any) -> str:
    if not isinstance(key, str):
        raise _refused(column, f"the key {key!r} is not text")
    clean_text(column, key)
    return key


def _refused(column: str, why: str) -> ValueError:
    return ValueError(f"{column}: {why}")


def row(model: type[Base], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, each checked by the type of its column; SQL expressions pass. ValueError names the column.

    Raises KeyError for a name that is not a column of the model.
    """
    columns = inspect(model).columns
    return {name: _checked(f"{model.__tablename__}.{name}", columns[name].type, item) for name, item in values.items()}


def _checked(column: str, kind: Any, value: Any) -> Any:
    if value is None or hasattr(value, "__clause_element__") or hasattr(value, "compile"):
        return value
    if isinstance(kind, JSON):
        return clean_json(column, value)
    if isinstance(kind, String):
        return clean_text(column, value, longest=kind.length)
    if isinstance(kind, Float):
        return finite(column, value)
    if isinstance(kind, Integer):
        return whole(column, value, largest=LARGEST_INTEGER if isinstance(kind, BigInteger) else 2**31 - 1)
    if isinstance(kind, (Boolean, UtcDateTime)):
        return value
    raise TypeError(f"{column}: no check for {kind!r}")
