"""Driver processes, started ahead of need: importing Tune and torch takes longer than many a trial."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from db.settings import DatabaseSettings
from workers.processes import ProcessName, Watched
from workers.settings import WorkerSettings
from workers.termination import held_for_children

STOP_SECONDS = 3.0
DRIVER_BYTES = 600_000_000
"""What a driver takes: Python with torch and Ray, and the costs of its space."""
CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
TIED_TO = "ATTUNE_DRIVER_TIED_TO"
"""Environment of a driver that is to end with the process of this id."""
RESPAWN_SECONDS = 10.0
"""Between two spare drivers at least: one that cannot start at all must not be started all the time."""
SETTLE_SECONDS = 15.0
"""After a driver was taken: the next one imports for seconds, on cores that the search that starts has use for."""


def drivers_that_fit() -> int:
    """How many drivers fit into half of the memory that this process may take (its container's, or the machine's)."""
    limits = [psutil.virtual_memory().total]
    for place in CONTAINER_LIMITS:
        with suppress(OSError, ValueError):  # no container, or one without a limit ("max")
            limits.append(int(Path(place).read_text()))
    return max(1, min(limits) // 2 // DRIVER_BYTES)


@dataclass
class Driver:
    """A driver process. attempt: the claim that it runs under. started: when this dispatcher got to know it.

    beats: whether it has renewed its lease once, which is its own business from then on: it works, or it hangs.
    """

    search_id: str
    attempt: int
    process: Watched
    log_file: Path
    adopted: bool = False
    beats: bool = False
    started: float = field(default_factory=time.monotonic)


class DriverPool:
    """Starts drivers; keeps one ready that has imported everything and joined the cluster at `ray_address`.

    tied: the drivers end with this process, because their Ray does.
    """

    def __init__(self, settings: WorkerSettings, ray_address: str, *, tied: bool) -> None:
        self._folder = settings.log_folder
        self._wanted = settings.spare_drivers
        self._warm_processes = settings.warm_processes
        self._ray_address = ray_address
        self._tie = {TIED_TO: str(os.getpid())} if tied else {}
        self._spare: subprocess.Popen[bytes] | None = None
        self._warm = 0  # trial processes that the one launched last has been told to get ready
        self._launched = self._taken = float("-inf")

    def log_file(self, search_id: str) -> Path:
        return self._folder / f"search-{search_id}.log"

    def start(self, search_id: str, attempt: int, register: Callable[[ProcessName], object], share: int = 1) -> Driver:
        """A driver for this search, the spare one if it is alive. share: of the slots.

        `register` is told its name before it is told to work, so that there is no moment in which a driver works and
        nobody can find it. When `register` raises, the process is kept for the next search.
        """
        process = self._take(share)
        name = ProcessName.of(process.pid) or ProcessName(socket.gethostname(), process.pid, "ended")
        try:
            register(name)
        except BaseException:
            self._spare = process
            raise
        order = {"search": search_id, "attempt": attempt, "log": str(self.log_file(search_id))}
        _tell(process, order)
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        return Driver(search_id, attempt, Watched(name, process), self.log_file(search_id))

    def keep_spare(self, share: int) -> None:
        """Starts the next one when the last was taken a while ago or has died. share: slots that one more search would
        have now, for so many it gets trial processes ready; it lets some go when it finds out that it has less."""
        dead = self._spare is not None and self._spare.poll() is not None
        if not self._wanted:
            return
        if self._spare is not None and not dead:
            self._warm_more(self._spare, share)
            return
        if time.monotonic() - self._taken < SETTLE_SECONDS:
            return
        if not dead or time.monotonic() - self._launched >= RESPAWN_SECONDS:
            self._spare = self._launch(share)
            self._launched = time.monotonic()

    def _warm_more(self, spare: subprocess.Popen[bytes], share: int) -> None:
        """Slots have become free since the spare one was started, most often by the end of the search before."""
        wanted = min(self._warm_processes, share)
        if wanted > self._warm:
            self._warm = wanted
            _tell(spare, {"warm": wanted})

    def close(self) -> None:
        if self._spare is not None:
            self._spare.kill()
            self._spare.wait(STOP_SECONDS)
            if self._spare.stdin is not None:
                with suppress(BrokenPipeError):  # what it was told last may not have been written
                    self._spare.stdin.close()
            self._spare = None

    def _take(self, share: int) -> subprocess.Popen[bytes]:
        spare, self._spare = self._spare, None
        self._taken = time.monotonic()
        if spare is not None and spare.poll() is None:
            self._warm_more(spare, share)
            return spare
        return self._launch(share)

    def _launch(self, share: int) -> subprocess.Popen[bytes]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._warm = min(self._warm_processes, share)
        environment = {
            **os.environ,
            "ATTUNE_DATABASE_URL": DatabaseSettings().url,
            "ATTUNE_RAY_ADDRESS": self._ray_address,
            "ATTUNE_WARM_PROCESSES": str(self._warm),
            **self._tie,
        }
        with (self._folder / "drivers.log").open("ab") as output, held_for_children():
            return subprocess.Popen(
                [sys.executable, "-m", "workers.driver"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the dispatcher, which then asks its drivers
            )


def _tell(process: subprocess.Popen[bytes], message: Mapping[str, object]) -> None:
    """Writes a line to a driver's standard input; that one has died just now is found out when it is looked at."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.write(json.dumps(message).encode() + b"\n")
        process.stdin.flush()
