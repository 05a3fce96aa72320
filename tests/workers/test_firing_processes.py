"""Four dispatchers' schedulers, one of them killed every moment: each fire is one search, no more and no less."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from select import select as select_ready
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, update

from db import catalog, schedules
from db.catalog import PublishedDataset
from db.engine import now as database_now
from db.engine import reading, writing
from db.models import Fire, Schedule, Search
from tests.workers.conftest import ENTRY

FIRES = 300
SUCCESSIVE = 100
PROCESSES = 4
TEMPLATE: dict[str, Any] = {
    "name": "n {{ fire_at }}", "dataset": {"name": "tiny"}, "backbone": {"name": "resnet8", "width": 16},
}  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Schedulers:
    """Processes that fire, of which one dies now and then."""

    def __init__(self, url: str, chance: random.Random) -> None:
        self.chance = chance
        self.kills = 0
        self._url = url
        self._processes = [start(url) for _ in range(PROCESSES)]

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 200
        while not all(map(is_ready, self._processes)):
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def kill_one(self, spare: int = 0) -> bool:
        """Kills one that is ready and starts another, if that leaves `spare` that are ready."""
        ready = [place for place, process in enumerate(self._processes) if is_ready(process)]
        if len(ready) <= spare:
            return False
        place = self.chance.choice(ready)
        end(self._processes[place])
        self._processes[place] = start(self._url)
        self.kills += 1
        return True

    def end(self) -> None:
        for process in self._processes:
            end(process)


@contextmanager
def schedulers(engine: Engine, url: str, chance: random.Random) -> Iterator[Schedulers]:
    """Four of them, ready to fire what is asked for from now on; the data set of their searches is published."""
    with writing(engine) as session:
        document = ENTRY.model_dump(mode="json")
        catalog.publish_datasets(session, [PublishedDataset("tiny", "f", document)], published_by="tests")
    running = Schedulers(url, chance)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.end()


def start(url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.workers.firing", url], stdout=subprocess.PIPE)


def is_ready(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has said so; one that still starts has nothing to be killed in the middle of."""
    assert process.stdout is not None
    return bool(select_ready([process.stdout], [], [], 0)[0])


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(10)
    if process.stdout is not None:
        process.stdout.close()


def count(engine: Engine) -> int:
    with reading(engine) as session:
        return session.scalar(select(func.count()).select_from(Fire)) or 0


def test_three_hundred_fires_are_three_hundred_searches(engine: Engine, database_url: str) -> None:
    with schedulers(engine, database_url, random.Random(7)) as running:
        with writing(engine) as session:
            begin = database_now(session) + timedelta(seconds=1)
            for number in range(FIRES):  # a third at once, the others over half a minute
                at = begin + timedelta(seconds=max(0, number - FIRES // 3) * 0.15)
                schedules.create(
                    session, name=f"s{number}", cron="0 0 1 1 *", zone="UTC", template=TEMPLATE, next_fire_at=at,
                    planned_at=at,
                )  # fmt: skip
        deadline = time.monotonic() + 400
        while count(engine) < FIRES:
            assert time.monotonic() < deadline, f"{count(engine)} of {FIRES} fires after {running.kills} kills"
            time.sleep(running.chance.uniform(0.2, 1.5))
            running.kill_one()
        time.sleep(2)  # whoever would fire twice has had the time for it
    with reading(engine) as session:
        fires = session.execute(select(Fire.schedule_id, Fire.status, Fire.search_id)).all()
        made = session.execute(select(Search.id, Search.schedule_id)).all()
    assert running.kills >= PROCESSES
    assert [status for _, status, _ in fires] == ["fired"] * FIRES
    assert len({schedule for schedule, _, _ in fires}) == FIRES
    assert {(search, schedule) for schedule, _, search in fires} == {tuple(row) for row in made}
    assert len(made) == FIRES


def test_successive_times_of_one_schedule_that_all_contend_for(engine: Engine, database_url: str) -> None:
    """The clock is hurried, by putting `next_fire_at` back as soon as it has moved on: so all processes look for the
    same fire at the same moment, and find the next one as soon as that is dealt with."""
    with schedulers(engine, database_url, random.Random(11)) as running:
        with writing(engine) as session:
            begin = (database_now(session) + timedelta(days=1)).replace(second=0, microsecond=0)
            schedules.create(
                session, name="one", cron="* * * * *", zone="UTC", template=TEMPLATE, overlap="allow",
                end_at=begin + timedelta(minutes=SUCCESSIVE - 1), next_fire_at=begin, planned_at=begin,
            )  # fmt: skip
        deadline, next_kill = time.monotonic() + 300, time.monotonic() + 1
        while (done := count(engine)) < SUCCESSIVE:
            assert time.monotonic() < deadline, f"{done} of {SUCCESSIVE} fires after {running.kills} kills"
            with writing(engine) as session:
                soon = database_now(session) + timedelta(seconds=0.05)
                session.execute(update(Schedule).where(Schedule.next_fire_at > soon).values(next_fire_at=soon))
            time.sleep(0.02)
            if time.monotonic() > next_kill and running.kill_one(spare=1):
                next_kill = time.monotonic() + running.chance.uniform(1, 4)
        time.sleep(2)  # whoever would fire twice has had the time for it
    with reading(engine) as session:
        fires = session.execute(select(Fire.fire_at, Fire.status, Fire.search_id).order_by(Fire.fire_at)).all()
        made = session.execute(select(Search.fire_at, Search.id).order_by(Search.fire_at)).all()
        following = session.scalars(select(Schedule.next_fire_at)).one()
    assert running.kills >= PROCESSES
    assert [at for at, _, _ in fires] == [begin + timedelta(minutes=number) for number in range(SUCCESSIVE)]
    assert {status for _, status, _ in fires} == {"fired"}
    assert [tuple(row) for row in made] == [(at, search) for at, _, search in fires]
    assert following is None
