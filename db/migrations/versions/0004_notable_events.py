"""The few events that are no routine are found without reading all others.

Revision ID: 0004
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

NOTABLE = "kind NOT IN ('trial.started', 'trial.epoch', 'trial.finished', 'search.progress')"


def upgrade() -> None:
    where = sa.text(NOTABLE)
    op.create_index(
        "ix_events_notable", "events", ["kind", "search_id", "seq"], postgresql_where=where, sqlite_where=where
    )


def downgrade() -> None:
    op.drop_index("ix_events_notable", "events")
