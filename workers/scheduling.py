"""Fires schedules: what is due becomes a search, in one transaction with the note that it has been dealt with.

Any number of dispatchers may do so at once: each schedule is taken with a lock, and a fire's time is unique. Times are
the database's.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from db import schedules, searches
from db.engine import now as database_now
from db.engine import reading, retrying
from db.errors import Conflict, DatabaseUnavailable
from db.faults import translated
from db.models import Schedule
from search.errors import SpecError
from search.schedule import Rhythm
from search.timetable import Timetable
from workers import announcements
from workers.fire_plans import FirePlans, Known

ON_TIME_SECONDS = 30.0
"""A fire that is so late is on time, whatever the schedule says of catching up."""
WAIT_SECONDS = 5.0
"""How often a fire that waits looks whether the search before has ended, or whether its data set is there."""
MOST_NOTED = 500
"""Missed fires that are noted one by one after a long stop."""
SHARE_SECONDS = 0.5
"""Of a dispatcher's tick, at most this goes into firing, so that claims go on while thousands are due."""
AT_ONCE = 20
"""Schedules of one transaction, which keeps other writers of SQLite waiting."""
REST_SECONDS = 10.0
"""After a mistake that is nobody's fire: long enough for the log to stay readable."""
LONGEST_REASON = 1000

log = structlog.get_logger()


