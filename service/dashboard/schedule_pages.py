"""Schedules: what repeats itself, what became of it, and the form that makes and changes one."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from starlette.responses import Response

from db import deliveries, schedules, searches
from db.engine import reading
from db.models import FINISHED_STATUSES
from search.timetable import zones
from service.dashboard import drafts, examples
from service.dashboard.rendering import page
from service.dashboard.routing import address, make_router
from service.queries import CursorText
from service.schedules import logic
from service.schedules.schemas import DeliveryOut
from service.state import UUID, FireId, House, ScheduleId

router = make_router()
ON_A_PAGE = 50
HISTORY = 25
MESSAGES = 10
OVERLAPS = {
    "skip": "skip this one",
    "queue": "wait until it has",
    "allow": "let both run",
    "replace": "cancel the one before",
}


@router.get("/schedules")
def show_schedules(house: House, cursor: CursorText = None) -> Response:
    """All of them."""
    return _list(house, "schedules.html", cursor)


@router.get("/live/schedules")
def show_schedules_live(house: House, cursor: CursorText = None) -> Response:
    """The part of the list that changes."""
    return _list(house, "schedules_live.html", cursor)


@router.get("/schedules/new")
def show_new_schedule(
    house: House,
    search: Annotated[str | None, Query(pattern=UUID, description="A search to repeat.")] = None,
) -> Response:
    """The form of a new one."""
    if search is None:
        return _form(None, examples.text("demo"))
    with reading(house.engine) as session:
        source = searches.get(session, search)
    return _form(None, drafts.as_yaml(drafts.repeated(source.name, source.spec)), source.name, source.priority)


@router.get("/schedules/{schedule_id}")
def show_schedule(house: House, schedule_id: ScheduleId, cursor: CursorText = None) -> Response:
    """One of them with its history."""
    return _one(house, "schedule.html", schedule_id, cursor)


@router.get("/live/schedules/{schedule_id}")
def show_schedule_live(house: House, schedule_id: ScheduleId, cursor: CursorText = None) -> Response:
    """The part of it that changes."""
    return _one(house, "schedule_live.html", schedule_id, cursor)


@router.get("/schedules/{schedule_id}/edit")
def show_schedule_form(house: House, schedule_id: ScheduleId) -> Response:
    """The form with what is there."""
    with reading(house.engine) as session:
        found = logic.one(session, schedule_id)
    return _form(found.model_dump(mode="json"), drafts.as_yaml(found.template))


@router.get("/schedules/{schedule_id}/fires/{fire_id}")
def show_comparison(house: House, schedule_id: ScheduleId, fire_id: FireId) -> Response:
    """What a fire's search has found that the one before had not."""
    with reading(house.engine) as session:
        found = schedules.get(session, schedule_id)
        fire = logic.fires_shown(session, [schedules.fire(session, schedule_id, fire_id)])[0]
        told = logic.comparison(session, schedule_id, fire_id)
        there = logic.still_there(session, told)
    return page(
        "comparison.html", page="schedules", schedule=found, fire=fire.model_dump(mode="json"),
        told=told.model_dump(mode="json"), there=there, local=logic.on_clock(fire.fire_at, found.zone),
        ended=FINISHED_STATUSES,
    )  # fmt: skip


def _list(house: House, template: str, cursor: str | None) -> Response:
    order = {"list": "dashboard.schedules"}
    after = house.cursors.read(cursor, order)
    with reading(house.engine) as session:
        found = schedules.page(session, after=after, limit=ON_A_PAGE)
        shown = logic.shown(session, found.items)
        coming = {row.id: logic.coming_of(session, row, 1) for row in found.items}
    further = house.cursors.write(found.next, order)
    query = {} if cursor is None else {"cursor": cursor}
    return page(
        template, page="schedules", schedules=[each.model_dump(mode="json") for each in shown], coming=coming,
        further=None if further is None else address("/schedules", {"cursor": further}),
        live_url=address("/live/schedules", query),
    )  # fmt: skip


def _one(house: House, template: str, schedule_id: str, cursor: str | None) -> Response:
    order = {"list": "dashboard.fires", "schedule": schedule_id}
    after = house.cursors.read(cursor, order)
    with reading(house.engine) as session:
        row = schedules.get(session, schedule_id)
        shown = logic.shown(session, [row])[0]
        fires = schedules.fires(session, schedule_id, after=after, limit=HISTORY)
        told = logic.fires_shown(session, fires.items)
        messages = deliveries.page(session, schedule_id, limit=MESSAGES).items
        coming = logic.coming_of(session, row, logic.SHOWN_FIRES)
    further = house.cursors.write(fires.next, order)
    path = f"/schedules/{schedule_id}"
    return page(
        template, page="schedules", s=shown.model_dump(mode="json"), coming=coming, overlaps=OVERLAPS,
        fires=[fire.model_dump(mode="json") for fire in told],
        local={fire.id: logic.on_clock(fire.fire_at, row.zone) for fire in told},
        messages=[DeliveryOut.of(each).model_dump(mode="json") for each in messages],
        template_text=drafts.as_yaml(row.template),
        further=None if further is None else address(path, {"cursor": further}),
        live_url=address(f"/live{path}", {} if cursor is None else {"cursor": cursor}),
    )  # fmt: skip


def _form(schedule: dict[str, Any] | None, text: str, source: str | None = None, priority: int = 5) -> Response:
    """source: name of the search that is repeated; priority: of a new schedule."""
    return page(
        "schedule_form.html", page="schedules", s=schedule, text=text, source=source, priority=priority,
        overlaps=OVERLAPS, zones=zones(), events=("finished", "failed", "improved"),
    )  # fmt: skip
