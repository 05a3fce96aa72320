"""What decides how long files of trials are kept: read in bulk for whoever tidies the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from db.engine import now
from db.metrics import metric_expression
from db.models import FINISHED_STATUSES, RESULT_STATUSES, Artifact, Search, Trial

PART = 500
"""Values in one statement."""


@dataclass(frozen=True)
class TrialState:
    """age: seconds since the trial ended; None while it runs. over: whether its search has ended, so that nothing
    goes on with it by itself."""

    id: str
    search_id: str
    status: str
    age: float | None
    over: bool

    @property
    def has_result(self) -> bool:
        return self.status in RESULT_STATUSES


def existing(session: Session, search_ids: Iterable[str]) -> set[str]:
    """Those of the searches that there are."""
    return {row for part in _parts(search_ids) for row in session.scalars(select(Search.id).where(Search.id.in_(part)))}


def states(session: Session, trial_ids: Iterable[str]) -> dict[str, TrialState]:
    """The trials that there are of these, by id."""
    moment = now(session)
    found = {}
    for part in _parts(trial_ids):
        statement = select(Trial.id, Trial.search_id, Trial.status, Trial.finished_at, Search.status.label("searches"))
        for row in session.execute(statement.join(Search).where(Trial.id.in_(part))):
            age = None if row.finished_at is None else (moment - row.finished_at).total_seconds()
            over = row.searches in FINISHED_STATUSES
            found[row.id] = TrialState(row.id, row.search_id, row.status, age, over)
    return found


def artifacts_of(session: Session, trial_ids: Iterable[str]) -> list[Artifact]:
    """The files that are known of these trials."""
    found: list[Artifact] = []
    for part in _parts(trial_ids):
        found += session.scalars(select(Artifact).where(Artifact.trial_id.in_(part)))
    return found


def holders(session: Session, paths: Iterable[str]) -> dict[str, str]:
    """The trial that each of the files belongs to, of those that belong to one."""
    found: dict[str, str] = {}
    for part in _parts(paths):
        for path, trial_id in session.execute(select(Artifact.path, Artifact.trial_id).where(Artifact.path.in_(part))):
            found[path] = trial_id
    return found


def reuses(session: Session, trial_ids: Iterable[str]) -> list[tuple[str, str, str]]:
    """(trial that was trained, trial that took its result over, that one's search) for each of these trials."""
    found: list[tuple[str, str, str]] = []
    for part in _parts(trial_ids):
        statement = select(Trial.reused_from, Trial.id, Trial.search_id).where(Trial.reused_from.in_(part))
        found += [(str(source), reuser, search_id) for source, reuser, search_id in session.execute(statement)]
    return found


def results(session: Session, search_id: str, metrics: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """The metrics of the trials that have a result and all of them, by trial."""
    columns = [metric_expression(name) for name in metrics]
    statement = select(Trial.id, *columns).where(Trial.search_id == search_id, Trial.status.in_(RESULT_STATUSES))
    statement = statement.where(*(column.is_not(None) for column in columns))
    return {row[0]: tuple(row[1:]) for row in session.execute(statement)}


def marked_trials(session: Session, search_id: str) -> set[str]:
    """The baseline of a search, and what was trained to confirm its front."""
    marked: ColumnElement[bool] = (Trial.role == "baseline") | (Trial.phase == "confirm")
    return set(session.scalars(select(Trial.id).where(Trial.search_id == search_id, marked)))


def _parts(values: Iterable[str]) -> Iterator[Sequence[str]]:
    """The values without doubles, in pieces that a statement can hold."""
    wanted = sorted(set(values))
    return (wanted[start : start + PART] for start in range(0, len(wanted), PART))
