"""The numbers of a search's front are read without its trials' long rows: 100,000 of them take 200 MB.

Revision ID: 0006
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_index("ix_trials_front", "trials", ["search_id", "number", "phase", "status", "top1", "macs"])


def downgrade() -> None:
    op.drop_index("ix_trials_front", "trials")
