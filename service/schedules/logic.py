"""Reads of schedules for the API, one database state each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import Field, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from db import engine, schedules
from db.measured import Earlier
from db.models import Fire, Schedule, Search
from search import progress_report, wording
from search.errors import SpecError
from search.fields import Part
from search.schedule import Moment, Rhythm
from search.timetable import Timetable
from service.schedules.schemas import ComingFire, ComparisonOut, Expression, FireOut, ScheduleDetail, ScheduleOut

SHOWN_FIRES = 5


class Question(Part):
    """An expression to look at while it is written. user_zone: of the person who reads the answer."""

    cron: str
    zone: str = "UTC"
    user_zone: str | None = None
    start_at: Moment | None = None
    end_at: Moment | None = None
    count: Annotated[int, Field(ge=1, le=50)] = SHOWN_FIRES


def shown(session: Session, found: Sequence[Schedule]) -> list[ScheduleOut]:
    now = engine.now(session)
    return [_shown(row, _rhythm(row), now) for row in found]


def one(session: Session, schedule_id: str, user_zone: str | None = None) -> ScheduleDetail:
    """A schedule with its next fires, also on a clock in `user_zone`. Raises NotFound, SpecError."""
    return detail(session, schedules.get(session, schedule_id), user_zone)


def detail(session: Session, row: Schedule, user_zone: str | None = None) -> ScheduleDetail:
    """As `one`."""
    _check_user_zone(user_zone)
    told = shown(session, [row])[0]
    return ScheduleDetail(**dict(told), coming=coming_of(session, row, SHOWN_FIRES, user_zone))


def coming_of(session: Session, row: Schedule, count: int, user_zone: str | None = None) -> list[ComingFire]:
    """The next fires; none for one that is paused, over, or of a zone that is not known any more."""
    rhythm = _rhythm(row) if row.enabled and row.planned_at is not None else None
    return [] if rhythm is None else coming(rhythm, engine.now(session), count, user_zone)


def _shown(row: Schedule, rhythm: Rhythm | None, now: datetime) -> ScheduleOut:
    """rhythm: None for one that another version of the time zones knew."""
    waiting = False
    if rhythm is not None and row.planned_at is not None and row.next_fire_at is not None:
        # a fire that waits is put off from when it was due, which its jitter makes later than planned
        waiting = row.planned_at < now and row.next_fire_at > rhythm.due(row.planned_at)
    return ScheduleOut.of(row, None if rhythm is None else rhythm.timetable.meaning, waiting)


def _rhythm(row: Schedule) -> Rhythm | None:
    """When a stored schedule is due; None where this machine does not know its zone or its expression."""
    try:
        return Rhythm(Timetable.parse(row.cron, row.zone), row.id, row.jitter_seconds, row.start_at, row.end_at)
    except SpecError:
        return None


def _check_user_zone(user_zone: str | None) -> None:
    if user_zone is not None:
        Timetable.parse("0 0 * * *", user_zone, "user_")


def explain(session: Session, data: Any) -> Expression:
    """An expression's meaning and next fires. SpecError."""
    if not isinstance(data, Mapping):
        raise SpecError.one("", "Send an object with at least `cron`.")
    try:
        asked = Question.model_validate(data)
    except ValidationError as error:
        raise SpecError(wording.problems(error, Question)) from None
    timetable = Timetable.parse(asked.cron, asked.zone)
    _check_user_zone(asked.user_zone)
    rhythm = Rhythm(timetable, "", 0, asked.start_at, asked.end_at)
    fires = coming(rhythm, engine.now(session), asked.count, asked.user_zone)
    return Expression(cron=timetable.cron, zone=timetable.zone, meaning=timetable.meaning, fires=fires)


def coming(rhythm: Rhythm, now: datetime, count: int, user_zone: str | None = None) -> list[ComingFire]:
    """The next fires, on clocks of both zones."""
    found: list[ComingFire] = []
    for _ in range(count):
        following = rhythm.next(now)
        if following is None:
            break
        now = following
        local = on_clock(following, rhythm.timetable.zone)
        yours = None if user_zone is None else on_clock(following, user_zone)
        found.append(ComingFire(at=following, local=local, yours=yours))
    return found


def on_clock(moment: datetime, zone: str) -> str:
    """What a clock in the zone shows."""
    return f"{moment.astimezone(ZoneInfo(zone)):%a %Y-%m-%d %H:%M %Z}"


def fires_shown(session: Session, rows: Sequence[Fire]) -> list[FireOut]:
    """The fires with what has become of their searches."""
    wanted = [row.search_id for row in rows if row.search_id]
    columns = select(Search.id, Search.name, Search.status, Search.hypervolume).where(Search.id.in_(wanted))
    known = {row.id: row for row in session.execute(columns)}
    found = []
    for row in rows:
        told = FireOut.of(row)
        search = known.get(row.search_id or "")
        if search is not None:
            told.search_name, told.search_status = search.name, search.status
            told.hypervolume = search.hypervolume
        if row.comparison is not None:
            told.verdict = (row.comparison.get("moved") or {}).get("verdict", "unknown")
        found.append(told)
    return found


def comparison(session: Session, schedule_id: str, fire_id: str) -> ComparisonOut:
    """A fire's search beside the newest one before it that has succeeded. NotFound."""
    fire = schedules.fire(session, schedule_id, fire_id)
    told: Mapping[str, Any] | None = fire.comparison
    final = fire.settled_at is not None
    if told is None:
        told = _compared_now(session, fire)
    summary = progress_report.sentence(told)
    known = {name: told[name] for name in ComparisonOut.model_fields if name in told}
    return ComparisonOut(fire_id=fire.id, final=final, summary=summary, **known)


def still_there(session: Session, told: ComparisonOut) -> list[str]:
    """Which of the two searches have not been deleted."""
    compared = [told.search_id, told.previous_search_id or ""]
    return list(session.scalars(select(Search.id).where(Search.id.in_(compared))))


def _compared_now(session: Session, fire: Fire) -> dict[str, Any]:
    nothing = {"search_id": fire.search_id or "", "previous_search_id": None, "comparable": False}
    if fire.search_id is None:
        return nothing | {"reason": "This fire has no search."}
    before = schedules.latest_result(session, fire.schedule_id, before=fire.fire_at)
    if before is None:
        return nothing | {"reason": "There is no earlier search of this schedule that has succeeded."}
    return progress_report.report(Earlier(session, fire.search_id), Earlier(session, before.id))