class Scheduler:
    """Fires what is due, when asked to."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rests_until = 0.0

    def tick(self, seconds: float = SHARE_SECONDS) -> int:
        """How many schedules were dealt with; one indexed query when nothing is due. Raises DatabaseUnavailable.

        A mistake of its own is logged: searches that are there already are to go on.
        """
        if time.monotonic() < self._rests_until:
            return 0
        try:
            return self._deal(time.monotonic() + seconds)
        except DatabaseUnavailable:
            raise
        except Exception:
            log.exception("schedule.tick_failed", again_in=REST_SECONDS)
            self._rests_until = time.monotonic() + REST_SECONDS
            return 0

    def _deal(self, deadline: float) -> int:
        with reading(self._engine) as session:
            if not schedules.anything_due(session):
                return 0
            plans = FirePlans(Known.read(session))
        count = 0
        while time.monotonic() < deadline:
            try:
                dealt = retrying(self._engine, lambda session: deal_with_some(session, plans, deadline), attempts=3)
            except SQLAlchemyError:  # a statement of one of them: each by itself then, to find out whose
                log.exception("schedule.statement_failed")
                dealt = retrying(self._engine, lambda session: deal_one_by_one(session, plans, deadline), attempts=3)
            if not dealt:
                break
            count += dealt
        return count


@dataclass
class Dealt:
    """What becomes of a schedule that is due. moves: columns for `schedules.move_on`; None while it only waits or has
    been stopped."""

    found: Schedule
    fires: list[dict[str, Any]] = field(default_factory=list)
    search: dict[str, Any] | None = None
    cancelled: list[str] = field(default_factory=list)
    failed: list[tuple[datetime, str]] = field(default_factory=list)
    moves: dict[str, Any] | None = None
    stopped: bool = False

    def note(self, at: datetime, status: str, reason: str | None = None, search_id: str | None = None) -> None:
        self.fires.append(
            {"schedule_id": self.found.id, "fire_at": at, "status": status, "search_id": search_id, "reason": reason}
        )

    def fail(self, at: datetime, reason: str) -> None:
        """Notes a fire that starts no search, of which is told who asked for it."""
        self.note(at, "failed", reason[:LONGEST_REASON])
        self.failed.append((at, reason[:LONGEST_REASON]))

    def move(self, due: datetime | None, planned: datetime | None, last: datetime | None) -> None:
        self.moves = {"id": self.found.id, "next_fire_at": due, "planned_at": planned, "last_fire_at": last}

    def go_on(self, rhythm: Rhythm, after: datetime, last: datetime) -> None:
        """Moves on to the first time after `after`."""
        following = rhythm.next(after)
        self.move(None if following is None else rhythm.due(following), following, last)


@dataclass(frozen=True)
class Around:
    """What is known of the schedules that are dealt with together, read at once."""

    now: datetime
    plans: FirePlans
    dealt_with: set[tuple[str, datetime]]
    unfinished: Mapping[str, list[str]]
    with_results: set[str]

    @classmethod
    def read(cls, session: Session, taken: list[Schedule], plans: FirePlans) -> Around:
        now = database_now(session)
        ids = [found.id for found in taken]
        since = min(found.planned_at or now for found in taken)
        unfinished = schedules.unfinished_searches(session, [found.id for found in taken if found.overlap != "allow"])
        return cls(
            now, plans, schedules.dealt_with(session, ids, since), unfinished, schedules.with_results(session, ids)
        )


def deal_with_some(session: Session, plans: FirePlans, deadline: float) -> int:
    """Deals with the schedules that have been due longest and that nobody else deals with; how many there were.

    After `deadline` (time.monotonic) no further one is looked at. Raises SQLAlchemyError where one has a statement
    that fails.
    """
    taken = schedules.take_due(session, limit=AT_ONCE)
    if not taken:
        return 0
    around = Around.read(session, taken, plans)
    dealt: list[Dealt] = []
    for found in taken:
        if dealt and time.monotonic() > deadline:
            break
        dealt.append(_dealt_or_passed_over(session, found, around))
    _write(session, dealt)
    return len(dealt)


def deal_one_by_one(session: Session, plans: FirePlans, deadline: float) -> int:
    """As `deal_with_some`, where a statement that fails holds up no other schedule."""
    taken = schedules.take_due(session, limit=AT_ONCE)
    if not taken:
        return 0
    around = Around.read(session, taken, plans)
    for count, found in enumerate(taken):
        if count and time.monotonic() > deadline:
            return count
        try:
            with translated(), session.begin_nested():
                _write(session, [_dealt_or_passed_over(session, found, around)])
        except SQLAlchemyError:
            log.exception("schedule.broken", schedule=found.id)
            with session.begin_nested():
                _write(session, [_passed_over(found, around.now)])
    return len(taken)


def _write(session: Session, dealt: list[Dealt]) -> None:
    for each in dealt:
        for search_id in each.cancelled:
            with suppress(Conflict):  # it has ended in this moment
                searches.set_command(session, search_id, "cancel")
    searches.create_all(session, [each.search for each in dealt if each.search is not None])
    schedules.record_fires(session, [fire for each in dealt for fire in each.fires])
    schedules.move_on(session, [each.moves for each in dealt if each.moves is not None])
    for each in dealt:
        if each.stopped:
            schedules.edit(session, each.found.id, enabled=False, next_fire_at=None, planned_at=None)
        for fire_at, reason in each.failed:
            announcements.tell(
                session, each.found, announcements.of_failed_fire(each.found, fire_at, reason)
            )  # fmt: skip
        if each.search is not None:
            fire_at = each.search["fire_at"].isoformat()
            log.info("schedule.fired", schedule=each.found.id, fire_at=fire_at, search=each.search["id"])


def _dealt_or_passed_over(session: Session, found: Schedule, around: Around) -> Dealt:
    try:
        return _deal_with(session, found, around)
    except (SQLAlchemyError, DatabaseUnavailable):
        raise
    except Exception:  # a mistake with one schedule must neither end the dispatcher nor hold the others up
        log.exception("schedule.broken", schedule=found.id)
        return _passed_over(found, around.now)


def _passed_over(found: Schedule, now: datetime) -> Dealt:
    """A fire that nobody could deal with; the next one is gone on with, tomorrow where nobody can say when it is."""
    planned = found.planned_at or now
    dealt = Dealt(found)
    dealt.fail(planned, "It could not be dealt with; see the dispatcher's log.")
    try:
        dealt.go_on(rhythm_of(found), max(now, planned), planned)
    except Exception:
        log.exception("schedule.broken", schedule=found.id)
        dealt.move(now + timedelta(days=1), now + timedelta(days=1), planned)
    return dealt


def rhythm_of(found: Schedule) -> Rhythm:
    """When a stored schedule is due. SpecError for an expression or a zone that this machine does not know."""
    timetable = Timetable.parse(found.cron, found.zone)
    return Rhythm(timetable, found.id, found.jitter_seconds, found.start_at, found.end_at)


def _deal_with(session: Session, found: Schedule, around: Around) -> Dealt:
    dealt, now = Dealt(found), around.now
    try:
        rhythm = rhythm_of(found)
    except SpecError as error:  # another version of the time zones: nobody can say when it is due
        dealt.fail(found.planned_at or now, str(error))
        dealt.stopped = True
        log.error("schedule.stopped", schedule=found.id, cron=found.cron, zone=found.zone)
        return dealt
    assert found.next_fire_at is not None  # that is what was looked for
    planned = found.planned_at or found.next_fire_at
    waited = found.next_fire_at > rhythm.due(planned)
    times = _times(rhythm, planned, now, found.catch_up_seconds)
    latest = times[-1]
    for at in times[:-1]:
        if waited:
            dealt.note(at, "skipped", "A later one came while it waited.")
        else:
            dealt.note(at, "missed", "No dispatcher was at work; a later one was due too.")
    late = (now - (found.next_fire_at if latest == planned else rhythm.due(latest))).total_seconds()
    if (found.id, latest) in around.dealt_with:
        log.info("schedule.fired_before", schedule=found.id, fire_at=latest.isoformat())
    elif late > max(found.catch_up_seconds, ON_TIME_SECONDS):
        reason = f"No dispatcher was at work until {late:.0f} s later; {found.catch_up_seconds} s are caught up."
        dealt.note(latest, "missed", reason)
    elif _must_wait(session, dealt, latest, around, rhythm):
        dealt.move(now + timedelta(seconds=WAIT_SECONDS), latest, found.last_fire_at)
        return dealt
    dealt.go_on(rhythm, latest, latest)
    return dealt


def _must_wait(session: Session, dealt: Dealt, fire_at: datetime, around: Around, rhythm: Rhythm) -> bool:
    """Whether a fire is to wait; where not, it is dealt with."""
    found = dealt.found
    if found.overlap == "queue" and around.unfinished[found.id]:
        return True
    patient = around.now < _patience_ends(found, rhythm, fire_at)
    return not _fire(session, dealt, fire_at, around, patient=patient)


def _patience_ends(found: Schedule, rhythm: Rhythm, fire_at: datetime) -> datetime:
    """Until when a fire waits for its data set: as late as it may be caught up, and before the next one is due, so that
    one whose data never come counts as failed."""
    until = rhythm.due(fire_at) + timedelta(seconds=max(found.catch_up_seconds, ON_TIME_SECONDS))
    following = rhythm.next(fire_at)
    return until if following is None else min(until, rhythm.due(following) - timedelta(seconds=WAIT_SECONDS))


def _times(rhythm: Rhythm, planned: datetime, now: datetime, catch_up_seconds: int) -> list[datetime]:
    """The times to deal with, in order: the planned one, and those that have come since.

    After a very long stop some in the middle are left out: they are not worth a row each, nor the time to count them.
    """
    found = [planned, *islice(rhythm.come(planned, now), MOST_NOTED)]
    if len(found) > MOST_NOTED:
        recent = max(found[-1], now - timedelta(seconds=catch_up_seconds + rhythm.jitter_seconds))
        found += deque(rhythm.come(recent, now), maxlen=1)
    return found


def _fire(session: Session, dealt: Dealt, fire_at: datetime, around: Around, *, patient: bool) -> bool:
    """The search of a fire, or why there is none. A template is never the end of its schedule.

    False, and nothing is noted, where it is to wait: `patient`, and all that it lacks is its data set.
    """
    found = dealt.found
    unfinished = around.unfinished.get(found.id, [])
    if found.overlap == "skip" and unfinished:
        dealt.note(fire_at, "skipped", "The search before has not ended.")
        log.info("schedule.skipped", schedule=found.id, fire_at=fire_at.isoformat())
        return True
    if patient and around.plans.known.unread(found.template):
        return False
    try:
        dealt.search = around.plans.search_of(session, found, fire_at, follows=found.id in around.with_results)
    except SpecError as error:  # its texts quote what users have written: not for the log
        if patient and all(problem.field == "dataset.name" for problem in error.problems):
            return False  # a disk may be away for a moment, or what has grown not be read yet
        dealt.fail(fire_at, str(error))
        log.warning("schedule.failed", schedule=found.id, fire_at=fire_at.isoformat(), problems=len(error.problems))
        return True
    except (ArithmeticError, LookupError, TypeError, ValueError, AssertionError) as error:
        log.exception("schedule.template_unreadable", schedule=found.id)
        dealt.fail(fire_at, f"The template could not be read ({type(error).__name__}); see the dispatcher's log.")
        return True
    dealt.cancelled = unfinished
    dealt.note(fire_at, "fired", search_id=dealt.search["id"])
    return True
