"""What follows when a schedule's search has ended: a comparison, messages, and room for the next ones.

Runs in threads of the dispatcher, so that neither a slow receiver nor a long comparison keeps a search waiting. Any
number of dispatchers may do so: fires and messages are taken with a lock, and a message that its sender did not finish
is taken again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db import deliveries, schedules, searches, settling
from db.engine import reading, retrying
from db.errors import Conflict, DatabaseUnavailable, NotFound
from db.measured import Earlier
from db.models import Search
from search import progress_report
from workers import announcements
from workers.messages import Message, UndeliveredError, send
from workers.settings import WorkerSettings

ROUND_SECONDS = 2.0
HOLD_SECONDS = 120.0
"""For how long a message is its sender's: over what all attempts at its addresses may take."""
FIRST_RETRY_SECONDS = 10.0
LONGEST_RETRY_SECONDS = 3600.0
MOST_ATTEMPTS = 10
SENDERS = 3
"""Threads that call web hooks, so that a receiver that takes its time keeps no other waiting. Letters have their own:
a mail server may take longer, and is one for all of them."""

log = structlog.get_logger()


class Aftermath:
    """Looks every ROUND_SECONDS, from `start` to `stop`: one thread settles, SENDERS of them call web hooks, and one
    hands letters over."""

    def __init__(self, engine: Engine, settings: WorkerSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._ended = threading.Event()
        works: list[tuple[str, Callable[[], None]]] = [("aftermath", self.settle_ended)]
        works += [(f"hooks-{n}", partial(self.send_due, "webhook")) for n in range(SENDERS)]
        works += [("letters", partial(self.send_due, "email"))]
        self._threads = [
            threading.Thread(target=self._repeat, args=(work,), name=name, daemon=True) for name, work in works
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """A message that is being sent is left to its end; another dispatcher takes it again if that never comes."""
        self._ended.set()

    def join(self, seconds: float) -> bool:
        """After `stop`: waits for what is under way; whether all of it has come to its end."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _repeat(self, work: Callable[[], None]) -> None:
        while not self._ended.is_set():
            try:
                work()
            except DatabaseUnavailable as error:
                log.warning("aftermath.database_away", error=str(error))
            except Exception:  # a mistake here must not end the thread: the next fire has nothing to do with it
                log.exception("aftermath.failed")
            self._ended.wait(ROUND_SECONDS)

    def settle_ended(self) -> None:
        """Compares what has ended, queues its messages and makes room. Raises DatabaseUnavailable."""
        with reading(self._engine) as session:
            ended = settling.ended(session)
        for fire_id in ended:
            self._settle(fire_id)

    def send_due(self, channel: str | None = None) -> None:
        """Sends what is due by a channel (None: by any), one message after the other. Raises DatabaseUnavailable."""
        with reading(self._engine) as session:
            due = deliveries.anything_due(session, channel)
        while due and not self._ended.is_set():
            due = self._send_next(channel)

    def _settle(self, fire_id: str) -> None:
        told = self._compared(fire_id)
        try:
            schedule_id = retrying(self._engine, lambda session: settle(session, fire_id, told))
        except DatabaseUnavailable:
            raise
        except Exception:  # one fire that cannot be told of must not hold up the others, nor come again for ever
            log.exception("aftermath.not_settled", fire=fire_id)
            retrying(self._engine, lambda session: settling.settle(session, fire_id, None))
            return
        if schedule_id is not None:
            self._make_room(schedule_id)

    def _compared(self, fire_id: str) -> dict[str, Any] | None:
        """The comparison of a fire's search, made while others write; None where there is none."""
        try:
            with reading(self._engine) as session:
                return compared(session, fire_id)
        except DatabaseUnavailable:
            raise
        except Exception:  # that the search has ended is to be told in any case
            log.exception("aftermath.not_compared", fire=fire_id)
            return None

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

    def _send_next(self, channel: str | None) -> bool:
        message = retrying(self._engine, lambda session: take_message(session, channel))
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
            if error.silent:
                hook = parcel.channel == "webhook"  # all letters go to one mail server, so it is asked again soon
                seconds = again if hook and again is not None else FIRST_RETRY_SECONDS
                target = parcel.target if hook else None
                retrying(self._engine, lambda session: deliveries.postpone(session, parcel.channel, target, seconds))
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


def take_message(session: Session, channel: str | None) -> tuple[Message, int] | None:
    """The next message with its secret, and which attempt this is; None when none is due."""
    found = deliveries.take(session, HOLD_SECONDS, channel)
    if found is None:
        return None
    notify = schedules.get(session, found.schedule_id).notify
    secrets = [t.get("secret") for t in notify if (t["channel"], t["target"]) == (found.channel, found.target)]
    secret = secrets[0] if secrets else None
    message = Message(found.id, found.channel, found.target, found.event, found.payload, secret)
    return message, found.attempts


def settle(session: Session, fire_id: str, told: Mapping[str, Any] | None) -> str | None:
    """Keeps the comparison of a fire's search and queues the messages, all or nothing; the schedule's id.

    None when another dispatcher has it.
    """
    taken = settling.take(session, fire_id)
    if taken is None:
        return None
    fire, schedule, search = taken
    settling.settle(session, fire_id, told)
    for event in _events(search, told):
        announcements.tell(session, schedule, announcements.of_search(event, fire, schedule, search, told))
    return schedule.id


def compared(session: Session, fire_id: str) -> dict[str, Any] | None:
    """A fire's search beside the newest successful one before it; None without one, or with nothing to settle."""
    found = settling.look(session, fire_id)
    if found is None:
        return None
    fire, search = found
    before = schedules.latest_result(session, fire.schedule_id, before=fire.fire_at)
    if before is None or search.status != "succeeded":
        return None
    return progress_report.report(Earlier(session, search.id), Earlier(session, before.id))


def _events(search: Search, told: Mapping[str, Any] | None) -> list[str]:
    """What is told of a search's end; cancelled ones were ended by a person or by the next fire."""
    if search.status == "failed":
        return ["failed"]
    if search.status != "succeeded":
        return []
    moved = told is not None and told["comparable"] and told["moved"]["verdict"] == "improved"
    return ["finished", "improved"] if moved else ["finished"]
