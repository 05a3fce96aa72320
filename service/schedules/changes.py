"""Schedules are made, changed, run by hand and asked to send a message to see whether it arrives."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any

from sqlalchemy.orm import Session

from db import deliveries, engine, schedules, searches
from db.engine import reading, retrying
from db.errors import NotFound
from db.ids import uuid7
from db.measured import Earlier
from db.models import Schedule
from search import hooks, previous, schedule
from search.errors import Problem, SpecError
from search.plan import SearchPlan
from search.schedule import MOST_TARGETS, Rhythm, ScheduleSpec, with_priority
from search.spec import SPEC_VERSION
from search.timetable import Timetable
from service.errors import ApiError
from service.once import Answer, once
from service.schedules import logic
from service.schedules.schemas import DeliveryOut, Tests
from service.searches import submission
from service.state import Service

SCOPE = "POST schedules"
TIMING = frozenset({"cron", "zone", "jitter_seconds", "start_at", "end_at", "enabled"})
REQUEST = frozenset({"template", "zone", "priority", "owner"})
MOST_NOTED = 100
"""Times that a change of the timetable passes over, noted one by one."""


def create(house: Service, data: Any, key: str | None) -> Answer:
    """Keeps a schedule, or finds the one that `key` has made. SpecError, Conflict, ApiError 409/422."""
    refusal: SpecError | None = None
    try:
        spec = ScheduleSpec.parse(with_priority(data))
        _check_targets(house, spec, ())
        _check_template(house, spec)
    except SpecError as error:
        if key is None:
            raise
        refusal = error

    fresh = uuid7()

    def work(session: Session) -> dict[str, Any]:
        if refusal is not None:
            raise refusal  # a key that was used before is answered all the same
        with suppress(NotFound):  # made by this request already, whose commit nobody has acknowledged
            return _told(session, schedules.get(session, fresh))
        timing = _timing(spec, fresh, engine.now(session))
        row = schedules.create(session, id=fresh, **_columns(spec), **timing)
        return _told(session, row)

    def store(session: Session) -> Answer:
        return once(session, SCOPE, key, data, 201, lambda: work(session))

    return retrying(house.engine, store, attempts=3)


def edit(house: Service, schedule_id: str, data: Any, version: int | None) -> dict[str, Any]:
    """The schedule with what the body names changed. SpecError, NotFound, Stale, Conflict."""
    if not isinstance(data, Mapping) or not data:
        raise SpecError.one("", f"Send an object with some of {', '.join(ScheduleSpec.model_fields)}.")
    data = with_priority(data)
    with reading(house.engine) as session:
        seen = schedules.get(session, schedule_id)
    whole = _as_request(seen) | dict(data)
    if "notify" in data:
        whole["notify"] = _with_secrets(data["notify"], seen.notify)
    spec = ScheduleSpec.parse(whole)
    if {"notify", "template"} & set(data):
        _check_targets(house, spec, [target["target"] for target in seen.notify])
    if REQUEST & set(data):
        _check_template(house, spec)

    def work(session: Session) -> dict[str, Any]:
        now = engine.now(session)
        values = {name: value for name, value in _columns(spec).items() if name in data}
        row = schedules.lock(session, schedule_id, version=version)
        if row.version != seen.version:
            raise ApiError(409, "Somebody else has just changed the schedule; try again.")
        if any(getattr(spec, name) != getattr(row, name) for name in TIMING & set(data)):
            values |= _timing(spec, schedule_id, now)
            _note_passed_over(session, row, now)
        return _told(session, schedules.edit(session, schedule_id, **values))

    return retrying(house.engine, work, attempts=3)


def delete(house: Service, schedule_id: str, version: int | None) -> None:
    """Deletes a schedule with its fires and messages; its searches stay. NotFound, Stale."""

    def work(session: Session) -> None:
        schedules.lock(session, schedule_id, version=version)
        schedules.delete(session, schedule_id)

    retrying(house.engine, work, attempts=3)


def run(house: Service, schedule_id: str, key: str | None) -> Answer:
    """Starts a search of the schedule now, whatever its policy and whether it is enabled or not. SpecError, NotFound.

    The timetable goes on as if nothing had been.
    """

    fresh = uuid7()
    with reading(house.engine) as session:
        fire_at = engine.now(session)

    def work(session: Session) -> dict[str, Any]:
        row = schedules.lock(session, schedule_id)
        known = schedules.fire_of_search(session, fresh)
        if known is not None:  # of this request, whose commit nobody has acknowledged
            return logic.fires_shown(session, [known])[0].model_dump(mode="json")
        plan = _plan_of_fire(session, row, fire_at)
        submission.check_gpus(house, plan)
        spec = plan.spec
        search = searches.create(
            session, id=fresh, name=spec.name, spec=plan.resolved(), spec_version=SPEC_VERSION, owner=spec.owner,
            tags=spec.tags, priority=spec.priority, schedule_id=row.id, fire_at=fire_at,
        )  # fmt: skip
        if not schedules.record_fire(session, row.id, fire_at, "fired", search_id=search.id, reason="Started by hand."):
            raise ApiError(409, "The schedule fires at this very moment; try again.", headers={"Retry-After": "1"})
        fire = schedules.fire_of_search(session, search.id)
        assert fire is not None
        return logic.fires_shown(session, [fire])[0].model_dump(mode="json")

    def store(session: Session) -> Answer:
        return once(session, f"POST schedules/{schedule_id}/run", key, None, 201, lambda: work(session))

    return retrying(house.engine, store, attempts=3)


def send_test(house: Service, schedule_id: str) -> Tests:
    """Queues a message to everybody whom the schedule tells. NotFound, and ApiError 409 where it tells nobody."""

    ids = [uuid7() for _ in range(MOST_TARGETS)]

    def work(session: Session) -> Tests:
        row = schedules.lock(session, schedule_id)
        if not row.notify:
            raise ApiError(409, "This schedule tells nobody: add web hooks or e-mail addresses first.")
        payload = {
            "event": "test", "schedule": {"id": row.id, "name": row.name},
            "message": f"A test of the messages of “{row.name}”.",
        }  # fmt: skip
        queued = [
            deliveries.add(
                session, row.id, id=fresh, channel=each["channel"], target=each["target"], event="test", payload=payload
            )
            for fresh, each in zip(ids, row.notify, strict=False)
        ]
        return Tests(items=[DeliveryOut.of(each) for each in queued])

    return retrying(house.engine, work, attempts=3)


def _columns(spec: ScheduleSpec) -> dict[str, Any]:
    found = {name: getattr(spec, name) for name in ScheduleSpec.model_fields}
    return found | {"notify": [target.model_dump(mode="json") for target in spec.notify]}


def _as_request(row: Schedule) -> dict[str, Any]:
    """The stored schedule as a user would write it."""
    found: dict[str, Any] = {name: getattr(row, name) for name in ScheduleSpec.model_fields}
    for name in ("start_at", "end_at"):
        found[name] = None if found[name] is None else found[name].isoformat()
    return found


def _with_secrets(given: Any, kept: Sequence[Mapping[str, Any]]) -> Any:
    """The targets with the secrets that are known of the same ones."""
    if not isinstance(given, list):
        return given
    secrets = {(each["channel"], each["target"]): each.get("secret") for each in kept}
    return [
        {**each, "secret": each.get("secret") or secrets.get((each.get("channel"), each.get("target")))}
        if isinstance(each, Mapping) and each.get("channel") == "webhook" and isinstance(each.get("target"), str)
        else each
        for each in given
    ]


def _timing(spec: ScheduleSpec, key: str, now: datetime) -> dict[str, Any]:
    """What is due next. SpecError for a schedule that never would be."""
    if not spec.enabled:
        return {"next_fire_at": None, "planned_at": None}
    rhythm = Rhythm(Timetable.parse(spec.cron, spec.zone), key, spec.jitter_seconds, spec.start_at, spec.end_at)
    planned = rhythm.next(now)
    if planned is None:
        raise SpecError.one("end_at", "Nothing of the timetable is left before it: the schedule would never fire.")
    return {"next_fire_at": rhythm.due(planned), "planned_at": planned}


def _note_passed_over(session: Session, row: Schedule, now: datetime) -> None:
    """Notes what had come by the old timetable and was still to be dealt with: another timetable begins after now."""
    if row.planned_at is None or row.planned_at > now:
        return
    times = [row.planned_at]
    with suppress(SpecError):  # of a zone that this machine does not know nobody can say what has come since
        until = now if row.end_at is None else min(now, row.end_at)
        times += islice(Timetable.parse(row.cron, row.zone).after(row.planned_at, until), MOST_NOTED)
    reason = "The schedule was changed while it was due."
    noted = {"schedule_id": row.id, "status": "skipped", "search_id": None, "reason": reason}
    schedules.record_fires(session, [{**noted, "fire_at": at} for at in times])


def _check_targets(house: Service, spec: ScheduleSpec, known: Collection[str]) -> None:
    """SpecError for web hooks without a secret and into private networks; those that are there already may stay."""
    problems = []
    allowed = hooks.listed(house.settings.hook_hosts)
    deadline = time.monotonic() + hooks.LOOK_UP_SECONDS  # of all look-ups together
    for index, target in enumerate(spec.notify):
        field = f"notify.{index}"
        if target.channel == "webhook":
            if target.secret is None:
                problems.append(Problem(f"{field}.secret", "A web hook needs a secret to sign with."))
            if target.target not in known and (why := _refused(target.target, allowed, deadline)):
                problems.append(Problem(f"{field}.target", why))
        if "improved" in target.events and not isinstance(spec.template.get("confirm"), Mapping):
            text = "Only a front that is confirmed with several seeds can be said to have improved: add `confirm`."
            problems.append(Problem(f"{field}.events", text))
    if problems:
        raise SpecError(problems)


def _refused(url: str, allowed: Collection[str], deadline: float) -> str | None:
    try:
        look_up = partial(hooks.resolved, seconds=deadline - time.monotonic())
        hooks.addresses(hooks.parse(url), allowed, look_up)
    except hooks.UnresolvedError:
        return None  # it may have an address when it is needed, and is checked again then
    except hooks.HookError as error:
        return str(error)
    return None


def _check_template(house: Service, spec: ScheduleSpec) -> None:
    """SpecError, fields below `template`, for a template whose fire would fail now."""
    try:
        with reading(house.engine) as session:
            plan = submission.check(session, _rendered(spec, engine.now(session) + timedelta(minutes=1)))
        submission.check_gpus(house, plan)
        if plan.spec.constraints:
            plan.check_constraints(house.costs.of(plan))
    except SpecError as error:
        raise error.under("template") from None


def _rendered(spec: ScheduleSpec, fire_at: datetime) -> dict[str, Any]:
    return schedule.render(spec.template, fire_at, spec.zone, priority=spec.priority, owner=spec.owner)


def _plan_of_fire(session: Session, row: Schedule, fire_at: datetime) -> SearchPlan:
    try:
        request = schedule.render(row.template, fire_at, row.zone, priority=row.priority, owner=row.owner)
        plan = submission.check(session, request)
    except SpecError as error:
        raise error.under("template") from None
    before = schedules.latest_result(session, row.id, before=fire_at)
    if before is None:
        return plan
    asked = schedule.wants_previous(row.template)
    return previous.with_previous(plan, Earlier(session, before.id), asked=asked)


def _told(session: Session, row: Schedule) -> dict[str, Any]:
    return logic.detail(session, row).model_dump(mode="json")
