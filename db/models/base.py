"""What all tables share: the base class, column types and the names of constraints."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

from sqlalchemy import JSON, BigInteger, CheckConstraint, MetaData, String
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

from db.clock import DatabaseTime, UtcDateTime
from db.ids import uuid7

JsonObject = dict[str, Any]

# Documents stay text on PostgreSQL, which keeps the order of their keys; only what is searched inside is JSONB.
DOCUMENT = JSON(none_as_null=True)
SEARCHABLE = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

Identifier = Annotated[str, mapped_column(String(36))]
PrimaryId = Annotated[str, mapped_column(String(36), primary_key=True, default=uuid7)]
Digest = Annotated[str, mapped_column(String(64))]
Name = Annotated[str, mapped_column(String(200))]
Word = Annotated[str, mapped_column(String(20))]
Document = Annotated[JsonObject, mapped_column(DOCUMENT)]
Big = Annotated[int, mapped_column(BigInteger)]
Time = Annotated[datetime, mapped_column(UtcDateTime)]
Born = Annotated[datetime, mapped_column(UtcDateTime, default=DatabaseTime())]


class Base(DeclarativeBase):
    """Declarative base; constraint names are fixed so that migrations can refer to them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def one_of(column: str, words: Iterable[str]) -> CheckConstraint:
    """CHECK that a column holds one of the words (or NULL, where the column may be NULL)."""
    listed = ", ".join(f"'{word}'" for word in words)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")
