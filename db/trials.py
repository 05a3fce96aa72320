"""Trials of a search and their epochs: written by its driver under the fence, read by everybody."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, insert, select, update
from sqlalchemy.orm import Session

from db import checks, events, searches
from db.clock import DatabaseTime
from db.epoch_rows import EpochReport as EpochReport
from db.epoch_rows import record_epochs as record_epochs
from db.epoch_rows import trained_seconds as trained_seconds
from db.errors import NotFound
from db.metrics import METRIC_COLUMNS, Metrics, metric_expression, split
from db.models import TRIAL_STATUSES, Architecture, Epoch, Trial
from db.paging import Cursor, Page, keyset
from db.paging import page as page_of
from db.search_rows import fence
from db.upserts import insert_into

FINAL_STATUSES = tuple(status for status in TRIAL_STATUSES if status != "running")
LONGEST_PAGE = 1000


def put_architecture(session: Session, key: str, *, backbone: str, document: Mapping[str, Any], label: str) -> None:
    """Keeps an architecture under its key, once."""
    values = {"key": key, "backbone": backbone, "document": dict(document), "label": label}
    statement = insert_into(session, Architecture).values(**checks.row(Architecture, values))
    session.execute(statement.on_conflict_do_nothing(index_elements=["key"]))


def add(
    session: Session,
    search_id: str,
    attempt: int,
    *,
    phase: str,
    architecture_key: str,
    seed: int,
    role: str,
    epochs_planned: int,
    label: str = "",
    params: int | None = None,
    macs: int | None = None,
    proposal: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    evaluation_key: str | None = None,
) -> Trial:
    """Starts a trial with the search's next number; the row that is there already if (phase, key, seed) has one.

    The architecture must have been put before. Raises Fenced.
    """
    given = {
        "search_id": search_id,
        "phase": phase,
        "architecture_key": architecture_key,
        "seed": seed,
        "role": role,
        "label": label,
        "epochs_planned": epochs_planned,
        "params": params,
        "macs": macs,
        "proposal": None if proposal is None else dict(proposal),
        "environment": None if environment is None else dict(environment),
        "evaluation_key": evaluation_key,
    }
    values = checks.row(Trial, given)
    fence(session, search_id, attempt)
    same = (Trial.search_id == search_id) & (Trial.phase == phase)
    same &= (Trial.architecture_key == architecture_key) & (Trial.seed == seed)
    known = session.scalars(select(Trial).where(same)).one_or_none()
    if known is not None:
        return known
    # nobody else adds between this and the insert: the fence holds the search's row
    number = session.scalar(select(func.coalesce(func.max(Trial.number), 0) + 1).where(Trial.search_id == search_id))
    trial = session.scalars(insert(Trial).values(**values, number=number).returning(Trial)).one()
    events.append(session, search_id, "trial.started", told(trial))
    return trial


def finish(
    session: Session,
    trial_id: str,
    attempt: int,
    *,
    status: str,
    metrics: Metrics | None = None,
    epochs: int | None = None,
    seconds: float | None = None,
    busy_seconds: float | None = None,
    error: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    reused_from: str | None = None,
    evaluation_key: str | None = None,
) -> Trial:
    """Ends a running trial, which is on no node any more. Metrics with a column of their own go there, the others into
    `metrics`.

    A trial that has ended already stays as it is, so a repeated call is safe. Raises NotFound, Fenced, and
    ValueError for a status that does not end a trial.
    """
    if status not in FINAL_STATUSES:
        raise ValueError(f"status: {status!r} is not one of {', '.join(FINAL_STATUSES)}")
    trial = get(session, trial_id)
    fence(session, trial.search_id, attempt)
    own, others = split(metrics or {}, METRIC_COLUMNS)
    values: dict[str, Any] = {**own, "metrics": others, "status": status, "node": None}
    given: dict[str, Any] = {
        "epochs": epochs,
        "seconds": seconds,
        "busy_seconds": busy_seconds,
        "reused_from": reused_from,
        "evaluation_key": evaluation_key,
    }
    given["error"] = None if error is None else dict(error)
    given["environment"] = None if environment is None else dict(environment)
    values |= {name: item for name, item in given.items() if item is not None}
    ended = _update(session, trial_id, values | {"finished_at": DatabaseTime()}, Trial.status == "running")
    if ended is None:
        return get(session, trial_id)
    events.append(session, ended.search_id, "trial.finished", told(ended))
    return ended


def record_epoch(session: Session, trial_id: str, attempt: int, *, epoch: int, metrics: Metrics) -> None:
    """Records one epoch of a running trial; see `record_epochs`. Raises NotFound and Fenced."""
    search_id = get(session, trial_id).search_id
    record_epochs(session, search_id, attempt, [EpochReport(trial_id, epoch, metrics)])


def get(session: Session, trial_id: str) -> Trial:
    """The trial. Raises NotFound."""
    trial = session.scalars(select(Trial).where(Trial.id == trial_id), execution_options=_FRESH).one_or_none()
    if trial is None:
        raise NotFound("trial", trial_id)
    return trial


def present(session: Session, trial_id: str | None) -> str | None:
    """`trial_id` if there is such a trial now, else None."""
    return session.scalar(select(Trial.id).where(Trial.id == trial_id))


def architectures(session: Session, keys: Sequence[str]) -> dict[str, Architecture]:
    """The architectures that are known of these, by key."""
    found: dict[str, Architecture] = {}
    for start in range(0, len(keys), 500):
        part = session.scalars(select(Architecture).where(Architecture.key.in_(keys[start : start + 500])))
        found |= {row.key: row for row in part}
    return found


def page(
    session: Session,
    search_id: str,
    *,
    status: str | Sequence[str] | None = None,
    phase: str | None = None,
    role: str | None = None,
    sort: str = "number",
    descending: bool = False,
    after: Cursor | None = None,
    limit: int = 100,
) -> Page[Trial]:
    """A page of trials, sorted by a column or any metric of theirs; those without a value come last.

    The cursor is (value of the sort, number). Raises NotFound for an unknown search, ValueError for a bad argument.
    """
    if limit > LONGEST_PAGE:
        raise ValueError(f"limit: at most {LONGEST_PAGE}, not {limit}")
    statement = select(Trial).where(Trial.search_id == search_id)
    if status is not None:
        statement = statement.where(Trial.status.in_(_statuses(status)))
    if phase is not None:
        statement = statement.where(Trial.phase == phase)
    if role is not None:
        statement = statement.where(Trial.role == role)
    column = metric_expression(sort)
    number = Trial.number.expression
    whole = statement.add_columns(column.label("sorted_by"))
    found = session.execute(keyset(whole, column, number, descending=descending, after=after, limit=limit)).all()
    if not found:
        searches.get(session, search_id)
    rows = page_of(list(found), limit, lambda row: (row.sorted_by, row.Trial.number))
    return Page([row.Trial for row in rows.items], rows.next)


def all_of(session: Session, search_id: str, *, phase: str | None = None) -> list[Trial]:
    """Every trial of a search in the order of their numbers, to rebuild a strategy from."""
    statement = select(Trial).where(Trial.search_id == search_id).order_by(Trial.number)
    return list(session.scalars(statement if phase is None else statement.where(Trial.phase == phase)))


def epochs(session: Session, trial_id: str) -> list[Epoch]:
    """The epochs of a trial in order. Raises NotFound."""
    found = list(session.scalars(select(Epoch).where(Epoch.trial_id == trial_id).order_by(Epoch.epoch)))
    if not found:
        get(session, trial_id)
    return found


def epochs_of_search(session: Session, search_id: str, numbers: Collection[int]) -> list[Epoch]:
    """The epochs with these numbers of all trials of a search, by trial and epoch, to rebuild rungs from."""
    statement = select(Epoch).where(Epoch.search_id == search_id, Epoch.epoch.in_(sorted(numbers)))
    return list(session.scalars(statement.order_by(Epoch.trial_id, Epoch.epoch)))


_FRESH = {"populate_existing": True, "synchronize_session": False}


def _update(
    session: Session, trial_id: str, values: Mapping[str, Any], *conditions: ColumnElement[bool]
) -> Trial | None:
    statement = update(Trial).where(Trial.id == trial_id, *conditions).values(checks.row(Trial, values))
    return session.scalars(statement.returning(Trial), execution_options=_FRESH).one_or_none()


def _statuses(status: str | Sequence[str]) -> list[str]:
    wanted = [status] if isinstance(status, str) else list(status)
    for word in wanted:
        if word not in TRIAL_STATUSES:
            raise ValueError(f"status: {word!r} is not one of {', '.join(TRIAL_STATUSES)}")
    return wanted


def told(trial: Trial) -> dict[str, Any]:
    """What an event says of a trial: enough to draw its point and its row without another request."""
    said: dict[str, Any] = {"trial_id": trial.id}
    names = (
        "number",
        "phase",
        "status",
        "role",
        "label",
        "architecture_key",
        "epochs_planned",
        "params",
        "macs",
        "top1",
        "seconds",
    )
    for name in names:
        if getattr(trial, name) is not None:
            said[name] = getattr(trial, name)
    if trial.error is not None:
        said["error"] = {name: trial.error.get(name) for name in ("kind", "message")}
    return said
