"""A whole house per database: API and dispatcher as processes of their own, on one Ray for the whole run."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import pytest

from service.client import Client

T = TypeVar("T")
ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], T], seconds: float = 60.0, every: float = 0.1) -> T:
    """The first true value of `condition`; TimeoutError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s in vain")
        time.sleep(every)
    return value


@dataclass
class House:
    """One service over one database. Everything it starts is stopped with it."""

    database_url: str
    home: Path
    ray: dict[str, str]
    port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ATTUNE_")}
        return (
            kept
            | self.ray
            | {
                "ATTUNE_HOME": str(self.home),
                "ATTUNE_DATABASE_URL": self.database_url,
                "ATTUNE_PLUGINS": "tests.e2e.troubles",
                "ATTUNE_LEASE_SECONDS": "4",
                "PYTHONPATH": str(ROOT),
            }
        )

    @cached_property
    def client(self) -> Client:
        return Client(f"http://127.0.0.1:{self.port}")

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        log = (self.home / f"{name}.log").open("ab")
        process = subprocess.Popen([sys.executable, "-m", *command], env=self.environment, stdout=log, stderr=log)
        log.close()
        self.processes[name] = process
        return process

    def start_api(self) -> None:
        self.start("api", "uvicorn", "service.app:create_app", "--factory", "--port", str(self.port),
                   "--timeout-graceful-shutdown", "2")  # fmt: skip
        until(self.client.ready, 60)

    def start_dispatcher(self, name: str = "dispatcher") -> None:
        self.start(name, "workers.dispatcher")
        until(lambda: "troubles" in [item["name"] for item in self.client.catalog("datasets")["items"]], 60)

    def finished(self, search_id: str, seconds: float = 120.0) -> dict:
        """The search once it has ended; the logs are in the error when it does not."""
        try:
            return until(lambda: self._ended(search_id), seconds)
        except TimeoutError as error:
            logs = [path.read_text(errors="replace")[-3000:] for path in sorted(self.home.rglob("*.log"))]
            raise TimeoutError("\n".join([str(error), *logs])) from None

    def _ended(self, search_id: str) -> dict | None:
        search = self.client.search(search_id)
        return search if search["status"] in ("succeeded", "failed", "cancelled") else None

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for name, process in self.processes.items():
            assert process.wait(timeout=40) is not None, name
        self.client.close()


@pytest.fixture(scope="session")
def ray_node() -> Iterator[dict[str, str]]:
    """The environment that reaches a Ray of two slots, shared by the whole run; started as docker-compose's head is."""
    port, folder = free_port(), Path(tempfile.mkdtemp(prefix="attune-test-ray-"))
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "PYTHONPATH": str(ROOT),
        "ATTUNE_PLUGINS": "tests.e2e.troubles",
        "ATTUNE_HOME": str(folder),
    }
    command = ["ray", "start", "--head", f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=2",
               "--include-dashboard=false", f"--temp-dir={folder}", "--block"]  # fmt: skip
    binary = str(Path(sys.executable).parent / "ray")
    with (folder / "head.log").open("wb") as log:
        head = subprocess.Popen([binary, *command[1:]], env=os.environ | environment, stdout=log, stderr=log)
    try:
        until(lambda: "Ray runtime started" in (folder / "head.log").read_text(errors="replace"), 60)
        yield environment | {"ATTUNE_RAY_ADDRESS": f"127.0.0.1:{port}"}
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def opened_house(database_url: str, home: Path, ray: dict[str, str]) -> Iterator[House]:
    house = House(database_url, home, ray)
    try:
        house.start_api()
        house.start_dispatcher()
        yield house
    finally:
        house.stop()


@pytest.fixture
def house(database_url: str, tmp_path: Path, ray_node: dict[str, str]) -> Iterator[House]:
    """The service over this test's database, once on SQLite and once on PostgreSQL."""
    home = tmp_path / "home"
    home.mkdir()
    with opened_house(database_url, home, ray_node) as opened:
        yield opened


@pytest.fixture
def sqlite_house(tmp_path: Path, sqlite_template: Path, ray_node: dict[str, str]) -> Iterator[House]:
    """The service over SQLite, for tests that are about something else than the database."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(sqlite_template, home / "attune.db")
    with opened_house(f"sqlite:///{home / 'attune.db'}", home, ray_node) as opened:
        yield opened
