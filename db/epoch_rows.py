"""What trials report epoch by epoch; `db.trials` offers these functions too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from db import checks, events
from db.metrics import EPOCH_COLUMNS, Metrics, split
from db.models import Epoch, Trial
from db.search_rows import fence
from db.upserts import insert_into


@dataclass(frozen=True)
class EpochReport:
    """One epoch of one trial, as the driver got it. `metrics` without a column of their own are kept as JSON.

    `busy_seconds`: how long the trial has held its slot up to now, if that is known.
    """

    trial_id: str
    epoch: int
    metrics: Metrics
    busy_seconds: float | None = None


def record_epochs(session: Session, search_id: str, attempt: int, reports: Sequence[EpochReport]) -> None:
    """Records epochs of trials of one search; a repeated (trial, epoch) replaces its row. Raises Fenced.

    Keeps `epochs` of a running trial at the last one reported and writes one event per report.
    """
    fence(session, search_id, attempt)
    if not reports:
        return
    last = {(report.trial_id, report.epoch): report for report in reports}  # one statement cannot upsert a row twice
    rows = [checks.row(Epoch, _epoch_values(search_id, report)) for report in last.values()]
    statement = insert_into(session, Epoch)
    replaced = {name: statement.excluded[name] for name in (*EPOCH_COLUMNS, "metrics", "at")}
    keys = ["trial_id", "epoch"]
    session.execute(statement.on_conflict_do_update(index_elements=keys, set_=replaced), rows)
    for trial_id, epoch in sorted(dict(sorted(last)).items()):
        values: dict[str, Any] = {"epochs": epoch}
        busy = last[trial_id, epoch].busy_seconds
        if busy is not None:
            values["busy_seconds"] = busy
        session.execute(
            update(Trial)
            .where(Trial.id == trial_id, Trial.status == "running")
            .values(checks.row(Trial, values))
            .execution_options(synchronize_session=False)
        )
    events.append_all(session, search_id, [("trial.epoch", _epoch_told(row)) for row in rows])


def trained_seconds(session: Session, trial_id: str, epoch: int) -> float:
    """How long the trial's epochs up to this one took, training and validation."""
    total = select(func.sum(Epoch.seconds)).where(Epoch.trial_id == trial_id, Epoch.epoch <= epoch)
    return float(session.scalar(total) or 0.0)


def _epoch_values(search_id: str, report: EpochReport) -> dict[str, Any]:
    own, others = split(report.metrics, EPOCH_COLUMNS)
    columns: dict[str, Any] = dict.fromkeys(EPOCH_COLUMNS) | own
    place = {"trial_id": report.trial_id, "epoch": report.epoch, "search_id": search_id}
    return columns | place | {"metrics": others}


def _epoch_told(row: Mapping[str, Any]) -> dict[str, Any]:
    shown = ("trial_id", "epoch", "top1", "val_loss", "train_loss")
    return {name: row[name] for name in shown if row[name] is not None}
