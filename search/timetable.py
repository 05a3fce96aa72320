"""When a schedule fires: a cron expression in a time zone (pure; every moment is UTC).

Expressions mean what Debian's cron makes of them, by cronsim: five fields; with a star at the start of day-of-month or
day-of-week both must match, otherwise either. When clocks go forward, a job at a given hour that would be skipped runs
right after the gap; when they go back, it runs in the first of the two. Jobs that begin minute or hour with a star
follow the clock on the wall, whatever it does.
"""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from search.errors import SpecError, shown

LONGEST_EXPRESSION = 200
LONGEST_CHANGE = timedelta(hours=26)
"""More than any clock was ever changed by at once."""
FIELDS = ("minute", "hour", "day-of-month", "month", "day-of-week")
NO_PLACES = frozenset({"localtime", "posixrules", "Factory"})
"""What tz databases list beside zones, and what means something else on every machine."""


@dataclass(frozen=True)
class Timetable:
    """cron: five fields with single spaces between them. zone: an IANA name. Made by `parse`."""

    cron: str
    zone: str

    @classmethod
    def parse(cls, cron: str, zone: str, field: str = "") -> Timetable:
        """SpecError that names `field`cron or `field`zone, with what is wrong and what would be valid."""
        known = _zone(zone, f"{field}zone")
        return cls(_expression(cron, f"{field}cron", known), zone)

    def after(self, moment: datetime, until: datetime | None = None) -> Iterator[datetime]:
        """The fires later than `moment` (and not later than `until`), in order, each once. Both with their zones."""
        last = moment.astimezone(UTC)
        for at in self._moments(last):
            if until is not None and at > until:
                return
            if at > last:  # not before, and a gap of the clock can push several fires to one moment
                last = at
                yield at

    def _moments(self, start: datetime) -> Iterator[datetime]:
        """Fires in order from somewhat before `start`, the same moment perhaps more than once."""
        zone = ZoneInfo(self.zone)
        follows_wall = self.cron.startswith("*") or self.cron.split()[1].startswith("*")
        # cronsim is only asked which times on the wall match: with a zone, its steps of an hour lose their way where
        # clocks change by half an hour
        offsets = {(start - LONGEST_CHANGE * part).astimezone(zone).utcoffset() for part in (-1, -0.5, 0, 0.5, 1)}
        # far from a change of the clock there is nothing to look back for, and a day of minutes takes 60 ms
        back = LONGEST_CHANGE if len(offsets) > 1 else timedelta(minutes=1)
        earlier = (start.astimezone(zone) - back).replace(tzinfo=None)
        second_times: list[datetime] = []  # of hours that come twice; they come after all of the first
        for wall in CronSim(self.cron, earlier):
            first, second = _moments_of(wall, zone)
            if second is None and follows_wall:
                continue  # the clock jumps over it
            while second_times and second_times[0] <= first:
                yield heapq.heappop(second_times)
            yield first
            if follows_wall and second is not None and second != first:
                heapq.heappush(second_times, second)

    def next(self, moment: datetime) -> datetime | None:
        """The first fire later than `moment`; None when there is none within 50 years."""
        return next(self.after(moment), None)

    @property
    def meaning(self) -> str:
        """The expression in English words."""
        return CronSim(self.cron, datetime.now(UTC)).explain()


def _moments_of(wall: datetime, zone: ZoneInfo) -> tuple[datetime, datetime | None]:
    """When the clock of `zone` shows `wall`, in UTC, for the first and for the last time; for a time that it jumps
    over, when it has jumped, and None."""
    first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first.astimezone(zone).replace(tzinfo=None) == wall:
        return first, second
    while first.astimezone(zone).replace(tzinfo=None) != wall:
        wall += timedelta(minutes=1)
        first = wall.replace(tzinfo=zone).astimezone(UTC)
    return first, None


@cache
def zones() -> tuple[str, ...]:
    """Every name that `Timetable.parse` takes."""
    return tuple(sorted(available_timezones() - NO_PLACES))


def _zone(zone: str, field: str) -> ZoneInfo:
    if zone not in zones():
        close = difflib.get_close_matches(zone[:100], zones(), n=3) or ["UTC", "Europe/Berlin", "America/New_York"]
        raise SpecError.one(field, f"{shown(zone)} is not the name of a time zone.", close)
    return ZoneInfo(zone)


def _expression(cron: str, field: str, zone: ZoneInfo) -> str:
    if len(cron) > LONGEST_EXPRESSION:
        raise SpecError.one(field, f"A cron expression has at most {LONGEST_EXPRESSION} characters.")
    if not cron.isascii() or not cron.isprintable():
        raise SpecError.one(field, "A cron expression is one line of ASCII characters.")
    parts = cron.split()
    if len(parts) != len(FIELDS):
        raise SpecError.one(
            field, f"A cron expression has five fields ({', '.join(FIELDS)}), not {len(parts)}.", ["0 2 * * SUN"]
        )
    for name, part, most in zip(FIELDS, parts, (59, 23, 31, 12, 7), strict=True):
        steps = [step for _, slash, step in (term.partition("/") for term in part.split(",")) if slash]
        if any(step.isdigit() and int(step) > most for step in steps):  # cronsim takes it for "once"
            raise SpecError.one(field, f"{shown(part)} is no valid {name}: a step is at most {most}.", [_VALID[name]])
    try:
        CronSim(" ".join(parts), datetime.now(zone)).__next__()
    except CronSimError as error:
        wrong = str(error).removeprefix("Bad ")
        where = parts[FIELDS.index(wrong)] if wrong in FIELDS else cron
        raise SpecError.one(field, f"{shown(where)} is no valid {wrong}.", [_VALID.get(wrong, "0 2 * * SUN")]) from None
    except StopIteration:
        raise SpecError.one(field, f"{shown(cron)} never comes.") from None
    return " ".join(parts)


_VALID = {
    "minute": "0 to 59, *, */15, 0,30, 10-20",
    "hour": "0 to 23, *, */2, 8-18",
    "day-of-month": "1 to 31 (a day that the months have), *, L, LW",
    "month": "1 to 12, JAN to DEC, *",
    "day-of-week": "0 to 7, SUN to SAT, *, MON-FRI, SUN#1, 5L",
}
