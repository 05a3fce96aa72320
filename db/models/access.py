"""Who may do what, who did what, and requests that must not be done twice."""

from typing import Any

from sqlalchemy import Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import DOCUMENT, Base, Born, Digest, Document, Name, PrimaryId, Time, Word, one_of

IDEMPOTENCY_STATUSES = ("in_flight", "done")


class Token(Base):
    """An API token. Only the digest of the secret is kept; `prefix` finds the row."""

    __tablename__ = "tokens"
    __table_args__ = (UniqueConstraint("name"), UniqueConstraint("prefix"))

    id: Mapped[PrimaryId]
    name: Mapped[Name]
    prefix: Mapped[str] = mapped_column(String(32))
    hash: Mapped[str] = mapped_column(String(128))
    scopes: Mapped[list[str]] = mapped_column(DOCUMENT)
    expires_at: Mapped[Time | None]
    revoked_at: Mapped[Time | None]
    last_used_at: Mapped[Time | None]
    created_at: Mapped[Born]


class AuditEntry(Base):
    """Who changed what, and when."""

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_subject", "subject_kind", "subject_id"),)

    id: Mapped[PrimaryId]
    actor: Mapped[Name]
    action: Mapped[str] = mapped_column(String(50))
    subject_kind: Mapped[str] = mapped_column(String(50))
    subject_id: Mapped[Name]
    data: Mapped[Document | None]
    at: Mapped[Born]


class IdempotencyKey(Base):
    """The answer to a POST that carried an Idempotency-Key, for as long as a client may repeat it."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        one_of("status", IDEMPOTENCY_STATUSES),
        Index("ix_idempotency_keys_expires_at", "expires_at"),
    )

    scope: Mapped[str] = mapped_column(String(200), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    payload_hash: Mapped[Digest]
    status: Mapped[Word] = mapped_column(default="in_flight")
    response_status: Mapped[int | None]
    response_body: Mapped[Any | None] = mapped_column(DOCUMENT)
    created_at: Mapped[Born]
    expires_at: Mapped[Time]
