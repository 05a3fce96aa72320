"""Searches: create, find, command, and what their drivers report about them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete as delete_from
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from db import checks, ended_trials, evaluations, events, heirs, settling
from db import search_rows as rows
from db.errors import Conflict
from db.ids import uuid7
from db.models import COMMANDS, FINISHED_STATUSES, Search
from db.search_lists import LONGEST_PAGE as LONGEST_PAGE
from db.search_lists import SORTS as SORTS
from db.search_lists import counts as counts
from db.search_lists import page as page
from db.search_lists import queued as queued
from db.search_lists import status_counts as status_counts
from db.upserts import insert_into

RELEASED = ("queued", "paused", *FINISHED_STATUSES)


def create(
    session: Session,
    *,
    name: str,
    spec: Mapping[str, Any],
    spec_version: int,
    owner: str | None = None,
    tags: Sequence[str] = (),
    priority: int = 5,
    waiting_reason: str | None = None,
    bounds: Mapping[str, Any] | None = None,
    schedule_id: str | None = None,
    fire_at: datetime | None = None,
    id: str | None = None,
) -> Search:
    """Queues a search. With an `id` made by the caller, repeating the call gives the search of the first one."""
    values = checks.row(
        Search,
        {
            "id": id or uuid7(),
            "name": name,
            "spec": dict(spec),
            "spec_version": spec_version,
            "owner": owner,
            "tags": list(tags),
            "priority": priority,
            "waiting_reason": waiting_reason,
            "bounds": None if bounds is None else dict(bounds),
            "schedule_id": schedule_id,
            "fire_at": fire_at,
            "event_seq": 1,
        },
    )
    statement = insert_into(session, Search).values(**values).on_conflict_do_nothing(index_elements=["id"])
    created = session.scalars(statement.returning(Search)).one_or_none()
    if created is None:
        return get(session, values["id"])
    events.insert_numbered(session, created.id, 1, [("search.created", {"name": name, "status": "queued"})])
    return created


def create_all(session: Session, searches: Sequence[Mapping[str, Any]]) -> None:
    """Queues new searches, in two statements. searches: columns of each, with its id, name, spec and spec_version."""
    if searches:
        session.execute(insert(Search), [checks.row(Search, {**each, "event_seq": 1}) for each in searches])
        events.insert_first(
            session, {each["id"]: ("search.created", {"name": each["name"], "status": "queued"}) for each in searches}
        )


def get(session: Session, search_id: str) -> Search:
    """The search. Raises NotFound."""
    found = session.scalars(select(Search).where(Search.id == search_id).execution_options(populate_existing=True))
    return rows.found(found.one_or_none(), search_id)


def lock(session: Session, search_id: str, *, version: int | None = None) -> Search:
    """The search, its row locked until the commit. Raises NotFound, and Stale when `version` is not the row's."""
    return rows.lock(session, search_id, version=version)


def set_command(session: Session, search_id: str, command: str, *, version: int | None = None) -> Search:
    """Asks for pause, resume or cancel; at once where no driver is at work, else the driver obeys.

    Asking for what is already so changes nothing. Raises NotFound, Conflict with a sentence for the user when the
    search's state does not allow it, and Stale when `version` is not the row's.
    """
    if command not in COMMANDS:
        raise ValueError(f"command: {command!r} is not one of {', '.join(COMMANDS)}")
    search = rows.lock(session, search_id, version=version)
    if search.finished:
        past = {"pause": "paused", "resume": "resumed", "cancel": "cancelled"}[command]
        raise Conflict(f"a finished search cannot be {past}: it has {search.status}")
    if search.command == "cancel" and command != "cancel":
        raise Conflict(f"a search that is being cancelled cannot be {command}d")
    values = _obey(search, command)
    if not values:
        return search
    if "status" in values:
        ended_trials.leave(session, search_id, values["status"])
        return rows.change(session, search_id, values, "search.status", {"status": values["status"]})
    return rows.change(session, search_id, values, "search.command", {"command": values["command"]})


def _obey(search: Search, command: str) -> dict[str, Any]:
    """The columns to change for a command on an unfinished search; nothing when it is so already."""
    if search.status == "running":
        wanted = None if command == "resume" else command
        return {} if search.command == wanted else {"command": wanted}
    if command == "cancel":
        return rows.ended("cancelled") | {"attempt": search.attempt + 1}
    if command == "pause":
        return {"status": "paused"} if search.status == "queued" else {}
    return {"status": "queued", "command": None} if search.status == "paused" else {}


