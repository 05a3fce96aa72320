"""Random kills while searches run: `python -m tests.faults.soak --minutes 10 --seed 1`, or `make soak`.

API, two dispatchers, drivers, trials and two Ray nodes are killed (-9), and PostgreSQL is stopped at once and started
again; what a supervisor would start again is started a moment later. Searches are submitted all the while. In the end
every one of them must have succeeded, nothing may be lost, doubled or left behind. What happens when follows from the
seed; which process it hits, from what runs then. Exits with 1 when something is wrong, and keeps the logs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from db.engine import make_engine
from db.errors import DatabaseUnavailable
from db.upgrades import upgrade
from tests.e2e.house import SEVERAL_HOSTS, House, Ray, until
from tests.faults import invariants
from tests.faults.invariants import Committed, rows
from tests.faults.postgres import Postgres, opened_postgres
from tests.faults.searches import check_results, trained
from tests.faults.soak_load import Fault, Submitter, plan

KINDS = ("api", "dispatcher", "driver", "trial", "node", "database")
DISPATCHERS = ("dispatcher-1", "dispatcher-2")
NODES = {"node-1": "127.0.0.2", "node-2": "127.0.0.3"}
LIMIT = 900.0
"""Seconds after the last fault within which all searches must have ended."""


@dataclass
class Soak:
    """A house under fire. wrong: what must not be, one line each. kills: by kind, of what there was to kill."""

    house: House
    ray: Ray
    postgres: Postgres | None
    wrong: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    known: Committed = field(default_factory=lambda: Committed({}, {}))
    _down: dict[str, float] = field(default_factory=dict)
    _observed: float = 0.0

    def strike(self, fault: Fault) -> None:
        self.observe()
        hit = getattr(self, f"_{fault.kind}")(fault)
        if hit is not None:
            self.kills[fault.kind] += 1
        told = {"at": round(fault.at, 1), "fault": fault.kind, "hit": hit, "away": round(fault.away, 1)}
        print(json.dumps(told), flush=True)

    def _api(self, fault: Fault) -> str | None:
        return self._kill_service(["api"], fault)

    def _dispatcher(self, fault: Fault) -> str | None:
        return self._kill_service([name for name in DISPATCHERS if name in self.house.processes], fault)

    def _kill_service(self, names: list[str], fault: Fault) -> str | None:
        found = [name for name in names if name not in self._down]
        if not found:
            return None
        name = _chosen(found, fault)
        self.house.kill(name)
        self._down[name] = time.monotonic() + fault.away
        return name

    def _driver(self, fault: Fault) -> str | None:
        return _kill_one(self.house.drivers(), fault)

    def _trial(self, fault: Fault) -> str | None:
        return _kill_one(self.ray.trial_processes(), fault)

    def _node(self, fault: Fault) -> str | None:
        found = [name for name in NODES if name in self.ray.nodes]
        if len(found) < len(NODES):
            return None
        name = _chosen(found, fault)
        self.ray.kill_node(name)
        self._down[name] = time.monotonic() + fault.away
        return name

    def _database(self, fault: Fault) -> str | None:
        assert self.postgres is not None
        self.postgres.restart(fault.away)
        return "postgresql"

    def wait(self, until_then: float) -> None:
        """Starts again what is due, and looks after the others, until that moment."""
        while time.monotonic() < until_then:
            self.supervise()
            time.sleep(0.1)

    def supervise(self) -> None:
        now = time.monotonic()
        for name in [name for name, due in self._down.items() if due <= now]:
            del self._down[name]
            self._start(name)
        for name, process in list(self.house.processes.items()):
            if (code := process.poll()) is not None:
                self.wrong.append(f"{name} has ended by itself with code {code}")
                self._start(name)
        for name in [name for name, node in self.ray.nodes.items() if node.poll() is not None]:
            self.wrong.append(f"{name} has ended by itself with code {self.ray.nodes.pop(name).returncode}")
            if name in NODES:
                self._start(name)
        if now - self._observed > 2.0:
            self.observe()

    def _start(self, name: str) -> None:
        if name in NODES:
            self.ray.add_node(name, 1, host=NODES[name])
        elif name == "api":
            self.house.launch_api()
        else:
            self.house.launch_dispatcher(name)

    def restore(self) -> None:
        """Starts again all that is down."""
        self._down = dict.fromkeys(self._down, 0.0)
        self.supervise()

    def observe(self) -> None:
        """Remembers what has been committed; what was seen once must be there in the end as it was."""
        with suppress(DatabaseUnavailable):
            now = invariants.committed(self.house.engine)
            self.known = Committed({**now.trials, **self.known.trials}, {**now.epochs, **self.known.epochs})
        self._observed = time.monotonic()

    def wait_for_ends(self, seconds: float) -> None:
        """Until every search has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.supervise()
            with suppress(DatabaseUnavailable):
                left = rows(self.house.engine, "SELECT status FROM searches")
                if all(row["status"] in invariants.TERMINAL for row in left):
                    return
            time.sleep(0.5)
        self.wrong.append(f"not all searches have ended {seconds:g} s after the last fault")

    def judge(self, submitted: Submitter) -> None:
        """Notes what is wrong with the database, the files and the processes after the end."""
        engine = self.house.engine
        self.wrong += invariants.database_violations(engine, self.known)
        self.wrong += invariants.leftovers(self.house)
        searches = {row["id"]: row for row in rows(engine, "SELECT id, name, status, error FROM searches")}
        often = Counter(row["name"] for row in searches.values())
        for number, search_id in submitted.found.items():
            if search_id not in searches:
                self.wrong.append(f"soak {number}: was accepted and is not there")
            if often[f"soak {number}"] != 1:
                self.wrong.append(f"soak {number}: is there {often[f'soak {number}']} times")
        for row in searches.values():
            if row["status"] != "succeeded":
                self.wrong.append(f"{row['name']}: {row['status']}, {row['error']}")
        until(self.house.client.ready, 60)
        for number, search_id in submitted.found.items():
            try:
                check_results(self.house, search_id, submitted.specs[number]["training"]["epochs"])
            except AssertionError as error:
                self.wrong.append(f"soak {number}: a trial has not learned from each epoch once: {error}")

    def figures(self, submitted: Submitter) -> dict[str, Any]:
        engine, logs = self.house.engine, [self.house.log(name) for name in DISPATCHERS]
        searches = rows(engine, "SELECT status, attempt FROM searches")
        trials = rows(engine, "SELECT status, retried FROM trials")
        retried: Counter[str] = Counter()
        for row in trials:
            retried.update(invariants.from_json(row["retried"]) or {})
        journal = [trained(self.ray, spec) for spec in submitted.specs.values()]
        return {
            "kills": dict(self.kills),
            "searches": dict(Counter(row["status"] for row in searches)),
            "attempts_beyond_the_first": sum(row["attempt"] - 1 for row in searches),
            "taken_over": sum(log.count('"search.taken_over"') for log in logs),
            "adopted": sum(log.count('"driver.adopted"') for log in logs),
            "trials": dict(Counter(row["status"] for row in trials)),
            "retried": dict(retried),
            "epochs_trained": sum(times.total() for times in journal),
            "epochs_trained_again": sum(times.total() - len(times) for times in journal),
        }


