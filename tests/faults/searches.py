"""Searches over `troubles`, and what became of their trials."""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from sqlalchemy import make_url, text

from db.engine import writing
from db.errors import DatabaseUnavailable
from tests.e2e.house import House, Ray, until
from tests.e2e.troubles import expected_top1
from tests.faults.invariants import from_json, rows

CLOCK = Path(__file__).parent / "clock"
"""Put first on a Python process's path, it shifts its clock."""
HOUR, DAY = 3_600, 86_400
LEASE = 4.0
"""Seconds, as the houses' processes have it."""
PATIENCE = 300.0
"""Seconds for what takes a few on an idle machine: a search's processes have to import torch."""

_markers = itertools.count(1)


def troubled(*, epochs: int = 1, concurrent: int = 2, trials: int = 8, **dataset: Any) -> dict[str, Any]:
    """A request with 8 placements at most, of 0 to 3 sites, and a marker of its own. dataset: options of `troubles`."""
    marker = next(_markers)
    return {
        "name": f"marker {marker}",
        "dataset": {"name": "troubles", "marker": marker, **dataset},
        "backbone": {"name": "resnet8", "width": 8},
        "space": {"modules": ["none", "se"], "reduction": [2], "pattern": ["last"]},
        "training": {"epochs": epochs},
        "resources": {"concurrent": concurrent},
        "controls": False,
        "budget": {"trials": trials},
    }


def held_up(epochs: int, seconds: float) -> dict[str, Any]:
    """A request that cannot come to its end before another driver or process takes over: its baseline hangs, once, in
    the second epoch, while the others go on."""
    return troubled(epochs=epochs, seconds=seconds, trouble="hang", sites=0, epoch=2, times=1)


def wait_until_held_up(house: House, search_id: str, spec: dict[str, Any], results: int) -> None:
    """Until the baseline hangs and so many others have succeeded."""
    assert house.ray is not None
    ray = house.ray
    until(lambda: "trouble" in [line["event"] for line in ray.journal(marker_of(spec))], PATIENCE)
    wait_for_results(house, [search_id], results)


def marker_of(spec: dict[str, Any]) -> int:
    marker: int = spec["dataset"]["marker"]
    return marker


def trained(ray: Ray, spec: dict[str, Any]) -> Counter[tuple[str, int]]:
    """How often each epoch of each architecture was trained to its end, by (key, epoch)."""
    journal = ray.journal(marker_of(spec))
    return Counter((line["key"], line["epoch"]) for line in journal if line["event"] == "epoch")


def pids(ray: Ray, spec: dict[str, Any]) -> dict[str, list[int]]:
    """The processes that have worked on each architecture, in their order."""
    found: dict[str, list[int]] = defaultdict(list)
    for line in ray.journal(marker_of(spec)):
        if line["pid"] not in found[line["key"]]:
            found[line["key"]].append(line["pid"])
    return found


def notes(house: House, search_id: str, kind: str) -> list[dict[str, Any]]:
    """What events of that kind say."""
    found = rows(house.engine, f"SELECT data FROM events WHERE search_id = '{search_id}' AND kind = '{kind}'")
    return [from_json(row["data"]) for row in found]


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Another process writes and does not come to an end; reading goes on."""
    if url.startswith("sqlite"):
        holder = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        yield
        holder.execute("ROLLBACK")
        holder.close()
        return
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain) as holder_:
        holder_.execute("LOCK TABLE searches IN EXCLUSIVE MODE")
        yield
        holder_.rollback()


def attempt(house: House, search_id: str) -> int:
    number: int = rows(house.engine, f"SELECT attempt FROM searches WHERE id = '{search_id}'")[0]["attempt"]
    return number


def dispatcher_of(house: House, driver: psutil.Process) -> str:
    """The name of the dispatcher that has started it."""
    return next(name for name, process in house.processes.items() if process.pid == driver.ppid())


def succeeded(house: House, search_id: str) -> int:
    number: int = house.client.search(search_id)["counts"].get("succeeded", 0)
    return number


def wait_for_results(house: House, search_ids: Sequence[str], count: int) -> None:
    """Until that many trials of these searches have succeeded."""
    until(lambda: sum(succeeded(house, search_id) for search_id in search_ids) >= count, PATIENCE)


def wait_for_training(house: House, spec: dict[str, Any], epochs: int = 1, seconds: float = PATIENCE) -> dict[str, Any]:
    """The journal's line of the first trial that has that many epochs and goes on."""
    assert house.ray is not None
    ray = house.ray

    def training() -> dict[str, Any] | None:
        lines = ray.journal(marker_of(spec))
        return next((line for line in lines if line["event"] == "begin" and line["epoch"] >= epochs), None)

    return until(training, seconds, every=0.02)


def wait_until_gone(processes: list[psutil.Process], seconds: float) -> float:
    """Seconds until the last of them was gone; TimeoutError when that takes longer."""
    began = time.monotonic()
    until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes), seconds, 0.02)
    return time.monotonic() - began


def suspend(house: House, processes: Sequence[psutil.Process]) -> None:
    """Stops them outside of a transaction: SQLite has no way to take a lock from a process that stands still, not even
    a reader's, and the others wait until it goes on (PostgreSQL ends its session after 15 s)."""

    def stopped() -> bool:
        for process in processes:
            process.suspend()
        if _is_free(house):
            return True
        for process in processes:
            process.resume()
        return False

    until(stopped, PATIENCE)


def _is_free(house: House) -> bool:
    """Whether nobody holds a lock that could keep another driver from its work."""
    if house.engine.dialect.name == "sqlite":
        with closing(sqlite3.connect(house.database_url.removeprefix("sqlite:///"), timeout=1.0)) as connection:
            try:
                connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError:
                return False
            return True
    try:
        with writing(house.engine) as session:
            session.execute(text("SELECT id FROM searches FOR UPDATE NOWAIT"))
    except DatabaseUnavailable:
        return False
    return True


def check_results(house: House, search_id: str, epochs: int) -> None:
    """Every trial that succeeded has learned from each epoch once and in order, whatever happened to it."""
    for trial in house.client.trials(search_id, status="succeeded"):
        detail = house.client._json("GET", f"/api/v1/trials/{trial['id']}")
        placements = len(detail["architecture"]["placements"])
        assert trial["epochs"] == epochs
        assert trial["top1"] == pytest.approx(expected_top1(placements, epochs), abs=1e-9)
