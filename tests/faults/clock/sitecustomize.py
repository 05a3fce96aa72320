"""Shifts the wall clock of the Python process that finds this on its path, as an operator or NTP would.

`FAULTS_CLOCK` names a file with the seconds to add, read again when it changes, so that a clock can jump in the middle
of a run. `time.monotonic` stays, as it does on a real machine; so does the clock of the database.
"""

import copyreg
import datetime
import os
import time

_file = os.environ.get("FAULTS_CLOCK", "")
_time, _time_ns, _datetime = time.time, time.time_ns, datetime.datetime
_seen: tuple[int, float] = (-1, 0.0)


def _reduced(moment: datetime.datetime) -> tuple[type, tuple[object, ...]]:
    """Pickles a plain datetime by the name that the module has for it."""
    return _Shifted, moment.__reduce_ex__(4)[1]


def _shift() -> float:
    global _seen
    try:
        changed = os.stat(_file).st_mtime_ns
        if changed != _seen[0]:
            with open(_file) as file:
                _seen = (changed, float(file.read() or 0))
    except OSError:
        return 0.0
    return _seen[1]


class _Meta(type(_datetime)):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _datetime)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, _datetime)


class _Shifted(_datetime, metaclass=_Meta):
    """Makes plain datetimes: only the clock differs."""

    __slots__ = ()  # extensions compare the size of what they know

    def __new__(cls, *args: object, **kwargs: object) -> datetime.datetime:
        if cls is _Shifted:
            return _datetime(*args, **kwargs)
        return super().__new__(cls, *args, **kwargs)

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
        return _datetime.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls) -> datetime.datetime:
        return _datetime.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)


if _file:
    import pandas  # noqa: F401 - its extensions build on the plain class, which they must find when they are loaded

    time.time = lambda: _time() + _shift()
    time.time_ns = lambda: _time_ns() + int(_shift() * 1e9)
    _Shifted.__name__ = _Shifted.__qualname__ = "datetime"
    _Shifted.__module__ = "datetime"
    datetime.datetime = _Shifted
    copyreg.pickle(_datetime, _reduced)
