"""A whole service as processes of this machine: API, dispatchers, a Ray of several nodes; and ways to end each."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import psutil
from sqlalchemy import Engine

from db.engine import make_engine
from service.client import Client

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
MARK = "ATTUNE_TEST_MARK"
"""Environment of every process of one house, which its children inherit."""
SEVERAL_HOSTS = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
"""Environment of a Ray whose nodes have addresses of their own; it then listens on more than loopback."""
PLUGIN, PLUGIN_DATASET = "tests.e2e.troubles", "troubles"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], T | None], seconds: float = 60.0, every: float = 0.1) -> T:
    """The first true value of `condition`; TimeoutError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s in vain")
        time.sleep(every)
    return value


def kill_tree(process: psutil.Process) -> None:
    """SIGKILL for a process and all that it has started, itself first so that it starts nothing again."""
    with suppress(psutil.NoSuchProcess):
        children = process.children(recursive=True)
        for one in (process, *children):
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs([process, *children], timeout=10)


def marked(variable: str) -> list[psutil.Process]:
    """The processes that have this ("NAME=value") in their environment."""
    found = []
    for pid in psutil.pids():
        with suppress(OSError, psutil.NoSuchProcess):
            if variable.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(psutil.Process(pid))
    return found


class Ray:
    """A standing Ray on loopback, started as docker-compose's is: `ray start` for the head and for each node.

    environment: what reaches it. journal: what its trial processes write (see `troubles`).
    """

    def __init__(self, cpus: int, **environment: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="attune-test-ray-"))  # short: Ray's sockets lie below it
        self.journal_file = self.folder / "journal"
        self.port = free_port()
        self._own = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_worker_niceness": "0",  # trial processes are what tests wait for
            "PYTHONPATH": str(ROOT),
            "ATTUNE_PLUGINS": PLUGIN,
            "ATTUNE_HOME": str(self.folder),
            "TROUBLES_FOLDER": str(self.folder),
            **environment,
        }
        self.environment = self._own | {"ATTUNE_RAY_ADDRESS": f"127.0.0.1:{self.port}"}
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self._cpus = cpus
        try:
            self.start_head()
        except BaseException:
            self.stop()
            raise

    def start_head(self) -> None:
        """Starts the head, again when it has been killed."""
        self._start("head", "--head", f"--port={self.port}", f"--temp-dir={self.folder}", "--include-dashboard=false",
                    f"--num-cpus={self._cpus}")  # fmt: skip

    def add_node(self, name: str, cpus: int, gpus: int = 0, host: str = "127.0.0.1") -> None:
        """gpus: logical ones, which need no hardware. host: a loopback address of its own makes it another machine,
        which no dispatcher or driver joins by chance; only in a Ray with SEVERAL_HOSTS."""
        self._start(name, f"--address=127.0.0.1:{self.port}", f"--num-cpus={cpus}", f"--num-gpus={gpus}", host=host)

    def kill_node(self, name: str) -> None:
        """The machine is lost: everything on it at once."""
        node = self.nodes.pop(name)
        kill_tree(psutil.Process(node.pid))
        node.wait(10)

    def trial_processes(self) -> list[psutil.Process]:
        """The processes that train or wait for a trial now, on every node."""
        found = []
        for node in self.nodes.values():
            with suppress(psutil.NoSuchProcess):
                found += [p for p in psutil.Process(node.pid).children(recursive=True) if _is_trial(p)]
        return found

    def all_processes(self) -> list[psutil.Process]:
        """Every process of this Ray, those that have lost their parent included."""
        return marked(f"RAY_AUTH_TOKEN={self._own['RAY_AUTH_TOKEN']}")

    def journal(self, marker: int) -> list[dict[str, Any]]:
        """What trials with this marker have written, oldest first."""
        if not self.journal_file.exists():
            return []
        lines = [json.loads(line) for line in self.journal_file.read_text().splitlines()]
        return [line for line in lines if line["marker"] == marker]

    def stop(self) -> None:
        for node in reversed(self.nodes.values()):
            node.send_signal(signal.SIGTERM)
        for node in self.nodes.values():
            try:
                node.wait(30)
            except subprocess.TimeoutExpired:
                kill_tree(psutil.Process(node.pid))
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, name: str, *options: str, host: str = "127.0.0.1") -> None:
        ray = str(Path(sys.executable).parent / "ray")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ATTUNE_")}
        command = [ray, "start", f"--node-ip-address={host}", "--block", *options]
        path = self.folder / f"{name}.log"
        with path.open("wb") as log:
            self.nodes[name] = subprocess.Popen(command, env=kept | self._own, stdout=log, stderr=log)

        def started() -> bool:
            if "Ray runtime started" in path.read_text(errors="replace"):
                return True
            assert self.nodes[name].poll() is None, path.read_text(errors="replace")
            return False

        until(started, 180)


def _is_trial(process: psutil.Process) -> bool:
    """A trial's own process, or a further worker of it, which may not outlive it (`workers.team`).

    One that waits for its first trial is not counted: it is a `ray::IDLE` as those are that Ray keeps for whoever comes
    next. RAY_JOB_ID in its environment is of the job it was started for, and of none for Ray's own (ffffffff) even when
    one works for a job; and which driver a job has is not in the process table.
    """
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        title = " ".join(process.cmdline())
        return title.startswith("ray::") and any(name in title for name in ("Trainable", "TrialActor", "ray::Member"))
    return False


