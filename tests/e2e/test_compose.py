"""docker-compose.yml is honest: each service's own command, run as a local process, makes a cluster that searches and
survives what is killed of it.

There is no docker engine where this is tested, so host names become loopback addresses (one for each container, as
Ray's nodes need addresses of their own), and PostgreSQL comes from a wheel; commands and variables are the file's.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from db.engine import make_engine
from service.client import Client
from tests.e2e.house import PLUGIN, ROOT, free_port, kill_tree, until
from tests.faults import invariants

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
MARK = "ATTUNE_TEST_MARK"
PATIENCE = 300.0
"""Seconds for what takes a few on an idle machine: starting processes that import torch."""


class Cluster:
    """The services of docker-compose.yml as processes of this machine."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        self.mark = secrets.token_hex(8)
        self.ray_port, self.api_port = free_port(), free_port()
        self.secrets = {"ATTUNE_TOKEN": secrets.token_hex(16), "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.database = database

    def start(self, service: str, *more: str, name: str = "") -> subprocess.Popen[bytes]:
        """The service's own command; `more` arguments stand for what a container would bring (an address, its CPUs).

        name: of this container, when a service has several.
        """
        described = COMPOSE["services"][service]
        command = [self._local(part) for part in described["command"]]
        if command[0] == "sh":
            command[2] = command[2].replace(" &&", f" {' '.join(more)} &&")
        else:
            command += more
        with (self.folder / f"{name or service}.log").open("ab") as log:
            process = subprocess.Popen(
                command, env=self._environment(described), stdout=log, stderr=log, start_new_session=True
            )
        self.processes[name or service] = process
        return process

    def start_ray(self, service: str, *more: str, name: str = "") -> None:
        """A service that is a Ray node; started again when it fails, as the file's `restart` says."""
        assert COMPOSE["services"][service]["restart"] == "unless-stopped"

        def started() -> bool:
            if self.processes[name or service].poll() is not None:
                self.start(service, *more, name=name)
            return "Ray runtime started" in self.log(name or service)

        self.start(service, *more, name=name)
        until(started, PATIENCE)

    def _environment(self, described: dict[str, Any]) -> dict[str, str]:
        environment = {name: self._local(str(value)) for name, value in described.get("environment", {}).items()}
        if "ATTUNE_DATABASE_URL" in environment:
            environment["ATTUNE_DATABASE_URL"] = self.database
        if "ATTUNE_STORAGE" in environment:
            environment["ATTUNE_STORAGE"] = str(self.folder / "storage")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ATTUNE_", "RAY_"))}
        image = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ATTUNE_HOME": str(self.folder),
            "ATTUNE_PLUGINS": PLUGIN,  # a data set whose trials need no GPU when they have been given one
            "TROUBLES_FOLDER": str(self.folder),
            "PYTHONPATH": str(ROOT),
        }
        return kept | image | environment | {MARK: self.mark}

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def all_processes(self) -> list[psutil.Process]:
        """Every process that carries this cluster's mark, and its children: those that rename themselves lose it."""
        parents: dict[int, int] = {}
        ours: set[int] = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with suppress(OSError):
                    pid = int(entry.name)
                    parents[pid] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    if f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes():
                        ours.add(pid)
        while children := {pid for pid, parent in parents.items() if parent in ours} - ours:
            ours |= children
        found = []
        for pid in ours:
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
        return found

    def named(self, text: str) -> list[psutil.Process]:
        found = []
        for process in self.all_processes():
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if text in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def driver_of(self, search_id: str) -> psutil.Process | None:
        """The driver at work on a search: it writes the search's log."""
        log = self.folder / "logs" / f"search-{search_id}.log"
        for process in self.named("workers.driver"):
            with suppress(OSError):
                if Path(os.readlink(f"/proc/{process.pid}/fd/2")) == log:
                    return process
        return None

    def dispatcher(self, number: int) -> psutil.Process:
        """The shell of the service's command has become `python -m workers.dispatcher`."""
        process = psutil.Process(self.processes[f"dispatcher-{number}"].pid)
        assert "workers.dispatcher" in process.cmdline()
        return process

    def stop(self) -> None:
        """Ends everything: `ray start` leaves daemons behind."""
        for process in self.all_processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for child in self.processes.values():
            child.wait(10)

    def _local(self, text: str) -> str:
        text = re.sub(r"\$\{(\w+)(?::[?-][^}]*)?\}", lambda found: self.secrets.get(found[1], ""), text)
        text = text.replace("ray-head:6379", f"127.0.0.1:{self.ray_port}").replace("0.0.0.0", "127.0.0.1")
        return text.replace("--port=6379", f"--port={self.ray_port}").replace("8000", str(self.api_port))


