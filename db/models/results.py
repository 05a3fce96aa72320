"""What training has found out: architectures, evaluations shared between searches, trials, epochs, artifacts."""

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import DOCUMENT, Base, Big, Born, Digest, Document, Identifier, Name, PrimaryId, Time, Word, one_of
from db.models.searches import PHASES

TRIAL_STATUSES = ("running", "succeeded", "stopped", "failed", "cancelled", "reused")
RESULT_STATUSES = ("succeeded", "reused")
ROLES = ("explore", "baseline", "control", "confirm")
EVALUATION_STATUSES = ("claimed", "finished")


def _index_of_present(name: str, column: str) -> Index:
    """An index over the rows that have a value, for foreign keys that are mostly NULL."""
    where = text(f"{column} IS NOT NULL")
    return Index(name, column, postgresql_where=where, sqlite_where=where)


class Architecture(Base):
    """A backbone with modules at sites, in canonical form; `key` is its SHA-256."""

    __tablename__ = "architectures"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    backbone: Mapped[Name]
    document: Mapped[Document]
    label: Mapped[str] = mapped_column(Text)


class Evaluation(Base):
    """One result that any search may reuse; `key` is the SHA-256 of everything that decides it.

    While somebody trains it, it is claimed by that search until `claim_expires_at` (database clock).
    """

    __tablename__ = "evaluations"
    __table_args__ = (
        one_of("status", EVALUATION_STATUSES),
        CheckConstraint("status <> 'finished' OR results IS NOT NULL", name="finished_has_results"),
        Index("ix_evaluations_architecture_key", "architecture_key"),
        _index_of_present("ix_evaluations_claimed_by", "claimed_by"),
        _index_of_present("ix_evaluations_trial_id", "trial_id"),
    )

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    architecture_key: Mapped[str] = mapped_column(String(64), ForeignKey("architectures.key"))
    dataset_fingerprint: Mapped[str] = mapped_column(String(128))
    conditions: Mapped[Document]
    epochs: Mapped[int]
    seed: Mapped[Big]
    status: Mapped[Word] = mapped_column(default="claimed")
    claimed_by: Mapped[str | None] = mapped_column(String(36), ForeignKey("searches.id", ondelete="SET NULL"))
    claim_expires_at: Mapped[Time | None]
    results: Mapped[Document | None]
    trial_id: Mapped[str | None] = mapped_column(String(36), ForeignKey("trials.id", ondelete="SET NULL"))
    created_at: Mapped[Born]
    finished_at: Mapped[Time | None]


class Trial(Base):
    """One architecture, trained (or reused) once with one seed for one phase of one search.

    Accuracies are fractions, `loss` that of validation, `latency_ms` in milliseconds, `macs` multiply-adds of one
    forward pass; metrics without a column of their own are in `metrics`. `seconds` is the time of training and
    evaluation, `busy_seconds` the time that the trial has held a slot, failed attempts included. `node` is the Ray node
    it runs on now; `retried` counts by class the failures after which it was started again, `retries` all of them;
    `deaths` holds how often its process has died since it last saved more epochs, and how many there were at most.
    A stopped trial has the metrics of its last epoch, and why it was stopped as its `error`.
    """

    __tablename__ = "trials"
    __table_args__ = (
        one_of("status", TRIAL_STATUSES),
        one_of("phase", PHASES),
        CheckConstraint("epochs >= 0 AND epochs_planned >= 0", name="epochs_range"),
        UniqueConstraint("search_id", "number"),
        UniqueConstraint("search_id", "phase", "architecture_key", "seed"),
        Index("ix_trials_top1", "search_id", "status", "top1", "macs"),
        Index("ix_trials_macs", "search_id", "macs"),
        Index("ix_trials_front", "search_id", "number", "phase", "status", "top1", "macs"),
        Index("ix_trials_architecture_key", "architecture_key"),
        _index_of_present("ix_trials_reused_from", "reused_from"),
    )

    id: Mapped[PrimaryId]
    search_id: Mapped[str] = mapped_column(String(36), ForeignKey("searches.id", ondelete="CASCADE"))
    number: Mapped[int]
    phase: Mapped[Word]
    status: Mapped[Word] = mapped_column(default="running")
    architecture_key: Mapped[str] = mapped_column(String(64), ForeignKey("architectures.key"))
    seed: Mapped[Big]
    role: Mapped[Word]
    label: Mapped[str] = mapped_column(Text, default="")
    epochs: Mapped[int] = mapped_column(default=0)
    epochs_planned: Mapped[int]
    params: Mapped[Big | None]
    macs: Mapped[Big | None]
    top1: Mapped[float | None]
    top5: Mapped[float | None]
    loss: Mapped[float | None]
    test_top1: Mapped[float | None]
    latency_ms: Mapped[float | None]
    metrics: Mapped[dict[str, float | int | str | None]] = mapped_column(DOCUMENT, default=dict)
    seconds: Mapped[float | None]
    busy_seconds: Mapped[float] = mapped_column(default=0.0, server_default=text("0"))
    evaluation_key: Mapped[Digest | None]
    reused_from: Mapped[str | None] = mapped_column(String(36), ForeignKey("trials.id", ondelete="SET NULL"))
    node: Mapped[str | None] = mapped_column(String(100))
    retries: Mapped[int] = mapped_column(default=0)
    retried: Mapped[dict[str, int] | None] = mapped_column(DOCUMENT)
    deaths: Mapped[dict[str, int] | None] = mapped_column(DOCUMENT)
    proposal: Mapped[Document | None]
    environment: Mapped[Document | None]
    error: Mapped[Document | None]
    started_at: Mapped[Born]
    finished_at: Mapped[Time | None]


class Epoch(Base):
    """One epoch of a trial; epochs count from 1. A repeated report replaces the row."""

    __tablename__ = "epochs"
    __table_args__ = (
        CheckConstraint("epoch >= 1", name="epoch_range"),
        Index("ix_epochs_search_id", "search_id", "trial_id"),
    )

    trial_id: Mapped[str] = mapped_column(String(36), ForeignKey("trials.id", ondelete="CASCADE"), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    search_id: Mapped[Identifier]
    train_loss: Mapped[float | None]
    val_loss: Mapped[float | None]
    top1: Mapped[float | None]
    top5: Mapped[float | None]
    lr: Mapped[float | None]
    seconds: Mapped[float | None]
    metrics: Mapped[dict[str, float | int | str | None]] = mapped_column(DOCUMENT, default=dict)
    at: Mapped[Born]


class Artifact(Base):
    """A file that belongs to a trial; `path` is relative to the store, `bytes` its size."""

    __tablename__ = "artifacts"
    __table_args__ = (UniqueConstraint("trial_id", "kind"),)

    id: Mapped[PrimaryId]
    trial_id: Mapped[str] = mapped_column(String(36), ForeignKey("trials.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(50))
    path: Mapped[str] = mapped_column(String(1000))
    bytes: Mapped[Big]
    sha256: Mapped[Digest]
    created_at: Mapped[Born]
