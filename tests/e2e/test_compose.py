"""docker-compose.yml is honest: each service's own command, run as a local process, makes a cluster that searches and
survives what is killed of it.

There is no docker engine where this is tested, so host names become addresses of this machine (one for each container,
as Ray's nodes need addresses of their own), and PostgreSQL comes from a wheel; commands and variables are the file's.
Two workers stand for two hosts of one worker each: what hardware each of them has is told to Ray by its environment.
A dispatcher in a host name of its own stands for one on another machine: it cannot see whose processes live.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
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
        self.head = machine_address()
        self.secrets = {"ATTUNE_TOKEN": secrets.token_hex(16), "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.database = database

    def start(
        self, service: str, *more: str, name: str = "", host: str = "", hardware: str = ""
    ) -> subprocess.Popen[bytes]:
        """The service's own command; `more` arguments stand for what a container would bring (an address, a folder).

        name: of this container, when a service has several. host: a host name of its own. hardware: what Ray finds on
        its host, as JSON.
        """
        described = COMPOSE["services"][service]
        command = [self._local(part) for part in described["command"]]
        if command[0] == "sh":
            command[2] = command[2].replace(" &&", f" {' '.join(more)} &&")
        else:
            command += more
        if host:
            command = [*named_host(host), *command]
        environment = self._environment(described) | ({"RAY_OVERRIDE_RESOURCES": hardware} if hardware else {})
        with (self.folder / f"{name or service}.log").open("ab") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        self.processes[name or service] = process
        return process

    def start_ray(self, service: str, *more: str, name: str = "", hardware: str = "") -> None:
        """A service that is a Ray node; started again when it fails, as the file's `restart` says."""
        assert COMPOSE["services"][service]["restart"] == "unless-stopped"

        def started() -> bool:
            if self.processes[name or service].poll() is not None:
                self.start(service, *more, name=name, hardware=hardware)
            return "Ray runtime started" in self.log(name or service)

        self.start(service, *more, name=name, hardware=hardware)
        until(started, PATIENCE)

    def _environment(self, described: dict[str, Any]) -> dict[str, str]:
        said = described.get("environment", {}).items()  # without a value: the host's, which has none here
        environment = {name: self._local(str(value)) for name, value in said if value is not None}
        if "ATTUNE_DATABASE_URL" in environment:
            environment["ATTUNE_DATABASE_URL"] = self.database
        if "ATTUNE_STORAGE" in environment:
            environment["ATTUNE_STORAGE"] = str(self.folder / "storage")
        if "ATTUNE_DATA" in environment:
            environment["ATTUNE_DATA"] = str(self.folder / "data")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ATTUNE_", "RAY_"))}
        image = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ATTUNE_HOME": str(self.folder),
            "ATTUNE_PLUGINS": PLUGIN,  # a data set whose trials need no GPU when they have been given one
            "TROUBLES_FOLDER": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "RAY_worker_niceness": "0",  # trial processes are what this test waits for
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
        text = text.replace("ray-head:6379", f"{self.head}:{self.ray_port}").replace("0.0.0.0", "127.0.0.1")
        return text.replace("--port=6379", f"--port={self.ray_port}").replace("8000", str(self.api_port))


def machine_address() -> str:
    """An address that is not loopback: on that, every host would have a cluster of its own."""
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family == socket.AF_INET and not address.address.startswith("127."):
                return address.address
    pytest.skip("this machine has no address but loopback")


