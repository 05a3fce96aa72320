"""Whether a running search's driver has renewed its lease itself yet, and how far a trial was when its process died.

Revision ID: 0007
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("searches", sa.Column("first_beat_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("trials", sa.Column("deaths", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("trials", "deaths")
    op.drop_column("searches", "first_beat_at")
