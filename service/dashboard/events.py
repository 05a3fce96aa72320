"""The events of a search in words, newest first."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import searches, trials
from db.models import Event, Trial
from service import formats
from service.strips import make_strip

PER_PAGE = 40
TOLD = ("trial.epoch", "search.progress")
"""Too many and too small to be told one by one."""


@dataclass(frozen=True)
class Entry:
    """kind: the event's. words: what happened. trial: the number it is about. bad: whether something went wrong."""

    seq: int
    at: datetime
    kind: str
    words: str
    trial: int | None
    bad: bool


@dataclass(frozen=True)
class Entries:
    """before: where older ones begin, None for none."""

    entries: list[Entry]
    before: int | None


def latest(session: Session, search_id: str, before: int | None) -> Entries:
    """The newest events below number `before`. Raises NotFound."""
    searches.get(session, search_id)
    statement = select(Event).where(Event.search_id == search_id, Event.kind.not_in(TOLD))
    if before is not None:
        statement = statement.where(Event.seq < before)
    found = list(session.scalars(statement.order_by(Event.seq.desc()).limit(PER_PAGE + 1)))
    more = len(found) > PER_PAGE
    shown = found[:PER_PAGE]
    words = _placements(session, search_id, {event.data["number"] for event in shown if "number" in event.data})
    return Entries([_entry(event, words) for event in shown], shown[-1].seq if more else None)


def _placements(session: Session, search_id: str, numbers: Set[int]) -> dict[int, str]:
    """What the trials with these numbers hold, in the words of their strips."""
    statement = select(Trial).where(Trial.search_id == search_id, Trial.number.in_(numbers))
    found = list(session.scalars(statement))
    known = trials.architectures(session, list({trial.architecture_key for trial in found}))
    return {trial.number: make_strip(known[trial.architecture_key].document).words for trial in found}


def _entry(event: Event, placements: Mapping[int, str]) -> Entry:
    data = event.data
    number: int | None = data.get("number")
    if number is not None and number in placements:
        data = data | {"label": placements[number]}
    return Entry(event.seq, event.at, event.kind, _words(event.kind, data), number, _bad(event.kind, data))


def _bad(kind: str, data: dict[str, Any]) -> bool:
    if data.get("status") == "stopped":  # early, as the search has asked for
        return False
    return data.get("status") == "failed" or bool(data.get("error")) or kind.endswith((".failed", ".corrupt", ".lost"))


def _words(kind: str, data: dict[str, Any]) -> str:
    if kind in ("trial.started", "trial.finished"):
        return _trial_words(kind, data)
    if kind == "search.status":
        error = data.get("error")
        return f"The search is {data['status']}{f': {error}' if error else ''}"
    if kind == "search.command":
        return {"pause": "Asked to pause", "cancel": "Asked to cancel"}.get(data.get("command") or "", "Asked to go on")
    if kind == "search.created":
        return "Submitted"
    if kind == "search.changed":
        return "Changed: " + ", ".join(f"{name.replace('_', ' ')} = {value}" for name, value in data.items())
    return str(data.get("message") or kind.replace(".", " ").replace("_", " "))


def _trial_words(kind: str, data: dict[str, Any]) -> str:
    role = {"baseline": "baseline, ", "control": "control, "}.get(data.get("role", ""), "")
    name = f"Trial {data['number']}" if "number" in data else "A trial"
    about = f" ({role}{data['label']})" if data.get("label") else ""
    if kind == "trial.started":
        return f"{name} started{about}"
    error = data.get("error") or {}
    result = f": {formats.percent(data['top1'])} top-1" if data.get("top1") is not None else ""
    why = f": {error['message']}" if error.get("message") else result
    return f"{name} {data.get('status', 'ended')}{about}{why}"
