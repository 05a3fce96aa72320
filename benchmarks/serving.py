"""A service for benchmarks: `attune serve` in a home of its own, with the data set `sleep`, and what is asked of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from service.client import AttuneError, Client

ENDED = ("succeeded", "failed", "cancelled")
IDLE_SHARE = 0.1
"""Cores that a service with nothing to do may use."""


@dataclass
class Service:
    """A running service. process: the supervisor, parent of all others."""

    client: Client
    process: psutil.Process
    home: Path

    def processes(self, module: str) -> list[psutil.Process]:
        """Those of its processes whose command line names `module`."""
        found = []
        for process in self.process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if module in process.cmdline():
                    found.append(process)
        return found

    def cpu_seconds(self) -> float:
        """User and system time of all its processes that run now."""
        total = 0.0
        for process in [self.process, *self.process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def settle(self, seconds: float = 300.0) -> None:
        """Waits until a driver is ready, and its trial processes: there is one, and nothing uses the processor."""
        deadline = time.monotonic() + seconds
        quiet = 0
        while quiet < 2:
            before = self.cpu_seconds()
            time.sleep(2.0)
            still = self.cpu_seconds() - before < 2 * IDLE_SHARE and bool(self.processes("workers.driver"))
            quiet = quiet + 1 if still else 0
            if time.monotonic() > deadline:
                raise TimeoutError("the service does not come to rest")

    def submit(self, trials: int, seconds: float, *, seed: int = 0, epochs: int = 1) -> str:
        """POSTs a search of `trials` trials whose epochs sleep for `seconds`; its id."""
        spec = {
            "name": "sleep",
            "dataset": {"name": "sleep", "seconds": seconds},
            "backbone": {"name": "resnet14", "width": 64},
            "space": {"reduction": [2, 4, 8, 16], "pattern": ["every", "first", "last"]},
            "controls": False,
            "training": {"epochs": epochs},
            "strategy": {"name": "random", "seed": seed},
            "budget": {"trials": trials - 1},  # and the baseline
        }
        return str(self.client.submit(spec)["id"])

    def ended(self, search_id: str, seconds: float = 900.0) -> dict[str, Any]:
        """The search once it has ended well."""
        until(lambda: self.client.search(search_id)["status"] in ENDED, seconds, every=0.5)
        search = self.client.search(search_id)
        if search["status"] != "succeeded":
            raise RuntimeError(f"the search {search['status']}: {search['error']}")
        return dict(search)

    def intervals(self, search_id: str) -> list[tuple[float, float]]:
        """When each finished trial began and ended (seconds since 1970), by its end."""
        trials = [trial for trial in self.client.trials(search_id) if trial["finished_at"]]
        return sorted(((moment(t["started_at"]), moment(t["finished_at"])) for t in trials), key=lambda pair: pair[1])


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def until(condition: Callable[[], Any], seconds: float, every: float = 0.1) -> None:
    """Waits for a true value of `condition`; an API that is away for a moment is asked again."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(AttuneError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise TimeoutError("the service did not get there")
        time.sleep(every)


@contextmanager
def service(slots: int, **settings: str) -> Iterator[Service]:
    """A service with so many slots; gone with all its processes at the end. settings: further environment."""
    with tempfile.TemporaryDirectory(prefix="attune-bench-") as folder, socket.socket() as free:
        home = Path(folder)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ATTUNE_")}
        environment = kept | {
            "ATTUNE_HOME": folder,
            "ATTUNE_SLOTS": str(slots),
            "ATTUNE_PLUGINS": "benchmarks.sleeping",
            "PYTHONPATH": str(Path(__file__).parents[1]),
            **settings,
        }
        command = [sys.executable, "-m", "service.cli.main", "serve", "--port", str(port)]
        with (home / "serve.log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            with Client(f"http://127.0.0.1:{port}", token="") as client:
                until(lambda: "sleep" in [item["name"] for item in client.catalog("datasets")["items"]], 180)
                yield Service(client, psutil.Process(process.pid), home)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