def _chosen(found: Sequence[Any], fault: Fault) -> Any:
    return found[int(fault.draw * len(found))]


def _kill_one(found: list[psutil.Process], fault: Fault) -> str | None:
    if not found:
        return None
    process = _chosen(sorted(found, key=lambda process: process.pid), fault)
    with suppress(psutil.NoSuchProcess):
        process.kill()
    return str(process.pid)


def soak(seconds: float, seed: int, searches: int, database: str, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Figures, and what is wrong. folder: empty; for the logs."""
    began = time.monotonic()
    kinds = [kind for kind in KINDS if kind != "database" or database == "postgresql"]
    with ExitStack() as stack:
        postgres = stack.enter_context(opened_postgres() if database == "postgresql" else nullcontext())
        url = postgres.database() if postgres is not None else f"sqlite:///{folder / 'attune.db'}"
        if postgres is None:
            engine = make_engine(url)
            upgrade(engine)
            engine.dispose()
        ray = Ray(0, **SEVERAL_HOSTS)
        stack.callback(ray.stop)
        for name, host in NODES.items():
            ray.add_node(name, 1, host=host)
        house = House(url, folder, ray, {"ATTUNE_JANITOR_SECONDS": "5"})
        under_fire = Soak(house, ray, postgres)
        try:
            figures = _under_fire(under_fire, plan(seed, seconds, kinds), seed, searches, seconds)
        finally:
            try:
                house.stop()
            except AssertionError as error:
                under_fire.wrong.append(str(error))
    with suppress(TimeoutError):
        until(lambda: not ray.all_processes(), 30)
    under_fire.wrong += [f"Ray's process {process.pid} is left" for process in ray.all_processes()]
    return figures | {"seconds": round(time.monotonic() - began)}, under_fire.wrong


def _under_fire(soak: Soak, faults: Sequence[Fault], seed: int, searches: int, seconds: float) -> dict[str, Any]:
    house = soak.house
    house.start_api()
    for name in DISPATCHERS:
        house.start_dispatcher(name)
    submitter = Submitter(f"http://127.0.0.1:{house.port}", seed, searches, seconds)
    submitter.start()
    began = time.monotonic()
    for fault in faults:
        soak.wait(began + fault.at)
        soak.strike(fault)
    soak.wait(began + seconds)
    soak.restore()
    last = time.monotonic()
    while submitter.is_alive() and time.monotonic() - last < LIMIT:
        soak.wait(time.monotonic() + 0.5)
    if submitter.problem is not None or submitter.is_alive():
        soak.wrong.append(f"the submitter has not come to its end: {submitter.problem!r}")
    soak.wait_for_ends(LIMIT)
    soak.judge(submitter)
    return soak.figures(submitter)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long things are killed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--searches", type=int, default=20, help="at least so many")
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="postgresql")
    given = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="attune-soak-"))
    figures, wrong = soak(60 * given.minutes, given.seed, given.searches, given.database, folder)
    print(json.dumps({"seed": given.seed, "database": given.database, **figures, "violations": len(wrong)}, indent=2))
    if wrong:
        print("\n".join(["", *wrong, f"The logs are in {folder}."]))
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
