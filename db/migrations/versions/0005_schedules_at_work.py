"""What firing schedules, comparing their searches and telling about them need.

Nothing has written to `deliveries` before, so it is made anew.

Revision ID: 0005
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

PENDING = sa.text("status = 'pending'")
UNSETTLED = sa.text("settled_at IS NULL AND search_id IS NOT NULL")


def upgrade() -> None:
    op.add_column("schedules", sa.Column("planned_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("schedules", sa.Column("notify", sa.JSON(), server_default=sa.text("'[]'"), nullable=False))
    op.add_column("fires", sa.Column("comparison", sa.JSON(), nullable=True))
    op.add_column("fires", sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_fires_unsettled", "fires", ["search_id"], postgresql_where=UNSETTLED, sqlite_where=UNSETTLED)
    op.drop_index("ix_deliveries_next_attempt_at", "deliveries")
    op.drop_table("deliveries")
    _create_deliveries(
        sa.Column("schedule_id", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["schedules.id"], name=op.f("fk_deliveries_schedule_id_schedules"), ondelete="CASCADE"
        ),
    )
    op.create_index("ix_deliveries_schedule_id", "deliveries", ["schedule_id", "id"])


def downgrade() -> None:
    op.drop_index("ix_deliveries_schedule_id", "deliveries")
    op.drop_index("ix_deliveries_next_attempt_at", "deliveries")
    op.drop_table("deliveries")
    _create_deliveries()
    op.drop_index("ix_fires_unsettled", "fires")
    op.drop_column("fires", "settled_at")
    op.drop_column("fires", "comparison")
    op.drop_column("schedules", "notify")
    op.drop_column("schedules", "planned_at")


def _create_deliveries(*further: sa.schema.SchemaItem) -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("channel", sa.String(length=20), nullable=False),
        sa.Column("target", sa.String(length=2000), nullable=False),
        sa.Column("event", sa.String(length=50), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_error", sa.String(length=1000), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("channel IN ('webhook', 'email')", name=op.f("ck_deliveries_channel_known")),
        sa.CheckConstraint("status IN ('pending', 'sent', 'failed')", name=op.f("ck_deliveries_status_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        *further,
    )
    op.create_index(
        "ix_deliveries_next_attempt_at", "deliveries", ["next_attempt_at"], postgresql_where=PENDING,
        sqlite_where=PENDING,
    )  # fmt: skip
