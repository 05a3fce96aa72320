"""What only the workers know and publish for the service: data sets, nodes; and costs that were counted once."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from db.clock import DatabaseTime, UtcDateTime
from db.models.base import Base, Big, Document, Name


class Dataset(Base):
    """A data set that the workers have: `document` holds shape, classes, sizes."""

    __tablename__ = "datasets"

    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    document: Mapped[Document]
    fingerprint: Mapped[str] = mapped_column(String(128))
    published_by: Mapped[Name]
    published_at: Mapped[datetime] = mapped_column(UtcDateTime, default=DatabaseTime())


class Node(Base):
    """A machine of the cluster: `document` holds its CPUs, GPUs and slots."""

    __tablename__ = "nodes"
    __table_args__ = (Index("ix_nodes_heartbeat_at", "heartbeat_at"),)

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    document: Mapped[Document]
    heartbeat_at: Mapped[datetime] = mapped_column(UtcDateTime, default=DatabaseTime())


class SiteCost(Base):
    """Parameters and multiply-adds of a module at a site (may be negative: a module can replace a layer)."""

    __tablename__ = "site_costs"
    __table_args__ = (CheckConstraint("key <> ''", name="key_filled"),)

    key: Mapped[str] = mapped_column(String(300), primary_key=True)
    params: Mapped[Big]
    macs: Mapped[Big]


class Setting(Base):
    """A fact about this installation that all its machines share, such as which store its files are in."""

    __tablename__ = "settings"

    key: Mapped[str] = mapped_column(String(100), primary_key=True)
    value: Mapped[Document]
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=DatabaseTime())
