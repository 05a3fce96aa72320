"""Fires schedules: what is due becomes a search, in one transaction with the note that it has been dealt with.

Any number of dispatchers may do so at once: each schedule is taken with a lock, and a fire's time is unique. Times are
the database's.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

import structlog
from pydantic import ValidationError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from db import catalog, schedules, searches
from db.engine import now as database_now
from db.engine import reading, retrying
from db.measured import Earlier
from db.models import Schedule
from search import previous, schedule, weights
from search.datasets import DatasetEntry, UnavailableDataset, unavailable_datasets
from search.errors import SpecError
from search.plan import SearchPlan, make_plan
from search.schedule import Rhythm
from search.spec import SPEC_VERSION, SearchSpec
from search.timetable import Timetable

ON_TIME_SECONDS = 30.0
"""A fire that is so late is on time, whatever the schedule says of catching up."""
WAIT_SECONDS = 5.0
"""How often a queued fire looks whether the search before has ended."""
MOST_NOTED = 500
"""Missed fires that are noted one by one after a long stop."""
SHARE_SECONDS = 0.5
"""Of a dispatcher's tick, at most this goes into firing, so that claims go on while thousands are due."""
AT_ONCE = 20
"""Schedules of one transaction, which keeps other writers of SQLite waiting."""
ALIVE_SECONDS = 60.0
LONGEST_REASON = 1000

log = structlog.get_logger()