def set_status(
    session: Session,
    search_id: str,
    attempt: int,
    status: str,
    *,
    error: Mapping[str, Any] | None = None,
    died: bool = False,
    active_seconds: float | None = None,
) -> bool:
    """Ends an attempt: the search has finished, is paused, or goes back to the queue. False when fenced.

    What the user asked for meanwhile wins over paused and queued: a cancel is obeyed, a pause too, and a resume of
    a search about to pause queues it. The lease ends, and evaluations that the search had claimed are free again.
    A repeated call is true and changes nothing. A finished or paused search has no running trial: what still says so is
    ended as cancelled (a paused one goes on later). No trial is on a node any more. died: the driver ended without a
    word. active_seconds: how long drivers have worked on the search.
    """
    if status not in RELEASED:
        raise ValueError(f"status: {status!r} is not one of {', '.join(RELEASED)}")
    search = rows.locked(session, Search.id == search_id, Search.attempt == attempt)
    if search is None or search.lease_owner is None:
        return search is not None
    final = status if status in FINISHED_STATUSES else _wanted(search)
    values = rows.ended(final) if final in FINISHED_STATUSES else {"status": final} | rows.UNLEASED
    if died:
        values["deaths"] = search.deaths + 1
    if active_seconds is not None:
        values["active_seconds"] = active_seconds
    ended_trials.leave(session, search_id, final)
    told: dict[str, Any] = {"status": final} | ({"died": True} if died else {})
    if error is not None:
        values["error"] = dict(error)
        told["error"] = error.get("message")
    rows.change(session, search_id, values, "search.status", told)
    evaluations.release_all(session, search_id)
    return True


def _wanted(search: Search) -> str:
    if search.command == "cancel":
        return "cancelled"
    if search.command == "pause":
        return "paused"
    return "queued"


def set_progress(
    session: Session,
    search_id: str,
    attempt: int,
    *,
    phase: str | None = None,
    hypervolume: float | None = None,
    best_trial_id: str | None = None,
    bounds: Mapping[str, Any] | None = None,
    got_on: bool = False,
) -> bool:
    """Records what is given and not None. False when another attempt holds the search. Writes an event on a change.

    got_on: a trial has come to its end or further than before, so earlier deaths of its drivers are no reason to give
    the search up.
    """
    search = rows.held(session, search_id, attempt)
    if search is None:
        return False
    given: dict[str, Any] = {"phase": phase, "hypervolume": hypervolume, "best_trial_id": best_trial_id}
    given["bounds"] = None if bounds is None else dict(bounds)
    values = {name: item for name, item in given.items() if item is not None and item != getattr(search, name)}
    if got_on and search.deaths:
        values["deaths"] = 0
    if values:
        told = {name: item for name, item in values.items() if name not in ("bounds", "deaths")}
        rows.change(session, search_id, values, "search.progress", told)
    return True


def edit(
    session: Session,
    search_id: str,
    *,
    version: int | None = None,
    name: str | None = None,
    tags: Sequence[str] | None = None,
    priority: int | None = None,
) -> Search:
    """Changes what a user may change at any time. Raises NotFound and Stale."""
    search = rows.lock(session, search_id, version=version)
    given = {"name": name, "tags": None if tags is None else list(tags), "priority": priority}
    values = {field: item for field, item in given.items() if item is not None and item != getattr(search, field)}
    return rows.change(session, search_id, values, "search.changed", values) if values else search


def set_waiting_reason(session: Session, search_id: str, reason: str | None) -> None:
    """Why a queued search does not start, or None. Nothing happens to a search that is not queued any more."""
    search = rows.locked(session, Search.id == search_id, Search.status == "queued")
    if search is not None and search.waiting_reason != reason:
        rows.change(session, search_id, {"waiting_reason": reason}, "search.changed", {"waiting_reason": reason})


def reopen(
    session: Session,
    search_id: str,
    *,
    spec: Mapping[str, Any] | None = None,
    spec_version: int | None = None,
    retry_failed: bool = False,
    version: int | None = None,
) -> Search:
    """Queues a finished search again: with a larger budget in its spec, its failed trials to be tried again, or both.

    What was cancelled goes on too. Raises NotFound, Stale when `version` is not the row's, Conflict with a sentence for
    the user, and ValueError when nothing is asked for or a spec comes without its version.
    """
    if (spec is None) != (spec_version is None) or (spec is None and not retry_failed):
        raise ValueError("reopen needs spec and spec_version, or retry_failed")
    search = rows.lock(session, search_id, version=version)
    if not search.finished:
        raise Conflict(f"only a finished search can be taken up again: this one is {search.status}")
    values: dict[str, Any] = {"status": "queued", "finished_at": None, "error": None, "deaths": 0}
    if spec is not None:
        values |= {"spec": dict(spec), "spec_version": spec_version}
    if retry_failed and not ended_trials.to_retry(session, search_id) and spec is None and search.status == "succeeded":
        raise Conflict("no trial of this search has failed or was cancelled: there is nothing to try again")
    settling.reopen(session, search_id)
    return rows.change(session, search_id, values, "search.status", {"status": "queued"})


def delete(session: Session, search_id: str) -> None:
    """Deletes a finished search with its trials, epochs and events. Files that trials of other searches need become
    theirs. Raises NotFound and Conflict."""
    search = rows.lock(session, search_id)
    if not search.finished:
        raise Conflict(f"a search that is {search.status} cannot be deleted: cancel it first")
    session.expunge(search)
    heirs.hand_down(session, search_id)
    session.execute(delete_from(Search).where(Search.id == search_id).execution_options(synchronize_session=False))
