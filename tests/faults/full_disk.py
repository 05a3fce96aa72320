"""A plug-in of the API: while the file that `FAULTS_FULL_DISK` names exists, its SQLite database cannot grow."""

import os
from pathlib import Path

from sqlalchemy import Engine, event

LARGEST = 1_073_741_823


@event.listens_for(Engine, "begin")
def _limit(connection: object) -> None:
    if connection.dialect.name != "sqlite":  # type: ignore[attr-defined]
        return
    full = Path(os.environ["FAULTS_FULL_DISK"]).exists()
    # a limit below the present size becomes that size
    connection.exec_driver_sql(f"PRAGMA max_page_count = {1 if full else LARGEST}")  # type: ignore[attr-defined]