class Scheduler:
    """Fires what is due, when asked to."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def tick(self, seconds: float = SHARE_SECONDS) -> int:
        """How many schedules were dealt with; one indexed query when nothing is due. Raises DatabaseUnavailable."""
        with reading(self._engine) as session:
            if not schedules.anything_due(session):
                return 0
        deadline, count = time.monotonic() + seconds, 0
        while time.monotonic() < deadline and (dealt := retrying(self._engine, deal_with_some, attempts=3)):
            count += dealt
        return count


@dataclass(frozen=True)
class Known:
    """What requests are checked against, as it was when a transaction began."""

    datasets: Mapping[str, DatasetEntry]
    unavailable: Mapping[str, UnavailableDataset]
    weights: Mapping[str, str]

    @classmethod
    def read(cls, session: Session) -> Known:
        nodes = [node.document for node in catalog.nodes(session, seen_within_seconds=ALIVE_SECONDS)]
        return cls(_entries(session), unavailable_datasets(nodes), weights.published(nodes))


def deal_with_some(session: Session) -> int:
    """Deals with the schedules that have been due longest and that nobody else deals with; how many there were."""
    taken = schedules.take_due(session, limit=AT_ONCE)
    if not taken:
        return 0
    now, known = database_now(session), Known.read(session)
    for found in taken:
        try:
            with session.begin_nested():
                _deal_with(session, found, now, known)
        except SQLAlchemyError:
            raise
        except Exception:  # a mistake with one schedule must neither end the dispatcher nor hold the others up
            log.exception("schedule.broken", schedule=found.id)
            _pass_over(session, found, now)
    return len(taken)


def _pass_over(session: Session, found: Schedule, now: datetime) -> None:
    """Notes a fire that nobody could deal with, and goes on with the next one."""
    planned = found.planned_at or now
    reason = "It could not be dealt with; see the dispatcher's log."
    schedules.record_fire(session, found.id, planned, "failed", reason=reason)
    rhythm = rhythm_of(found)
    following = rhythm.next(max(now, planned))
    due = None if following is None else rhythm.due(following)
    schedules.set_next_fire(session, found.id, due, planned_at=following, last=planned)


def rhythm_of(found: Schedule) -> Rhythm:
    """When a stored schedule is due. SpecError for an expression or a zone that this machine does not know."""
    timetable = Timetable.parse(found.cron, found.zone)
    return Rhythm(timetable, found.id, found.jitter_seconds, found.start_at, found.end_at)


def _deal_with(session: Session, found: Schedule, now: datetime, known: Known) -> None:
    try:
        rhythm = rhythm_of(found)
    except SpecError as error:  # another version of the time zones: nobody can say when it is due
        schedules.record_fire(session, found.id, found.planned_at or now, "failed", reason=str(error)[:LONGEST_REASON])
        schedules.edit(session, found.id, enabled=False, next_fire_at=None, planned_at=None)
        log.error("schedule.stopped", schedule=found.id, error=str(error))
        return
    assert found.next_fire_at is not None  # that is what was looked for
    planned = found.planned_at or found.next_fire_at
    waited = found.next_fire_at > rhythm.due(planned)
    times = _times(rhythm, planned, now, found.catch_up_seconds)
    latest = times[-1]
    _note_passed_over(session, found, times[:-1], waited)
    late = (now - (found.next_fire_at if latest == planned else rhythm.due(latest))).total_seconds()
    if schedules.dealt_with(session, found.id, latest):
        log.info("schedule.fired_before", schedule=found.id, fire_at=latest.isoformat())
    elif late > max(found.catch_up_seconds, ON_TIME_SECONDS):
        reason = f"No dispatcher was at work until {late:.0f} s later; {found.catch_up_seconds} s are caught up."
        schedules.record_fire(session, found.id, latest, "missed", reason=reason)
    elif _must_wait(session, found):
        schedules.set_next_fire(session, found.id, now + timedelta(seconds=WAIT_SECONDS), planned_at=latest)
        return
    else:
        _fire(session, found, latest, known)
    following = rhythm.next(latest)
    due = None if following is None else rhythm.due(following)
    schedules.set_next_fire(session, found.id, due, planned_at=following, last=latest)


def _times(rhythm: Rhythm, planned: datetime, now: datetime, catch_up_seconds: int) -> list[datetime]:
    """The times to deal with, in order: the planned one, and those that have come since.

    After a very long stop some in the middle are left out: they are not worth a row each, nor the time to count them.
    """
    found = [planned, *islice(rhythm.come(planned, now), MOST_NOTED)]
    if len(found) > MOST_NOTED:
        recent = max(found[-1], now - timedelta(seconds=catch_up_seconds + rhythm.jitter_seconds))
        found += deque(rhythm.come(recent, now), maxlen=1)
    return found


def _note_passed_over(session: Session, found: Schedule, times: list[datetime], waited: bool) -> None:
    status = "skipped" if waited else "missed"
    reason = "A later one came while it waited." if waited else "No dispatcher was at work; a later one was due too."
    for at in times:
        schedules.record_fire(session, found.id, at, status, reason=reason)


def _must_wait(session: Session, found: Schedule) -> bool:
    return found.overlap == "queue" and bool(schedules.unfinished_searches(session, found.id))


def _fire(session: Session, found: Schedule, fire_at: datetime, known: Known) -> None:
    """Starts the search of a fire, or notes why not."""
    unfinished = [] if found.overlap == "allow" else schedules.unfinished_searches(session, found.id)
    if found.overlap == "skip" and unfinished:
        schedules.record_fire(session, found.id, fire_at, "skipped", reason="The search before has not ended.")
        log.info("schedule.skipped", schedule=found.id, fire_at=fire_at.isoformat())
        return
    plan = _plan_or_reason(session, found, fire_at, known)
    if isinstance(plan, str):
        schedules.record_fire(session, found.id, fire_at, "failed", reason=plan[:LONGEST_REASON])
        log.warning("schedule.failed", schedule=found.id, fire_at=fire_at.isoformat(), error=plan)
        return
    for search_id in unfinished:
        searches.set_command(session, search_id, "cancel")
    spec = plan.spec
    search = searches.create(
        session, name=spec.name, spec=plan.resolved(), spec_version=SPEC_VERSION, owner=spec.owner, tags=spec.tags,
        priority=spec.priority, schedule_id=found.id, fire_at=fire_at,
    )  # fmt: skip
    schedules.record_fire(session, found.id, fire_at, "fired", search_id=search.id)
    log.info("schedule.fired", schedule=found.id, fire_at=fire_at.isoformat(), search=search.id)


def _plan_or_reason(session: Session, found: Schedule, fire_at: datetime, known: Known) -> SearchPlan | str:
    """The plan of a fire's search, or why there is none. A template is never the end of its schedule."""
    try:
        return plan_of_fire(session, found, fire_at, known)
    except SpecError as error:
        return str(error)
    except (ArithmeticError, LookupError, TypeError, ValueError, AssertionError) as error:
        log.exception("schedule.template_unreadable", schedule=found.id)
        return f"The template could not be read ({type(error).__name__}); see the dispatcher's log."


def plan_of_fire(session: Session, found: Schedule, fire_at: datetime, known: Known) -> SearchPlan:
    """The checked request of a fire. SpecError with everything that is wrong."""
    request = schedule.render(found.template, fire_at, found.zone, priority=found.priority, owner=found.owner)
    plan = make_plan(SearchSpec.parse(request), known.datasets, known.weights, known.unavailable)
    before = schedules.latest_result(session, found.id, before=fire_at)
    if before is None:
        return plan
    asked = schedule.wants_previous(found.template)
    return previous.with_previous(plan, Earlier(session, before.id), asked=asked)


def _entries(session: Session) -> dict[str, DatasetEntry]:
    """The data sets that workers have published, by name; those of a newer version are left out."""
    found = {}
    for row in catalog.datasets(session):
        try:
            found[row.name] = DatasetEntry.model_validate(row.document)
        except ValidationError:
            log.warning("schedule.dataset_unreadable", dataset=row.name)
    return found
