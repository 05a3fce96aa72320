"""How many slots one search keeps busy: on a local Ray, and the driver's loop alone against simulated trials.

    python -m benchmarks.scale real [--slots 16 32] [--seconds 5]
    python -m benchmarks.scale loop [--slots 16 64 256 1024 4096] [--seconds 60] [--epochs 5] [--url URL ...]

real: sleeping trials through the whole service, on logical CPUs. Each trial process has torch in its memory, about
0.4 GB of it.

loop: `SearchRun`, `Ledger` and `Heartbeat` write to real databases (empty ones by `--url`; SQLite by default) while
trials are only a queue of moments at which they report. The slots are simulated and the time is real: a trial that
reports while the loop is busy with others leaves its slot idle.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy
from sqlalchemy import Engine, make_url

from benchmarks.serving import service
from benchmarks.sleeping import Sleep
from db import catalog, claims, searches
from db.catalog import PublishedDataset
from db.engine import make_engine, writing
from db.models import Base, Search
from db.upgrades import upgrade
from search.cost import CostTable
from search.plan import SearchPlan, make_plan
from search.space_cost import SpaceCosts
from search.spec import SearchSpec
from workers.budget import ActiveTime
from workers.costs import SqlCostStore
from workers.heartbeat import Heartbeat
from workers.ledger import Ledger
from workers.logs import configure_logs
from workers.orders import Order, Result
from workers.run import SearchRun
from workers.termination import Termination

LEASE_SECONDS = 15.0
TRIALS = 1_000_000
NODE = "0" * 56


def on_ray(slots: int, seconds: float, rounds: int) -> None:
    """Prints how busy a search of `rounds` trials for each slot keeps them, from the time that all were at work."""
    with service(slots, ATTUNE_WARM_PROCESSES="0") as running:
        search_id = running.submit(rounds * slots, seconds)
        running.ended(search_id, 1800)
        intervals = running.intervals(search_id)
    ends = [end for _, end in intervals]
    begin, end = ends[slots - 1], ends[-slots]
    busy = sum(max(0.0, min(b, end) - max(a, begin)) for a, b in intervals) / (end - begin)
    print(f"{slots:>5} real slots, trials of {seconds:g} s: {busy / slots:.3f} busy, {busy / seconds:.1f} trials/s; "
          f"load average {os.getloadavg()[0]:.1f}", flush=True)  # fmt: skip


@dataclass
class Simulation:
    """Slots in which nothing happens but time. Each trial takes `seconds` and reports `epochs` times.

    reports: taken in so far. finished: trials that have ended so far.
    """

    run: SearchRun
    seconds: float
    epochs: int
    reports: int = 0
    finished: int = 0
    _due: list[tuple[float, int, Order, int]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def epoch_seconds(self) -> float:
        return self.seconds / self.epochs

    def fill(self) -> None:
        """Starts trials in all slots; they are as far on as trials are in the middle of a search."""
        draw = random.Random(0)
        self._start(lambda: (draw.randint(1, self.epochs), draw.uniform(0, self.epoch_seconds)))

    def work(self, until: float) -> None:
        """Takes in reports as they come due and starts the next trials, until the time is up."""
        while (now := time.monotonic()) < until:
            self.run.tick()
            self.run.prepare()
            due, _, order, epoch = self._due[0]
            if due > now:
                time.sleep(min(due, until) - now)
                continue
            heapq.heappop(self._due)
            self._report(order, epoch)

    def _start(self, progress: Callable[[], tuple[int, float]]) -> None:
        """progress: the epoch that a trial is in, and for how long already."""
        while isinstance(order := self.run.next(), Order):
            self.run.began(order.trial_id, NODE)
            epoch, elapsed = progress()
            self._expect(order, epoch, elapsed)

    def _report(self, order: Order, epoch: int) -> None:
        self.reports += 1
        top1 = 0.5 + 0.001 * (hash(order.architecture.key) % 400)
        metrics = {"top1": top1, "top5": 0.99, "loss": 1 - top1}
        self.run.epoch(order.trial_id, epoch, {**metrics, "seconds": self.epoch_seconds})
        if epoch < self.epochs:
            self._expect(order, epoch + 1)
            return
        self.run.succeeded(order.trial_id, Result(metrics, self.epochs, self.seconds, {"torch": "none"}))
        self.finished += 1
        self._start(lambda: (1, 0.0))

    def _expect(self, order: Order, epoch: int, elapsed: float = 0.0) -> None:
        """Counted from now on: a slot whose last report was taken in late has been idle."""
        due = time.monotonic() + self.epoch_seconds - elapsed
        heapq.heappush(self._due, (due, next(self._numbers), order, epoch))


def claimed(engine: Engine, slots: int) -> tuple[Search, SearchPlan]:
    """A new search with `slots` slots, claimed as a dispatcher does it."""
    entry = Sleep().entry()
    asked = {
        "name": "scale",
        "dataset": {"name": "sleep"},
        "backbone": {"name": "resnet50"},
        "space": {"reduction": [2, 4, 8, 16]},
        "strategy": {"name": "random"},
        "budget": {"trials": TRIALS},
    }
    plan = make_plan(SearchSpec.parse(asked), {entry.name: entry})
    with writing(engine) as session:
        published = PublishedDataset(entry.name, entry.fingerprint, entry.model_dump(mode="json"))
        catalog.publish_datasets(session, [published], published_by="benchmark")
        searches.create(session, name="scale", spec=plan.resolved(), spec_version=1)
        search = claims.claim_next(session, "benchmark", LEASE_SECONDS)
        assert search is not None, "the database must be empty"
        claims.set_quotas(session, {search.id: slots})
    return search, plan


@contextmanager
def driving(engine: Engine, slots: int) -> Iterator[SearchRun]:
    """The run of a new search, with the heartbeat that a driver has."""
    search, plan = claimed(engine, slots)
    table = CostTable(plan.backbone, plan.task, SqlCostStore(engine))
    costs = SpaceCosts(plan.space, table)
    ledger = Ledger(engine, search.id, search.attempt, evaluation_lease=2 * LEASE_SECONDS)
    active = ActiveTime()
    heartbeat = Heartbeat(ledger, LEASE_SECONDS, active, Termination())
    run = SearchRun(plan, costs, table, ledger, active)
    run.set_quota(slots)
    heartbeat.start()
    heartbeat.attach(run)
    try:
        yield run
    finally:
        heartbeat.stop()
        ledger.flush()


def rows(engine: Engine) -> int:
    """Rows of all tables."""
    counts = [sqlalchemy.select(sqlalchemy.func.count()).select_from(table) for table in Base.metadata.sorted_tables]
    with engine.connect() as connection:
        return sum(connection.scalar(count) or 0 for count in counts)


def in_a_loop(url: str, slots: int, seconds: float, epochs: int, measured: float) -> None:
    """Fills the slots, works for `measured` seconds and prints how busy they were."""
    engine = make_engine(url)
    upgrade(engine)
    with driving(engine, slots) as run:
        simulation = Simulation(run, seconds, epochs)
        began = time.monotonic()
        simulation.fill()
        filled = time.monotonic() - began
        before, cpu, began = rows(engine), time.process_time(), time.monotonic()
        simulation.work(began + measured)
        took, cpu = time.monotonic() - began, time.process_time() - cpu
        run.ledger.flush()
        behind = time.monotonic() - began - took
    written = rows(engine) - before
    engine.dispose()
    busy = simulation.reports * simulation.epoch_seconds / (slots * took)
    print(f"{slots:>5} slots, {seconds:g} s and {epochs} epochs a trial, {make_url(url).get_backend_name()}: "
          f"filled in {filled:.1f} s; {busy:.3f} busy, {simulation.finished / took:.1f} trials/s and "
          f"{written / took:.0f} rows/s, writes {behind:.1f} s behind; {cpu / took:.2f} cores, "
          f"{1e3 * cpu / max(1, simulation.finished):.1f} ms of CPU a trial; load average {os.getloadavg()[0]:.1f}",
          flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("real", "loop"))
    parser.add_argument("--slots", type=int, nargs="+")
    parser.add_argument("--seconds", type=float, help="of a trial; default: 5 (real), 60 (loop)")
    parser.add_argument("--rounds", type=int, default=6, help="real: trials for each slot")
    parser.add_argument("--epochs", type=int, default=5, help="loop: of a trial")
    parser.add_argument("--measured", type=float, default=30.0, help="loop: seconds")
    parser.add_argument("--url", nargs="*", default=[], help="loop: empty databases, one for each number of slots")
    asked = parser.parse_args()
    if asked.part == "real":
        for slots in asked.slots or (16, 32):
            on_ray(slots, asked.seconds or 5.0, asked.rounds)
        return
    sizes = asked.slots or (16, 64, 256, 1024, 4096)
    if asked.url and len(asked.url) != len(sizes):
        parser.error(f"--url: {len(asked.url)} databases for {len(sizes)} numbers of slots")
    with tempfile.TemporaryDirectory(prefix="attune-scale-") as folder, Path(folder, "driver.log").open("w") as log:
        with redirect_stderr(log):
            configure_logs()  # a driver's log is a file too
        urls = asked.url or [f"sqlite:///{folder}/{slots}.db" for slots in sizes]
        for slots, url in zip(sizes, urls, strict=True):
            in_a_loop(url, slots, asked.seconds or 60.0, asked.epochs, asked.measured)


if __name__ == "__main__":
    main()
