"""Drivers of a dispatcher: adopted, queued again when they die, ended when silent. They are real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, update

from db import claims, searches
from db.claims import Held
from db.engine import now, reading, writing
from db.models import Search
from workers.driver_pool import Driver, DriverPool
from workers.processes import ProcessName, Watched
from workers.settings import WorkerSettings
from workers.watching import Watch

HERE = f"{ProcessName.own()}@cluster"
OBEDIENT = "import time; time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"


@dataclass
class Scene:
    """Searches that somebody has claimed, and processes that stand for drivers and dispatchers."""

    engine: Engine
    watch: Watch
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def process(self, code: str = OBEDIENT) -> ProcessName:
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        self.processes.append(child)
        if code is STUBBORN:
            assert child.stdout is not None
            child.stdout.readline()  # it ignores SIGTERM from now on
        name = ProcessName.of(child.pid)
        assert name is not None
        return name

    def dead(self) -> ProcessName:
        name = self.process()
        self.end(name)
        return name

    def end(self, name: ProcessName) -> None:
        os.kill(name.pid, signal.SIGKILL)
        while name.is_alive:
            pass

    def claimed(self, owner: str, driver: ProcessName | None) -> str:
        """A running search of `owner` that `driver` works on."""
        with writing(self.engine) as session:
            made = searches.create(session, name="s", spec={"name": "s"}, spec_version=1)
            assert claims.claim_next(session, owner, 60.0, among=[made.id])
            if driver is not None:
                claims.register_driver(session, made.id, 1, str(driver))
        return made.id

    def running(self) -> list[Held]:
        with reading(self.engine) as session:
            return claims.running(session)

    def search(self, search_id: str) -> Search:
        with reading(self.engine) as session:
            return searches.get(session, search_id)

    def follow(self) -> None:
        self.watch.follow(self.running())


@pytest.fixture
def scene(engine: Engine, tmp_path: Path) -> Iterator[Scene]:
    pool = DriverPool(WorkerSettings(home=tmp_path, spare_drivers=0), "127.0.0.1:1", tied=False)
    made = Scene(engine, Watch(engine, pool, HERE, 60.0))
    yield made
    for process in made.processes:
        process.kill()
        process.communicate()


def test_a_living_orphan_is_adopted_and_queued_again_when_it_dies(scene: Scene) -> None:
    driver = scene.process()
    search_id = scene.claimed(f"{scene.dead()}@cluster", driver)
    scene.follow()
    adopted = scene.search(search_id)
    assert (adopted.status, adopted.attempt, adopted.lease_owner) == ("running", 1, HERE)
    assert not scene.watch.reap()
    scene.end(driver)
    assert scene.watch.reap()
    after = scene.search(search_id)
    assert (after.status, after.deaths) == ("queued", 1)  # at once: the lease has a minute left
    assert not scene.watch.drivers


def test_what_a_killed_driver_has_left_in_the_temporary_folder_is_removed(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    driver, other = scene.process(), scene.process()
    left, used = (tmp_path / f"attune-tune-{name.pid}-x" for name in (driver, other))
    for folder in (left, used):
        folder.mkdir()
    scene.claimed(f"{scene.dead()}@cluster", driver)
    scene.follow()
    scene.end(driver)
    scene.watch.reap()
    assert not left.exists()
    assert used.exists()


def test_an_adopted_driver_that_ends_in_order_is_no_death(scene: Scene) -> None:
    driver = scene.process()
    search_id = scene.claimed(f"{scene.dead()}@cluster", driver)
    scene.follow()
    with writing(scene.engine) as session:
        claims.release(session, search_id, 1, "succeeded")
    scene.end(driver)
    scene.watch.reap()
    after = scene.search(search_id)
    assert (after.status, after.deaths) == ("succeeded", 0)


@pytest.mark.parametrize("registered", [True, False])
def test_an_orphan_that_is_dead_or_never_started_is_queued_again_at_once(scene: Scene, registered: bool) -> None:
    search_id = scene.claimed(f"{scene.dead()}@cluster", scene.dead() if registered else None)
    scene.follow()
    after = scene.search(search_id)
    assert (after.status, after.deaths) == ("queued", int(registered))


def test_a_search_that_was_claimed_and_never_got_its_driver_goes_back(scene: Scene) -> None:
    starting, forgotten = scene.claimed(HERE, None), scene.claimed(HERE, None)
    scene.watch.starting = starting
    scene.follow()
    assert (scene.search(starting).status, scene.search(forgotten).status) == ("running", "queued")
    assert scene.search(forgotten).deaths == 0


def test_what_others_look_after_is_left_to_them(scene: Scene) -> None:
    alive = scene.claimed(f"{scene.process()}@cluster", scene.dead())
    elsewhere = scene.claimed("elsewhere:1:x-1@cluster", ProcessName("elsewhere", 2, "x-2"))
    beside = scene.claimed(f"{scene.dead()}@cluster", ProcessName("elsewhere", 2, "x-2"))
    unnamed = scene.claimed("somebody", None)
    before = {held.id: held.owner for held in scene.running()}
    scene.follow()
    assert {held.id: held.owner for held in scene.running()} == before
    assert before.keys() == {alive, elsewhere, beside, unnamed}
    assert not scene.watch.drivers


def _driving(scene: Scene, code: str = OBEDIENT) -> tuple[str, ProcessName]:
    """A search with a driver that the watch has adopted."""
    driver = scene.process(code)
    search_id = scene.claimed(f"{scene.dead()}@cluster", driver)
    scene.follow()
    assert search_id in scene.watch.drivers
    return search_id, driver


def test_a_driver_that_has_lost_its_search_is_ended(scene: Scene) -> None:
    search_id, driver = _driving(scene)
    with writing(scene.engine) as session:
        claims.release(session, search_id, 1, "queued")
        assert claims.claim_next(session, "elsewhere:1:x-1@cluster", 60.0, among=[search_id])
    scene.follow()
    assert not driver.is_alive
    assert (scene.search(search_id).status, scene.search(search_id).attempt) == ("running", 2)


def expire(scene: Scene, search_id: str) -> None:
    with writing(scene.engine) as session:
        past = now(session) - timedelta(seconds=1)
        session.execute(update(Search).where(Search.id == search_id).values(lease_expires_at=past))


def test_the_lease_of_a_driver_is_kept_until_it_gives_its_first_sign_of_life(scene: Scene) -> None:
    search_id, _ = _driving(scene)
    expire(scene, search_id)
    scene.watch.carry_leases()
    assert not scene.running()[0].expired, "it may still be importing"
    with writing(scene.engine) as session:
        claims.renew(session, search_id, 1, 60.0, active_seconds=0.5)
    scene.follow()
    expire(scene, search_id)
    scene.watch.carry_leases()
    assert scene.running()[0].expired, "it has been silent for a lease"
    scene.watch.carry_leases(all_of_them=True)
    assert not scene.running()[0].expired, "nobody could renew while the database was away"


def test_a_driver_that_starts_on_a_later_attempt_keeps_its_lease_when_it_is_adopted(scene: Scene) -> None:
    search_id = scene.claimed(f"{scene.dead()}@cluster", scene.process())
    with writing(scene.engine) as session:
        claims.renew(session, search_id, 1, 60.0, active_seconds=3000.0)
        claims.release(session, search_id, 1, "queued", died=True)
        assert claims.claim_next(session, f"{scene.dead()}@cluster", 60.0, among=[search_id])
        claims.register_driver(session, search_id, 2, str(scene.process()))
    scene.follow()
    for carried in (True, False):
        expire(scene, search_id)
        scene.watch.carry_leases()
        assert scene.running()[0].expired is not carried
        with writing(scene.engine) as session:  # its first trial waits for a slot: nothing has been worked since
            claims.renew(session, search_id, 2, 60.0, active_seconds=3000.0)
        scene.follow()


def test_a_silent_driver_is_ended_when_its_search_is_started_anew(scene: Scene) -> None:
    search_id, driver = _driving(scene)
    os.kill(driver.pid, signal.SIGSTOP)
    name = scene.process()
    scene.watch.add(Driver(search_id, 2, Watched(name), Path("log")))
    assert not driver.is_alive
    assert name.is_alive


def test_stopping_lets_drivers_hand_back_and_ends_those_that_do_not(scene: Scene) -> None:
    obedient, stubborn = _driving(scene), _driving(scene, STUBBORN)
    scene.watch.hand_back(0.5, threading.Event())
    for search_id, driver in (obedient, stubborn):
        assert not driver.is_alive
        after = scene.search(search_id)
        assert (after.status, after.deaths) == ("queued", 0)


def test_a_second_signal_does_not_wait_for_drivers(scene: Scene) -> None:
    search_id, driver = _driving(scene, STUBBORN)
    hurry = threading.Event()
    hurry.set()
    scene.watch.hand_back(600.0, hurry)  # the test's own time limit is less
    assert not driver.is_alive
    assert scene.search(search_id).status == "queued"


def test_drivers_without_ray_are_ended_and_it_is_not_their_fault(scene: Scene) -> None:
    search_id, driver = _driving(scene, STUBBORN)
    scene.watch.abandon("Ray has gone")
    assert not driver.is_alive
    after = scene.search(search_id)
    assert (after.status, after.deaths) == ("queued", 0)


def test_of_two_dispatchers_of_a_machine_one_adopts(scene: Scene, tmp_path: Path) -> None:
    scene.claimed(f"{scene.dead()}@cluster", scene.process())
    other = Watch(scene.engine, DriverPool(WorkerSettings(home=tmp_path), "", tied=False), f"{scene.process()}@c", 60.0)
    seen = scene.running()
    threads = [threading.Thread(target=watch.follow, args=(seen,)) for watch in (scene.watch, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(scene.watch.drivers) + len(other.drivers) == 1


def test_an_adopted_driver_that_hangs_loses_its_lease_as_any_other(scene: Scene) -> None:
    driver = scene.process()
    search_id = scene.claimed(f"{scene.dead()}@cluster", driver)
    with writing(scene.engine) as session:
        claims.renew(session, search_id, 1, 60.0, active_seconds=7.0)  # it has worked, so it renews its lease itself
    os.kill(driver.pid, signal.SIGSTOP)
    scene.follow()
    assert search_id in scene.watch.drivers
    expire(scene, search_id)
    scene.watch.carry_leases()
    assert scene.running()[0].expired
