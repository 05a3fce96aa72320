"""What checkpoints, budgets over restarts and watching drivers need.

Revision ID: 0002
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def added() -> list[tuple[str, sa.Column[object]]]:
    zero = sa.text("0")
    return [
        ("searches", sa.Column("driver", sa.String(length=200), nullable=True)),
        ("searches", sa.Column("active_seconds", sa.Double(), server_default=zero, nullable=False)),
        ("searches", sa.Column("seconds_left", sa.Double(), nullable=True)),
        ("trials", sa.Column("busy_seconds", sa.Double(), server_default=zero, nullable=False)),
    ]


def upgrade() -> None:
    for table, column in added():
        op.add_column(table, column)
    op.create_table(
        "settings",
        sa.Column("key", sa.String(length=100), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_settings")),
    )


def downgrade() -> None:
    op.drop_table("settings")
    for table, column in added():
        op.drop_column(table, column.name)
