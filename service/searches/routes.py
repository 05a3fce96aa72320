"""/api/v1/searches"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from db import searches
from db.engine import reading, retrying
from db.models import SEARCH_STATUSES
from service.body import Body
from service.etags import IfMatch, etag, version_of
from service.once import Answer, Key, check_key
from service.openapi import SPEC_BODY, body_of
from service.queries import CursorText, Limit, sorting, words
from service.searches import changes, events, logic, submission
from service.searches.schemas import Progress, SearchOut, SearchPage
from service.state import House, SearchId

router = APIRouter(prefix="/api/v1/searches", tags=["searches"])
Command = Literal["cancel", "pause", "resume"]


@router.post("", status_code=201, response_model=SearchOut, summary="Submit a search", openapi_extra=SPEC_BODY)
def submit(house: House, data: Body, key: Key = None) -> Response:
    """Queues a search. Repeating the request with the same Idempotency-Key gives the same search and no second one."""
    check_key(key)
    answer = submission.submit(house, data, key)
    return _answered(answer, 201, {"Location": f"/api/v1/searches/{answer.body['id']}"})


@router.get("", response_model=SearchPage, summary="List searches")
def list_searches(
    house: House,
    status: Annotated[str | None, Query(max_length=200, description="One or more statuses, comma-separated.")] = None,
    tag: Annotated[str | None, Query(max_length=50)] = None,
    name: Annotated[str | None, Query(max_length=200, description="A part of the name.")] = None,
    owner: Annotated[str | None, Query(max_length=200)] = None,
    sort: Annotated[str, Query(max_length=50, description="A column; `-` before it: descending.")] = "-created_at",
    limit: Limit = 50,
    cursor: CursorText = None,
) -> SearchPage:
    column, descending = sorting(sort, searches.SORTS)
    statuses = words(status, "status", SEARCH_STATUSES)
    order = {"list": "searches", "sort": sort, "status": statuses, "tag": tag, "name": name, "owner": owner}
    after = house.cursors.read(cursor, order)
    with reading(house.engine) as session:
        found = searches.page(
            session, status=statuses, tag=tag, name_contains=name, owner=owner, sort=column,
            descending=descending, after=after, limit=limit,
        )  # fmt: skip
        items = logic.shown(session, found.items)
    return SearchPage(items=items, next_cursor=house.cursors.write(found.next, order))


@router.get("/{search_id}", response_model=SearchOut, summary="One search")
def get_search(house: House, search_id: SearchId, response: Response) -> SearchOut:
    with reading(house.engine) as session:
        found = logic.one(session, search_id)
    response.headers["ETag"] = etag(found.version)
    return found


@router.patch(
    "/{search_id}", response_model=SearchOut, summary="Rename, tag, reprioritise", openapi_extra=body_of(changes.Edit)
)
def edit_search(house: House, search_id: SearchId, data: Body, if_match: IfMatch = None) -> Response:
    """Changes name, tags or priority at any time; `spec` stays what was submitted. 412 when If-Match is stale."""
    changed = changes.edit(house, search_id, data, version_of(if_match))
    return JSONResponse(changed, headers={"ETag": etag(changed["version"])})


@router.delete("/{search_id}", status_code=204, summary="Delete a finished search")
def delete_search(house: House, search_id: SearchId, if_match: IfMatch = None) -> None:
    """Deletes the search with its trials, epochs and events; 409 while it has not ended."""
    version = version_of(if_match)

    def work(session: Any) -> None:
        if version is not None:
            searches.lock(session, search_id, version=version)
        searches.delete(session, search_id)

    retrying(house.engine, work, attempts=3)


@router.post(
    "/{search_id}/extend", status_code=202, response_model=SearchOut, summary="Go on with a larger budget",
    openapi_extra=body_of(changes.Extension),
)  # fmt: skip
def extend_search(house: House, search_id: SearchId, data: Body, key: Key = None, if_match: IfMatch = None) -> Response:
    """Queues a finished search again. Each number is a new total and over that of now; 409 while it has not ended."""
    check_key(key)
    return _answered(changes.extend(house, search_id, data, key, version_of(if_match)), 202)


@router.post("/{search_id}/retry", status_code=202, response_model=SearchOut, summary="Try failed trials again")
def retry_search(house: House, search_id: SearchId, key: Key = None, if_match: IfMatch = None) -> Response:
    """Queues a finished search again for its failed trials; 409 when none has failed or it has not ended."""
    check_key(key)
    return _answered(changes.retry(house, search_id, key, version_of(if_match)), 202)


@router.post("/{search_id}/{command}", status_code=202, response_model=SearchOut, summary="Cancel, pause or resume")
def command_search(
    house: House, search_id: SearchId, command: Command, response: Response, if_match: IfMatch = None
) -> SearchOut:
    """Done at once where no trial runs, else soon: `command` shows what is still to be done. 409 after the end."""
    version = version_of(if_match)

    def work(session: Any) -> SearchOut:
        return logic.shown(session, [searches.set_command(session, search_id, command, version=version)])[0]

    found = retrying(house.engine, work, attempts=3)
    response.headers["ETag"] = etag(found.version)
    return found


@router.get("/{search_id}/progress", response_model=Progress, summary="How far it is")
def get_progress(house: House, search_id: SearchId) -> Progress:
    with reading(house.engine) as session:
        return logic.progress(session, search_id)


@router.get(
    "/{search_id}/events",
    summary="What happens, as it happens",
    response_class=StreamingResponse,
    responses={
        200: {"description": "Server-sent events.", "content": {"text/event-stream": {}}},
        204: {"description": "The search has ended and there is nothing more to tell: do not reconnect."},
    },
)
async def get_events(
    house: House,
    request: Request,
    search_id: SearchId,
    last_event_id: Annotated[str | None, Header(max_length=50, description="The last event received.")] = None,
    after: Annotated[int | None, Query(ge=0, le=2**31, description="The same, for the first connection.")] = None,
) -> Response:
    """Events from the beginning, or after the one named; ends with `end` when the search has ended."""
    number, over = await run_in_threadpool(events.resume_point, house, search_id, last_event_id, after)
    if over and last_event_id is not None:
        return Response(status_code=204)  # a browser's EventSource reconnects until it is told this
    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(events.stream(house, request, search_id, number), 200, headers, "text/event-stream")


def _answered(answer: Answer, status: int, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(
        answer.body, status, {"ETag": etag(answer.body["version"]), **answer.headers, **(headers or {})}
    )