@contextmanager
def opened_ray(cpus: int, **environment: str) -> Iterator[Ray]:
    ray = Ray(cpus, **environment)
    try:
        yield ray
    finally:
        ray.stop()


@dataclass
class House:
    """One service over one database. Everything it starts is stopped with it.

    ray: None where nothing is trained. settings: further environment of its processes.
    """

    database_url: str
    home: Path
    ray: Ray | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def temp(self) -> Path:
        """Where the house's processes put temporary files."""
        return self.home / "tmp"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ATTUNE_")}
        own = {
            "ATTUNE_HOME": str(self.home),
            "ATTUNE_DATABASE_URL": self.database_url,
            "ATTUNE_PLUGINS": PLUGIN,
            "ATTUNE_LEASE_SECONDS": "4",
            "ATTUNE_WARM_PROCESSES": "0",  # starting some for every house would take longer than most tests
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(self.temp),
            MARK: self.mark,
        }
        return kept | (self.ray.environment if self.ray else {}) | own | dict(self.settings)

    @cached_property
    def client(self) -> Client:
        return Client(f"http://127.0.0.1:{self.port}")

    @cached_property
    def engine(self) -> Engine:
        """The house's database, to look at what a user cannot see."""
        return make_engine(self.database_url)

    def start(self, name: str, *command: str, **settings: str) -> subprocess.Popen[bytes]:
        self.temp.mkdir(parents=True, exist_ok=True)
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command], env=self.environment | settings, stdout=log, stderr=log
            )
        self.processes[name] = process
        return process

    def launch_api(self, name: str = "api", **settings: str) -> None:
        """Starts it without waiting."""
        self.start(name, "uvicorn", "service.app:create_app", "--factory", "--port", str(self.port),
                   "--timeout-graceful-shutdown", "2", **settings)  # fmt: skip

    def start_api(self, name: str = "api", **settings: str) -> None:
        self.launch_api(name, **settings)
        until(self.client.ready, 90)

    def launch_dispatcher(self, name: str = "dispatcher", **settings: str) -> None:
        """Starts it without waiting."""
        self.start(name, "workers.dispatcher", **settings)

    def start_dispatcher(self, name: str = "dispatcher", **settings: str) -> None:
        before = self.log(name).count("dispatcher.ready")
        self.launch_dispatcher(name, **settings)
        until(lambda: self.log(name).count("dispatcher.ready") > before, 180)
        until(lambda: PLUGIN_DATASET in [item["name"] for item in self.client.catalog("datasets")["items"]], 60)

    def log(self, name: str) -> str:
        path = self.home / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def process(self, name: str) -> psutil.Process:
        return psutil.Process(self.processes[name].pid)

    def kill(self, name: str) -> None:
        """kill -9 of a process that `start` has started, and of nothing else."""
        process = self.processes.pop(name)
        process.kill()
        process.wait(10)

    def end(self, name: str) -> None:
        """SIGTERM, and what it takes to stop."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(60)

    def all_processes(self) -> list[psutil.Process]:
        """Every process with the house's mark in its environment."""
        return marked(f"{MARK}={self.mark}")

    def drivers(self) -> list[psutil.Process]:
        """The house's drivers, spare ones included."""
        return [process for process in self.all_processes() if "workers.driver" in _command(process)]

    def driver(self, search_id: str, seconds: float = 60.0) -> psutil.Process:
        """The driver at work on a search: it writes the search's log."""
        log = self.home / "logs" / f"search-{search_id}.log"

        def find() -> psutil.Process | None:
            for process in self.drivers():
                with suppress(OSError):
                    if Path(os.readlink(f"/proc/{process.pid}/fd/2")) == log:
                        return process
            return None

        return until(find, seconds)

    def finished(self, search_id: str, seconds: float = 200.0) -> dict[str, Any]:
        """The search once it has ended; the logs are in the error when it does not."""
        try:
            return until(lambda: self._ended(search_id), seconds, every=0.25)
        except TimeoutError as error:
            logs = [path.read_text(errors="replace")[-3000:] for path in sorted(self.home.rglob("*.log"))]
            raise TimeoutError("\n".join([str(error), *logs])) from None

    def _ended(self, search_id: str) -> dict[str, Any] | None:
        search = self.client.search(search_id)
        return search if search["status"] in ("succeeded", "failed", "cancelled") else None

    def stop(self) -> None:
        """Ends everything in order; AssertionError when something outlives its end."""
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
        try:
            for process in self.processes.values():
                process.wait(timeout=60)
            until(lambda: not self.all_processes(), 15)
        except (subprocess.TimeoutExpired, TimeoutError):
            left = [(process.pid, _command(process)) for process in self.all_processes()]
            raise AssertionError(f"these outlive their house: {left}") from None
        finally:
            for left_over in self.all_processes():
                kill_tree(left_over)
            self.client.close()
            self.engine.dispose()


def _command(process: psutil.Process) -> list[str]:
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return process.cmdline()
    return []


@contextmanager
def opened_house(database_url: str, home: Path, ray: Ray, **settings: str) -> Iterator[House]:
    house = House(database_url, home, ray, settings)
    try:
        house.start_api()
        house.start_dispatcher()
        yield house
    finally:
        house.stop()