def named_host(host: str) -> list[str]:
    """What runs a command in a host name of its own; the process id stays the same."""
    prefix = ["unshare", "--uts", "sh", "-c", f'hostname {host} && exec "$@"', "sh"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no process may have a host name of its own here")
    return prefix


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


def test_dispatchers_and_workers_share_one_store_and_read_the_same_data_sets() -> None:
    place = COMPOSE["services"]["dispatcher"]["environment"]["ATTUNE_STORAGE"]
    for name in ("worker", "dispatcher"):
        store, data = COMPOSE["services"][name]["volumes"]
        assert store == {"type": "volume", "source": "storage", "target": place}
        assert (data["target"], data["read_only"]) == (COMPOSE["services"][name]["environment"]["ATTUNE_DATA"], True)
        assert data["source"] == "${ATTUNE_DATA:-./data}"
    assert "storage" in COMPOSE["volumes"]


def test_a_host_offers_its_hardware_once() -> None:
    """A worker's command names no numbers, so that it offers all that its host has; compose starts no second container
    of a service whose container has a name."""
    worker = COMPOSE["services"]["worker"]
    assert not [part for part in worker["command"] if part.startswith(("--num-cpus", "--num-gpus"))]
    assert worker["container_name"]
    for name in ("ray-head", "dispatcher"):
        assert "--num-cpus=0" in " ".join(COMPOSE["services"][name]["command"])


def _open(cluster: Cluster) -> None:
    """Starts what `docker compose up --scale dispatcher=2` does, and another host's worker, each with a logical GPU."""
    migrate = cluster.start("migrate")
    assert migrate.wait(PATIENCE) == 0, cluster.log("migrate")
    cluster.start_ray("ray-head", f"--node-ip-address={cluster.head}", f"--temp-dir={cluster.folder}")
    for number in (1, 2):
        address = f"--node-ip-address=127.0.0.{number + 1}"
        cluster.start_ray("worker", address, name=f"worker-{number}", hardware='{"CPU": 2, "GPU": 1}')
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
            training={"epochs": 6},
            budget={"trials": 30},
            resources={"cpus": 0.5, "gpus": 0.25},
        )
        search_id = client.submit(troubled)["id"]
        until(lambda: _finished(client, search_id) >= 2, PATIENCE)
        engine = make_engine(cluster.database)
        before = invariants.committed(engine)
        _kill_while_it_runs(cluster, client, search_id)
        until(lambda: client.search(search_id)["status"] not in ("queued", "running"), PATIENCE)
        search = client.search(search_id)
        assert search["status"] == "succeeded", (search["error"], cluster.log("dispatcher-3")[-3000:])
        assert search["counts"]["succeeded"] == 31
        assert invariants.database_violations(engine, before) == []
        engine.dispose()
    _check_ends(cluster)


def _kill_while_it_runs(cluster: Cluster, client: Client, search_id: str) -> None:
    """A driver, a dispatcher, a whole container with both and a worker, one after the other; after each, the search
    gets on."""

    def gets_on() -> None:
        done = _finished(client, search_id)
        until(lambda: _finished(client, search_id) > done, PATIENCE)

    until(lambda: cluster.driver_of(search_id), PATIENCE).kill()
    gets_on()
    cluster.dispatcher(1).kill()  # its drivers live on, and the other dispatcher of this machine adopts them
    until(lambda: "driver.adopted" in cluster.log("dispatcher-2"), PATIENCE)
    gets_on()
    _take_over_by_lease(cluster, client, search_id)
    gets_on()
    resumed = _kill_worker(cluster, client)
    gets_on()
    until(lambda: any(_went_on(client, trial_id) for trial_id in resumed), PATIENCE)


def _take_over_by_lease(cluster: Cluster, client: Client, search_id: str) -> None:
    """A dispatcher and its drivers are gone at once, and one on another host cannot know but by the lease."""
    before = client.search(search_id)["attempt"]
    driver = until(lambda: cluster.driver_of(search_id), PATIENCE)
    cluster.start("dispatcher", "--node-ip-address=127.0.0.6", name="dispatcher-3", host="elsewhere")
    until(lambda: "dispatcher.ready" in cluster.log("dispatcher-3"), PATIENCE)
    cluster.dispatcher(2).kill()
    driver.kill()
    until(lambda: client.search(search_id)["attempt"] > before, PATIENCE)
    log = cluster.log("dispatcher-3")
    assert "search.taken_over" in log
    assert "driver.found_dead" not in log
    assert "driver.adopted" not in log


def _kill_worker(cluster: Cluster, client: Client) -> list[str]:
    """Trials that were on the worker and had a checkpoint."""

    def at_work() -> dict[str, list[str]] | None:
        nodes = [node for node in client.cluster()["nodes"] if node["gpus"] and node["alive"]]
        found = {node["id"]: [t["id"] for t in node["trials"] if t["epochs"] in (1, 2, 3)] for node in nodes}
        return found if len(found) == 2 and all(found.values()) else None

    before = until(at_work, PATIENCE)
    kill_tree(psutil.Process(cluster.processes["worker-1"].pid))

    def gpus() -> set[str]:
        return {node["id"] for node in client.cluster()["nodes"] if node["gpus"] and node["alive"]}

    until(lambda: len(gpus()) == 1, PATIENCE)
    [lost] = before.keys() - gpus()
    return before[lost]


def _went_on(client: Client, trial_id: str) -> bool:
    """Whether the trial has gone on from a checkpoint: on another node, as its own is lost."""
    return any(note["kind"] == "trial.resumed" for note in client.trial(trial_id)["notes"])


def _check_ends(cluster: Cluster) -> None:
    """Nothing of a search outlives it, and nothing of a dispatcher outlives that."""
    until(lambda: len(cluster.named("workers.driver")) <= 1, PATIENCE)  # a spare one
    cluster.dispatcher(3).send_signal(signal.SIGTERM)
    assert cluster.processes["dispatcher-3"].wait(60) == 0
    until(lambda: not cluster.named("workers.driver"), 30)
    assert not cluster.named("Trial")
