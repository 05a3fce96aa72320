"""A house of schedules that fire: a scheduler, and a clock of the database that the test sets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, select

from db import catalog, claims, schedules, trials
from db.catalog import PublishedDataset
from db.engine import reading, writing
from db.ids import uuid7
from db.models import Evaluation, Fire, Schedule, Search
from search.architecture import Architecture
from search.describe import describe
from search.schedule import Rhythm
from search.timetable import Timetable
from tests.workers.conftest import ENTRY
from workers import scheduling
from workers.scheduling import Scheduler

TEMPLATE: dict[str, Any] = {
    "name": "nightly {{ fire_at }}",
    "dataset": {"name": "tiny"},
    "backbone": {"name": "resnet8", "width": 16},
    "budget": {"trials": 4},
}


CONDITIONS = {"dataset_fingerprint": "old", "conditions": {}, "epochs": 1, "seed": 0}


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class House:
    """A database with a schedule, a scheduler, and a clock of the database that the test sets."""

    def __init__(self, engine: Engine, patch: pytest.MonkeyPatch) -> None:
        self.engine = engine
        self._patch = patch
        self.publish(ENTRY.fingerprint)

    def publish(self, fingerprint: str) -> None:
        document = ENTRY.model_dump(mode="json") | {"fingerprint": fingerprint}
        with writing(self.engine) as session:
            catalog.publish_datasets(session, [PublishedDataset("tiny", fingerprint, document)], published_by="tests")

    def schedule(self, start: str, **options: Any) -> str:
        """A schedule that was made at `start` (UTC)."""
        key = uuid7()
        options = {"cron": "0 * * * *", "zone": "UTC", "template": TEMPLATE, "name": key} | options
        known = ("jitter_seconds", "start_at", "end_at")
        rhythm = Rhythm(
            Timetable.parse(options["cron"], options["zone"]), key, **{k: options[k] for k in known if k in options}
        )
        planned = rhythm.next(utc(start))
        due = None if planned is None else rhythm.due(planned)
        with writing(self.engine) as session:
            schedules.create(session, id=key, next_fire_at=due, planned_at=planned, **options)
        return key

    def at(self, now: str) -> None:
        """Looks at the schedules once, at this time by the database's clock."""
        self.at_moment(utc(now))

    def at_moment(self, moment: datetime) -> None:
        with self._clock(moment):
            Scheduler(self.engine).tick(60.0)

    @contextlib.contextmanager
    def _clock(self, moment: datetime) -> Iterator[None]:
        with self._patch.context() as patch:
            patch.setattr(schedules, "DatabaseTime", lambda: moment)
            patch.setattr(scheduling, "database_now", lambda _: moment)
            yield

    def fires(self, key: str) -> list[tuple[str, str]]:
        with reading(self.engine) as session:
            rows = session.scalars(select(Fire).where(Fire.schedule_id == key).order_by(Fire.fire_at))
            return [(f"{row.fire_at:%m-%d %H:%M}", row.status) for row in rows]

    def reasons(self, key: str) -> list[str | None]:
        with reading(self.engine) as session:
            return list(session.scalars(select(Fire.reason).where(Fire.schedule_id == key).order_by(Fire.fire_at)))

    def searches(self, key: str) -> list[Search]:
        with reading(self.engine) as session:
            return list(session.scalars(select(Search).where(Search.schedule_id == key).order_by(Search.fire_at)))

    def get(self, key: str) -> Schedule:
        with reading(self.engine) as session:
            return schedules.get(session, key)

    def end(self, search_id: str, status: str = "succeeded") -> None:
        with writing(self.engine) as session:
            found = claims.claim_next(session, "driver", 600.0)
            assert found is not None
            assert found.id == search_id
            assert claims.release(session, found.id, found.attempt, status)

    def train(
        self,
        search_id: str,
        results: list[tuple[Architecture, float, int]],
        fingerprint: str,
        conditions: dict[str, Any] | None = None,
    ) -> None:
        """Runs the search to its end with these results: (architecture, top1, MACs)."""
        with writing(self.engine) as session:
            found = claims.claim_next(session, "driver", 600.0)
            assert found is not None
            assert found.id == search_id
            for number, (architecture, top1, macs) in enumerate(results):
                label, document = describe(architecture), architecture.to_json()
                trials.put_architecture(session, architecture.key, backbone="resnet8", document=document, label=label)
                row = trials.add(
                    session, search_id, found.attempt, phase="explore", architecture_key=architecture.key, seed=0,
                    role="explore", epochs_planned=1, label=label, params=100, macs=macs,
                )  # fmt: skip
                metrics = {"top1": top1}
                trials.finish(session, row.id, found.attempt, status="succeeded", metrics=metrics, epochs=1)
                key = f"{search_id}{number}".ljust(64, "0")[:64]
                session.add(
                    Evaluation(key=key, architecture_key=architecture.key, status="finished", results={},
                               **{**CONDITIONS, "dataset_fingerprint": fingerprint, "conditions": conditions or {}})
                )  # fmt: skip
                session.flush()
                row.evaluation_key = key
                session.merge(row)
            assert claims.release(session, found.id, found.attempt, "succeeded")


@pytest.fixture
def house(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> House:
    return House(engine, monkeypatch)
