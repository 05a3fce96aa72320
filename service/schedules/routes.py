"""/api/v1/schedules"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse

from db import deliveries, schedules
from db.engine import reading
from search.schedule import ScheduleSpec
from service.body import Body
from service.etags import IfMatch, etag, version_of
from service.once import Key, check_key
from service.openapi import body_of
from service.queries import CursorText, Limit
from service.schedules import changes, logic
from service.schedules.schemas import (
    ComparisonOut,
    DeliveryOut,
    DeliveryPage,
    Expression,
    FireOut,
    FirePage,
    ScheduleDetail,
    SchedulePage,
    Tests,
)
from service.state import FireId, House, ScheduleId

router = APIRouter(prefix="/api/v1/schedules", tags=["schedules"])
UserZone = Annotated[str | None, Query(max_length=100, description="IANA zone of the reader, for `coming[].yours`.")]


@router.post(
    "", status_code=201, response_model=ScheduleDetail, summary="Repeat a search", openapi_extra=body_of(ScheduleSpec)
)
def create_schedule(house: House, data: Body, key: Key = None) -> Response:
    """Keeps a schedule. Repeating the request with the same Idempotency-Key gives the same one and no second."""
    check_key(key)
    answer = changes.create(house, data, key)
    place = {"Location": f"/api/v1/schedules/{answer.body['id']}", "ETag": etag(answer.body["version"])}
    return JSONResponse(answer.body, 201, {**answer.headers, **place})


@router.get("", response_model=SchedulePage, summary="List schedules")
def list_schedules(house: House, limit: Limit = 50, cursor: CursorText = None) -> SchedulePage:
    """By name."""
    order = {"list": "schedules"}
    after = house.cursors.read(cursor, order)
    with reading(house.engine) as session:
        found = schedules.page(session, after=after, limit=limit)
        items = logic.shown(session, found.items)
    return SchedulePage(items=items, next_cursor=house.cursors.write(found.next, order))


@router.post("/preview", summary="What an expression means", openapi_extra=body_of(logic.Question))
def preview_expression(house: House, data: Body) -> Expression:
    """The next fires of a cron expression, on a clock of its zone and of yours, without keeping anything."""
    with reading(house.engine) as session:
        return logic.explain(session, data)


@router.get("/{schedule_id}", response_model=ScheduleDetail, summary="One schedule")
def get_schedule(
    house: House, schedule_id: ScheduleId, response: Response, user_zone: UserZone = None
) -> ScheduleDetail:
    """With its next five fires."""
    with reading(house.engine) as session:
        found = logic.one(session, schedule_id, user_zone)
    response.headers["ETag"] = etag(found.version)
    return found


@router.patch(
    "/{schedule_id}",
    response_model=ScheduleDetail,
    summary="Change, pause, resume",
    openapi_extra=body_of(ScheduleSpec),
)
def edit_schedule(house: House, schedule_id: ScheduleId, data: Body, if_match: IfMatch = None) -> Response:
    """Changes the fields that are given; `enabled` pauses and resumes. 412 when If-Match is stale."""
    changed = changes.edit(house, schedule_id, data, version_of(if_match))
    return JSONResponse(changed, headers={"ETag": etag(changed["version"])})


@router.delete("/{schedule_id}", status_code=204, summary="Delete a schedule")
def delete_schedule(house: House, schedule_id: ScheduleId, if_match: IfMatch = None) -> None:
    """Deletes it with its history; its searches stay."""
    changes.delete(house, schedule_id, version_of(if_match))


@router.post("/{schedule_id}/run", status_code=201, response_model=FireOut, summary="Run it now")
def run_schedule(house: House, schedule_id: ScheduleId, key: Key = None) -> Response:
    """Starts a search now, also when the schedule is paused or its last search has not ended."""
    check_key(key)
    answer = changes.run(house, schedule_id, key)
    place = {"Location": f"/api/v1/searches/{answer.body['search_id']}"}
    return JSONResponse(answer.body, 201, {**answer.headers, **place})


@router.post("/{schedule_id}/test", status_code=202, response_model=Tests, summary="Send a test message")
def test_schedule(house: House, schedule_id: ScheduleId) -> Tests:
    """Queues a message to every target; the dispatcher sends it, and `deliveries` tells whether it arrived."""
    return changes.send_test(house, schedule_id)


@router.get("/{schedule_id}/fires", response_model=FirePage, summary="What has become of its times")
def list_fires(house: House, schedule_id: ScheduleId, limit: Limit = 50, cursor: CursorText = None) -> FirePage:
    """Newest first."""
    order = {"list": "fires", "schedule": schedule_id}
    after = house.cursors.read(cursor, order)
    with reading(house.engine) as session:
        found = schedules.fires(session, schedule_id, after=after, limit=limit)
        items = logic.fires_shown(session, found.items)
    return FirePage(items=items, next_cursor=house.cursors.write(found.next, order))


@router.get(
    "/{schedule_id}/fires/{fire_id}/comparison", response_model=ComparisonOut, summary="What a fire's search has found"
)
def compare_fire(house: House, schedule_id: ScheduleId, fire_id: FireId) -> ComparisonOut:
    """Its front beside that of the search before: hypervolume, points and placements gained and lost, and whether it
    has moved by more than seeds explain."""
    with reading(house.engine) as session:
        return logic.comparison(session, schedule_id, fire_id)


@router.get("/{schedule_id}/deliveries", response_model=DeliveryPage, summary="Its messages")
def list_deliveries(
    house: House, schedule_id: ScheduleId, limit: Limit = 50, cursor: CursorText = None
) -> DeliveryPage:
    """Newest first, with what became of them."""
    order = {"list": "deliveries", "schedule": schedule_id}
    after = house.cursors.read(cursor, order)
    with reading(house.engine) as session:
        schedules.get(session, schedule_id)
        found = deliveries.page(session, schedule_id, after=after, limit=limit)
    items = [DeliveryOut.of(row) for row in found.items]
    return DeliveryPage(items=items, next_cursor=house.cursors.write(found.next, order))
