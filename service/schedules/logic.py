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
from search.schedule import Moment, Rhythm
from search.spec import Part
from search.timetable import Timetable
from service.schedules.schemas import ComingFire, ComparisonOut, Expression, FireOut, ScheduleOut

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
    return [ScheduleOut.of(row, meaning(row.cron, row.zone), now) for row in found]


def one(session: Session, schedule_id: str) -> ScheduleOut:
    """Raises NotFound."""
    return shown(session, [schedules.get(session, schedule_id)])[0]


def meaning(cron: str, zone: str) -> str | None:
    """The expression in words; None for one that another version of the time zones knew."""
    try:
        return Timetable.parse(cron, zone).meaning
    except SpecError:
        return None


def explain(session: Session, data: Any) -> Expression:
    """An expression's meaning and next fires. SpecError."""
    if not isinstance(data, Mapping):
        raise SpecError.one("", "Send an object with at least `cron`.")
    try:
        asked = Question.model_validate(data)
    except ValidationError as error:
        raise SpecError(wording.problems(error, Question)) from None
    timetable = Timetable.parse(asked.cron, asked.zone)
    if asked.user_zone is not None:
        Timetable.parse("0 0 * * *", asked.user_zone, "user_")
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


def _compared_now(session: Session, fire: Fire) -> dict[str, Any]:
    nothing = {"search_id": fire.search_id or "", "previous_search_id": None, "comparable": False}
    if fire.search_id is None:
        return nothing | {"reason": "This fire has no search."}
    before = schedules.latest_result(session, fire.schedule_id, before=fire.fire_at)
    if before is None:
        return nothing | {"reason": "There is no earlier search of this schedule that has succeeded."}
    return progress_report.report(Earlier(session, fire.search_id), Earlier(session, before.id))
