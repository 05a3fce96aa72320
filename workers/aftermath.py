"""What follows when a schedule's search has ended: a comparison, messages, and room for the next ones.

Runs in a thread of the dispatcher, so that neither a slow receiver nor a long comparison keeps a search waiting. Any
number of dispatchers may do so: fires and messages are taken with a lock, and a message that its sender did not finish
is taken again.
"""

from __future__ import annotations

import threading
from typing import Any
from urllib.parse import urlsplit

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db import deliveries, schedules, searches, settling
from db.engine import reading, retrying
from db.errors import Conflict, DatabaseUnavailable, NotFound
from db.measured import Earlier
from db.models import Fire, Schedule, Search
from search import progress_report
from workers.messages import Message, UndeliveredError, send
from workers.settings import WorkerSettings

ROUND_SECONDS = 2.0
HOLD_SECONDS = 120.0
"""For how long a message is its sender's: over what all attempts at its addresses may take."""
FIRST_RETRY_SECONDS = 10.0
LONGEST_RETRY_SECONDS = 3600.0
MOST_ATTEMPTS = 10
MOST_AT_ONCE = 100

log = structlog.get_logger()


class Aftermath:
    """Looks every ROUND_SECONDS, from `start` to `stop`."""

    def __init__(self, engine: Engine, settings: WorkerSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="aftermath", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """A message that is being sent is left to its end; another dispatcher takes it again if that never comes."""
        self._ended.set()

    def _work(self) -> None:
        while not self._ended.is_set():
            try:
                self.round()
            except DatabaseUnavailable as error:
                log.warning("aftermath.database_away", error=str(error))
            except Exception:  # a mistake here must not end the thread: the next fire has nothing to do with it
                log.exception("aftermath.failed")
            self._ended.wait(ROUND_SECONDS)

    def round(self) -> None:
        """Settles what has ended and sends what is due. Raises DatabaseUnavailable."""
        with reading(self._engine) as session:
            ended, due = settling.ended(session), deliveries.anything_due(session)
        for fire_id in ended:
            self._settle(fire_id)
        for _ in range(MOST_AT_ONCE):
            if self._ended.is_set() or not (due or ended) or not self._send_next():
                return

    def _settle(self, fire_id: str) -> None:
        try:
            schedule_id = retrying(self._engine, lambda session: settle(session, fire_id))
        except DatabaseUnavailable:
            raise
        except Exception:  # one fire that cannot be told of must not hold up the others, nor come again for ever
            log.exception("aftermath.not_settled", fire=fire_id)
            retrying(self._engine, lambda session: settling.settle(session, fire_id, None))
            return
        if schedule_id is not None:
            self._make_room(schedule_id)

    def _make_room(self, schedule_id: str) -> None:
        """Deletes the schedule's searches beyond those that it keeps, one transaction each."""
        with reading(self._engine) as session:
            try:
                keep = schedules.get(session, schedule_id).keep
            except NotFound:
                return
            gone = [] if keep is None else settling.beyond_limit(session, schedule_id, keep)
        for search_id in gone:
            try:
                retrying(self._engine, lambda session, one=search_id: searches.delete(session, one))  # type: ignore[misc]
            except (NotFound, Conflict):  # somebody was quicker, or takes it up again
                continue
            log.info("schedule.search_deleted", schedule=schedule_id, search=search_id)

    def _send_next(self) -> bool:
        message = retrying(self._engine, take_message)
        if message is None:
            return False
        parcel, attempts = message
        where = urlsplit(parcel.target).hostname if parcel.channel == "webhook" else None
        told: dict[str, Any] = {"delivery": parcel.id, "channel": parcel.channel, "about": parcel.event, "host": where}
        try:
            send(parcel, self._settings)
        except UndeliveredError as error:
            again = None if error.lasting or attempts >= MOST_ATTEMPTS else retry_seconds(attempts)
            reason = str(error)
            retrying(self._engine, lambda session: deliveries.not_sent(session, parcel.id, reason, again))
            log.warning("message.not_sent", **told, attempts=attempts, error=reason, again_in=again)
        except Exception as error:  # one message that cannot be written must not hold up the others
            name = type(error).__name__
            retrying(self._engine, lambda session: deliveries.not_sent(session, parcel.id, f"It broke: {name}.", None))
            log.exception("message.broken", **told)
        else:
            retrying(self._engine, lambda session: deliveries.sent(session, parcel.id))
            log.info("message.sent", **told, attempts=attempts)
        return True


def retry_seconds(attempts: int) -> float:
    """How long to wait after so many failed attempts: 10 s, 30 s, 90 s, … up to an hour."""
    return float(min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 3.0 ** (attempts - 1)))


def take_message(session: Session) -> tuple[Message, int] | None:
    """The next message with its secret, and which attempt this is; None when none is due."""
    found = deliveries.take(session, HOLD_SECONDS)
    if found is None:
        return None
    notify = schedules.get(session, found.schedule_id).notify
    secrets = [t.get("secret") for t in notify if (t["channel"], t["target"]) == (found.channel, found.target)]
    secret = secrets[0] if secrets else None
    message = Message(found.id, found.channel, found.target, found.event, found.payload, secret)
    return message, found.attempts


def settle(session: Session, fire_id: str) -> str | None:
    """Compares a fire's search with the one before and queues the messages, all or nothing; the schedule's id.

    None when another dispatcher has it.
    """
    taken = settling.take(session, fire_id)
    if taken is None:
        return None
    fire, schedule, search = taken
    told = _compared(session, fire, search)
    settling.settle(session, fire_id, told)
    for event in _events(search, told):
        for target in schedule.notify:
            if event in target["events"]:
                deliveries.add(
                    session, schedule.id, channel=target["channel"], target=target["target"], event=event,
                    payload=_payload(event, fire, schedule, search, told),
                )  # fmt: skip
    return schedule.id


def _compared(session: Session, fire: Fire, search: Search) -> dict[str, Any] | None:
    before = schedules.latest_result(session, fire.schedule_id, before=fire.fire_at)
    if before is None or search.status != "succeeded":
        return None
    return progress_report.report(Earlier(session, search.id), Earlier(session, before.id))


def _events(search: Search, told: dict[str, Any] | None) -> list[str]:
    """What is told of a search's end; cancelled ones were ended by a person or by the next fire."""
    if search.status == "failed":
        return ["failed"]
    if search.status != "succeeded":
        return []
    moved = told is not None and told["comparable"] and told["moved"]["verdict"] == "improved"
    return ["finished", "improved"] if moved else ["finished"]


def _payload(event: str, fire: Fire, schedule: Schedule, search: Search, told: dict[str, Any] | None) -> dict[str, Any]:
    words = {
        "finished": f"The search “{search.name}” has finished.",
        "failed": f"The search “{search.name}” has failed.",
        "improved": f"The search “{search.name}” has moved the front forward.",
    }
    error = None if search.error is None else {name: search.error.get(name) for name in ("kind", "message")}
    comparison = None
    if told is not None:
        names = ("comparable", "reason", "data_changed", "hypervolume", "reference_point", "moved", "entered", "left",
                 "gained", "lost")  # fmt: skip
        comparison = {name: told[name] for name in names if name in told}
        comparison["summary"] = progress_report.sentence(told)
    return {
        "event": event,
        "message": words[event],
        "schedule": {"id": schedule.id, "name": schedule.name},
        "fire": {"id": fire.id, "fire_at": fire.fire_at.isoformat()},
        "search": {
            "id": search.id, "name": search.name, "status": search.status, "error": error,
            "hypervolume": search.hypervolume,
        },
        "comparison": comparison,
    }  # fmt: skip
