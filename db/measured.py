"""What a search has measured, for comparing it with another: plain values of its trials that have a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import trials
from db.metrics import metric_expression
from db.models import RESULT_STATUSES, Evaluation, Search, Trial


@dataclass(frozen=True)
class Measured:
    """A finished or reused trial. key: of its architecture. epochs: that it was to be trained for. values: of the
    metrics asked for, in their units. brought: a confirmation of what the search before had confirmed, which this one
    has not chosen."""

    trial_id: str
    key: str
    label: str
    phase: str
    role: str
    seed: int
    epochs: int
    params: int
    macs: int
    values: tuple[float, ...]
    brought: bool = False


def measured(session: Session, search_id: str, metrics: Sequence[str]) -> list[Measured]:
    """The trials of a search that have every metric, by number."""
    columns = [metric_expression(name) for name in metrics]
    statement = select(
        Trial.id, Trial.architecture_key, Trial.label, Trial.phase, Trial.role, Trial.seed, Trial.epochs_planned,
        Trial.params, Trial.macs, Trial.proposal["by"].as_string(), *columns,
    )  # fmt: skip
    statement = statement.where(Trial.search_id == search_id, Trial.status.in_(RESULT_STATUSES))
    statement = statement.where(*(column.is_not(None) for column in columns)).order_by(Trial.number)
    return [
        Measured(
            trial_id, key, label, phase, role, seed, epochs, params or 0, macs or 0, tuple(map(float, values)),
            phase == "confirm" and by == "previous",
        )
        for trial_id, key, label, phase, role, seed, epochs, params, macs, by, *values in session.execute(statement)
    ]  # fmt: skip


def data_fingerprint(session: Session, search_id: str) -> str | None:
    """Of the data that the search's trials were trained on; None where no trial says so.

    Where they were trained on several (the search was taken up again on data that had grown) it is a text that no other
    search has: its results are those of no one state of the data.
    """
    statement = select(Evaluation.dataset_fingerprint).join(Trial, Trial.evaluation_key == Evaluation.key).distinct()
    found = list(session.scalars(statement.where(Trial.search_id == search_id).limit(2)))
    return f"several, {search_id}" if len(found) > 1 else next(iter(found), None)


def conditions(session: Session, search_id: str, *, confirm: bool) -> dict[str, Any] | None:
    """What beside the architecture decided the result of the search's newest confirmation, or of its newest other
    trial; None where no trial says so."""
    statement = select(Evaluation.conditions).join(Trial, Trial.evaluation_key == Evaluation.key)
    wanted = Trial.phase == "confirm" if confirm else Trial.phase != "confirm"
    statement = statement.where(Trial.search_id == search_id, wanted)
    return session.scalar(statement.order_by(Trial.number.desc()).limit(1))


def timed_on(session: Session, search_id: str) -> str | None:
    """The device that the search's latencies are of; None where nothing was timed."""
    device = Trial.environment["device"].as_string()
    statement = select(device).where(Trial.search_id == search_id, Trial.latency_ms.is_not(None))
    return session.scalar(statement.order_by(Trial.number).limit(1))


@dataclass(frozen=True)
class Earlier:
    """A search to start from, as the domain asks for it."""

    session: Session
    search_id: str

    def fingerprint(self) -> str | None:
        return data_fingerprint(self.session, self.search_id)

    def conditions(self, *, confirm: bool) -> dict[str, Any] | None:
        return conditions(self.session, self.search_id, confirm=confirm)

    def device(self) -> str | None:
        return timed_on(self.session, self.search_id)

    def bounds(self) -> list[dict[str, Any]] | None:
        """The rows of the search's scaling; None before its start."""
        found = self.session.scalar(select(Search.bounds).where(Search.id == self.search_id))
        return None if found is None else list(found["objectives"])

    def everything(self, metrics: Sequence[str]) -> list[Measured]:
        """Every trial with a result, confirmations too."""
        return measured(self.session, self.search_id, metrics)

    def results(self, metrics: Sequence[str]) -> list[Measured]:
        """Of the search proper: confirmations are left out."""
        return [row for row in measured(self.session, self.search_id, metrics) if row.phase != "confirm"]

    def confirmed(self, metrics: Sequence[str]) -> list[Measured]:
        """Confirmations of what the search chose itself."""
        return [row for row in measured(self.session, self.search_id, metrics) if row.phase == "confirm"
                and not row.brought]  # fmt: skip

    def documents(self, keys: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Architectures by key."""
        return {key: row.document for key, row in trials.architectures(self.session, keys).items()}