@pytest.fixture
def cluster(empty_postgresql_url: str) -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="attune-c-"))  # short: Ray's sockets lie below it
    made = Cluster(folder, empty_postgresql_url)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_every_service_has_a_command_that_this_test_runs() -> None:
    assert set(COMPOSE["services"]) == {"postgres", "migrate", "ray-head", "worker", "dispatcher", "api"}
    for name, described in COMPOSE["services"].items():
        secret = {"ATTUNE_DATABASE_URL", "ATTUNE_TOKEN"} & set(described.get("environment", {}))
        assert not (name in ("worker", "ray-head") and secret), f"{name} must not know {secret}"
    assert "worker" in yaml.compose((ROOT / "docker-compose.cpu.yml").read_text()).value[0][1].value[0][0].value


def test_dispatchers_and_workers_share_one_storage_volume() -> None:
    place = COMPOSE["services"]["dispatcher"]["environment"]["ATTUNE_STORAGE"]
    for name in ("worker", "dispatcher"):
        assert COMPOSE["services"][name]["volumes"] == [f"storage:{place}"]
    assert "storage" in COMPOSE["volumes"]


def _open(cluster: Cluster) -> None:
    """Starts what `docker compose up --scale worker=2 --scale dispatcher=2` does, each worker with a logical GPU."""
    migrate = cluster.start("migrate")
    assert migrate.wait(PATIENCE) == 0, cluster.log("migrate")
    cluster.start_ray("ray-head", "--node-ip-address=127.0.0.1", f"--temp-dir={cluster.folder}")
    for number in (1, 2):
        own = ("--num-cpus=2", "--num-gpus=1", f"--node-ip-address=127.0.0.{number + 1}")
        cluster.start_ray("worker", *own, name=f"worker-{number}")
    for number in (1, 2):
        cluster.start("dispatcher", f"--node-ip-address=127.0.0.{number + 3}", name=f"dispatcher-{number}")
        until(lambda number=number: "dispatcher.ready" in cluster.log(f"dispatcher-{number}"), PATIENCE)  # type: ignore[misc]
    cluster.start("api")


def _request(**more: Any) -> dict[str, Any]:
    return {
        "name": "composed",
        "backbone": {"name": "resnet8", "width": 4},
        "space": {"modules": ["none", "se"], "reduction": [2, 4], "pattern": ["every", "last"]},
        "controls": False,
        **more,
    }


def _finished(client: Client, search_id: str) -> int:
    return client.search(search_id)["counts"].get("succeeded", 0)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_services_own_commands_make_a_cluster_that_survives_kills(cluster: Cluster) -> None:
    _open(cluster)
    with Client(f"http://127.0.0.1:{cluster.api_port}", token=cluster.secrets["ATTUNE_TOKEN"]) as client:
        until(client.ready, PATIENCE)
        digits = _request(dataset={"name": "digits"}, training={"epochs": 1}, budget={"trials": 2})
        trained = client.submit(digits)["id"]
        until(lambda: client.search(trained)["status"] not in ("queued", "running"), PATIENCE)
        assert client.search(trained)["status"] == "succeeded", cluster.log("dispatcher-1")[-3000:]
        assert _finished(client, trained) == 3

        troubled = _request(
            dataset={"name": "troubles", "seconds": 1.0, "marker": 1},
            training={"epochs": 3},
            budget={"trials": 24},
            resources={"cpus": 0.5, "gpus": 0.25},
        )
        search_id = client.submit(troubled)["id"]
        until(lambda: _finished(client, search_id) >= 2, PATIENCE)
        engine = make_engine(cluster.database)
        before = invariants.committed(engine)
        _kill_while_it_runs(cluster, client, search_id)
        until(lambda: client.search(search_id)["status"] not in ("queued", "running"), PATIENCE)
        search = client.search(search_id)
        assert search["status"] == "succeeded", (search["error"], cluster.log("dispatcher-2")[-3000:])
        assert search["counts"]["succeeded"] == 25
        assert invariants.database_violations(engine, before) == []
        engine.dispose()
    _check_ends(cluster)


def _kill_while_it_runs(cluster: Cluster, client: Client, search_id: str) -> None:
    """A driver, a dispatcher and a worker, one after the other; after each, the search gets on."""

    def gets_on() -> None:
        done = _finished(client, search_id)
        until(lambda: _finished(client, search_id) > done, PATIENCE)

    until(lambda: cluster.driver_of(search_id), PATIENCE).kill()
    gets_on()
    cluster.dispatcher(1).kill()  # its drivers live on, and the other dispatcher of this machine adopts them
    gets_on()
    kill_tree(psutil.Process(cluster.processes["worker-1"].pid))
    until(lambda: len([node for node in client.cluster()["nodes"] if node["gpus"]]) == 1, PATIENCE)
    gets_on()


def _check_ends(cluster: Cluster) -> None:
    """Nothing of a search outlives it, and nothing of a dispatcher outlives that."""
    until(lambda: len(cluster.named("workers.driver")) <= 1, PATIENCE)  # a spare one
    cluster.dispatcher(2).send_signal(signal.SIGTERM)
    assert cluster.processes["dispatcher-2"].wait(60) == 0
    until(lambda: not cluster.named("workers.driver"), 30)
    assert not cluster.named("Trial")
