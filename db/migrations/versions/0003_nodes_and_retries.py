"""Where running trials are, and why trials were tried again.

Revision ID: 0003
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("trials", sa.Column("node", sa.String(length=100), nullable=True))
    op.add_column("trials", sa.Column("retried", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("trials", "retried")
    op.drop_column("trials", "node")
